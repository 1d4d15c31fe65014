//! No process outlives its session, or the broker, however it tries and however the broker ends.

mod cgroup;
mod kill;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Broker, Session, eventually, process, say, within};

/// Ways to get out of sight, as `spawn_grandchild` of the fixture knows them.
fn escapes() -> [Value; 6] {
    [
        json!({}),
        json!({ "ignore_term": true }),
        json!({ "setsid": true, "ignore_term": true }),
        json!({ "setsid": true, "clear_env": true }),
        json!({ "setsid": true, "orphan": true }),
        json!({ "setsid": true, "orphan": true, "clear_env": true }),
    ]
}

#[track_caller]
fn escape(session: &mut Session, how: &Value) -> i32 {
    let pid = session.call_text("spawn_grandchild", how.clone());
    let pid = pid.parse().expect("a pid");
    assert!(process::runs(pid), "{how}");
    pid
}

/// One of each.
#[track_caller]
fn escape_all(session: &mut Session) -> Vec<i32> {
    escapes().iter().map(|how| escape(session, how)).collect()
}

/// Waits until the broker has looked through its descendants, and found this one to bear no marker.
#[track_caller]
fn wait_until_seen(broker: &Broker, pid: i32) {
    let record = run_dir(broker).join(pid.to_string());
    // It looks whenever a child has ended.
    broker.session().delete();
    eventually("it is written down", || record.exists());
}

/// The directory of the only run that there is.
#[track_caller]
fn run_dir(broker: &Broker) -> PathBuf {
    let runs = fs::read_dir(broker.dir().path().join("state/runs")).unwrap();
    let mut runs: Vec<PathBuf> = runs.map(|it| it.unwrap().path()).collect();
    assert_eq!(runs.len(), 1, "{runs:?}");
    runs.remove(0)
}

/// The ladder is 600 ms here.
const LADDER: Duration = Duration::from_secs(5);

#[track_caller]
fn assert_gone(broker: &Broker, pids: &[i32]) {
    within(LADDER, "all that was started ends", || {
        pids.iter().all(|pid| !process::runs(*pid))
    });
    eventually("no zombie", || process::zombies(broker.pid()).is_empty());
}

#[test]
fn nothing_outlives_its_session() {
    type End = fn(&mut Session);
    let ends: [End; 3] = [
        |session| assert_eq!(session.delete().status, 204),
        |session| {
            let exit = session.call_message("exit", json!({ "code": 9 }));
            session.post(&exit);
        },
        |session| process::signal(session.child().0, Signal::KILL),
    ];
    for end in ends {
        let broker = Broker::start(&["--ignore-term", "--grandchild"]);
        let mut session = broker.session();
        let (_, group) = session.child();
        let mut pids = escape_all(&mut session);
        pids.extend(process::group(group).iter().map(|it| it.pid));
        end(&mut session);
        assert_gone(&broker, &pids);
        assert_eq!(broker.children(), []);
        broker.assert_well();
    }
}

#[test]
fn nothing_outlives_an_idle_session() {
    let broker = Broker::setup().setting("idle_timeout", "1s").start();
    let mut session = broker.session();
    let mut pids = escape_all(&mut session);
    pids.push(session.child().0);
    assert_gone(&broker, &pids);
}

#[test]
fn nothing_outlives_the_broker() {
    for signals in [&[Signal::TERM][..], &[Signal::TERM, Signal::INT]] {
        let mut broker = Broker::start(&["--ignore-term"]);
        let (mut one, mut other) = (broker.session(), broker.session());
        let mut pids = escape_all(&mut one);
        pids.extend(escape_all(&mut other));
        for signal in signals {
            broker.signal(*signal);
        }
        assert_eq!(broker.wait().code(), Some(0));
        for pid in pids {
            assert!(!process::runs(pid), "{pid}; the log:\n{}", broker.log());
        }
        let runs = broker.dir().path().join("state/runs");
        assert_eq!(fs::read_dir(runs).unwrap().count(), 0);
    }
}

#[test]
fn what_a_living_session_has_started_lives() {
    let broker = Broker::start(&[]);
    let (mut one, mut other) = (broker.session(), broker.session());
    let (others, ours) = (escape_all(&mut one), escape_all(&mut other));
    wait_until_seen(&broker, others[3]);
    assert_eq!(one.delete().status, 204);
    // The last of them bears no marker and has lost its parent: it might be the other's.
    assert_gone(&broker, &others[..5]);
    for pid in &ours {
        assert!(process::runs(*pid), "{pid}; the log:\n{}", broker.log());
    }
    assert_eq!(other.delete().status, 204);
    assert_gone(&broker, &[others, ours].concat());
}

#[test]
fn a_broker_that_is_pid_1_reaps_what_is_not_its_own_and_ends_what_is() {
    let dir = crate::support::TempDir::new();
    let config = json!({ "mcpServers": { "fake": { "command": crate::support::fake_mcp() } } });
    let config = dir.write("config.json", &config.to_string()).unwrap();
    let mut command = std::process::Command::new("unshare");
    command
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(crate::support::broker::PROGRAM)
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--no-auth",
            "--log",
            "debug",
        ])
        .arg("--config")
        .arg(config)
        .arg("--state-dir")
        .arg(dir.path().join("state"))
        .env_remove("RUST_LOG");
    if rustix::process::geteuid().as_raw() != 0 {
        say("skipped: only root may make a pid namespace");
        return;
    }
    let mut outer = Broker::launch(command, dir);
    let broker = outer.children()[0].pid;
    let enter = |script: &str| {
        let mut command = std::process::Command::new("nsenter");
        let target = broker.to_string();
        command.args([
            "--target", &target, "--pid", "--mount", "/bin/sh", "-c", script,
        ]);
        assert_eq!(crate::support::broker::run_command(command).code, Some(0));
    };
    let mut session = outer.session();
    let [seen @ .., _] = escapes();
    let pids = seen.map(|how| session.call_text("spawn_grandchild", how));
    // Without marker: to be known, it must be seen while it has its parent.
    wait_until_seen(&outer, pids[3].parse().unwrap());
    enter("sleep 1000 </dev/null >/dev/null 2>&1 & sleep 0.01 </dev/null >/dev/null 2>&1 &");
    assert_eq!(session.delete().status, 204);
    eventually("only the stranger is left", || {
        process::children(broker).len() == 1
    });
    eventually("no zombie", || process::zombies(broker).is_empty());
    process::signal(broker, Signal::TERM);
    assert_eq!(outer.wait().code(), Some(0));
}
