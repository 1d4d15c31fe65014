//! Children in cgroups of their own: what cannot be found by any other means is ended too. Where
//! the machine has no controllers, a hierarchy can still be had, which is all that this needs.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use rustix::fs::{XattrFlags, setxattr};
use rustix::process::Signal;
use serde_json::json;

use super::{escape, escape_all};
use crate::support::broker::PROGRAM;
use crate::support::{Broker, TempDir, eventually, fake_mcp, process, say};

/// A cgroup that is the broker's to divide; removed at the end.
struct Delegated(PathBuf);

impl Delegated {
    /// `None`, and a line on stderr, where there can be none.
    fn new() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/mounts").expect("mounts");
        let mounted = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ');
            let (point, kind) = (fields.nth(1)?, fields.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(point))
        });
        let Some(mounted) = mounted else {
            say("skipped: no cgroup v2 is mounted");
            return None;
        };
        let path = mounted.join(format!("mcp-broker-it-{}", std::process::id()));
        if let Err(error) = fs::create_dir(&path) {
            say(&format!("skipped: {}: {error}", path.display()));
            return None;
        }
        let delegated = Self(path);
        // As systemd does, which is what tells the broker.
        let marked = setxattr(&delegated.0, "trusted.delegate", b"1", XattrFlags::empty());
        if let Err(error) = marked {
            say(&format!("skipped: {}: {error}", delegated.0.display()));
            return None;
        }
        Some(delegated)
    }

    /// The cgroups in it whose names begin so.
    fn names(&self, prefix: &str) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("a cgroup");
        let names = entries.map(|it| it.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(prefix)).collect()
    }

    #[track_caller]
    fn broker(&self, dir: impl Into<Arc<TempDir>>) -> Broker {
        let dir = dir.into();
        let config = json!({
            "mcpServers": { "fake": { "command": fake_mcp() } },
            "broker": { "stop_grace": "300ms", "kill_grace": "300ms", "drain": "300ms" },
        });
        let config = dir.write("config.json", &config.to_string()).unwrap();
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", r#"echo $$ > "$0/cgroup.procs"; exec "$@""#])
            .arg(&self.0)
            .args([PROGRAM, "serve", "--listen", "127.0.0.1:0", "--no-auth"])
            .args(["--log", "debug", "--config"])
            .arg(config)
            .arg("--state-dir")
            .arg(dir.path().join("state"))
            .env_remove("RUST_LOG");
        Broker::launch(command, dir)
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        eventually("the cgroup goes", || {
            self.names("").iter().for_each(|name| {
                let _ = fs::remove_dir(self.0.join(name));
            });
            fs::remove_dir(&self.0).is_ok() || !self.0.exists()
        });
    }
}

fn cgroup_of(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default()
}

#[test]
fn all_that_a_child_starts_is_in_its_cgroup_and_ends_with_it() {
    let Some(delegated) = Delegated::new() else {
        return;
    };
    let broker = delegated.broker(TempDir::new());
    broker.wait_for_log("protection cgroup=on");
    assert!(cgroup_of(broker.pid()).contains("/broker-"));
    let (mut session, mut other) = (broker.session(), broker.session());
    let mut pids = escape_all(&mut session);
    let orphan = json!({ "setsid": true, "orphan": true, "clear_env": true });
    let others = escape(&mut other, &orphan);
    pids.push(session.child().0);
    assert_eq!(delegated.names("child-").len(), 2);
    for pid in &pids {
        assert!(cgroup_of(*pid).contains("/child-"), "{}", cgroup_of(*pid));
    }
    assert_eq!(session.delete().status, 204);
    // Also the one that bears no marker and has lost its parent, while another session lives.
    eventually("all of it ends", || {
        pids.iter().all(|pid| !process::runs(*pid))
    });
    eventually("its cgroup goes", || delegated.names("child-").len() == 1);
    assert!(process::runs(others));
    assert_eq!(other.call_text("echo", json!({})), "{}");
}

#[test]
fn a_killed_broker_leaves_nothing_that_the_next_does_not_find() {
    let Some(delegated) = Delegated::new() else {
        return;
    };
    let mut broker = delegated.broker(TempDir::new());
    let mut session = broker.session();
    let pids = escape_all(&mut session);
    // Cgroups that are none of the broker's business.
    let strange = ["child-of-somebody-else", "broker-of-somebody-else"];
    for name in strange {
        fs::create_dir(delegated.0.join(name)).unwrap();
    }
    let alive = delegated.broker(TempDir::new());
    let mut living = alive.session();
    let lives = escape_all(&mut living);
    broker.signal(Signal::KILL);
    broker.wait();
    let next = delegated.broker(TempDir::new());
    for pid in &pids {
        assert!(!process::runs(*pid), "{}", next.log());
    }
    for pid in &lives {
        assert!(process::runs(*pid), "{}", next.log());
    }
    let (children, brokers) = (delegated.names("child-"), delegated.names("broker-"));
    assert_eq!(
        (children.len(), brokers.len()),
        (2, 3),
        "{children:?} {brokers:?}"
    );
    for name in strange {
        assert!(delegated.0.join(name).exists(), "{name}");
    }
}

#[test]
fn a_cgroup_that_others_are_in_is_left_alone() {
    let Some(delegated) = Delegated::new() else {
        return;
    };
    let mut stranger = Command::new("sleep").arg("1000").spawn().expect("sleep");
    fs::write(delegated.0.join("cgroup.procs"), stranger.id().to_string()).unwrap();
    let broker = delegated.broker(TempDir::new());
    broker.wait_for_log("has 1 other processes in it");
    broker.assert_well();
    assert_eq!(delegated.names("child-"), [""; 0]);
    assert_eq!(delegated.names("broker-"), [""; 0]);
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}
