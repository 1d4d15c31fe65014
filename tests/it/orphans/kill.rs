//! What is left when the broker is killed, and what the next one makes of it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::{escape, escape_all, run_dir, wait_until_seen};
use crate::support::{Broker, Session, eventually, process, say};

/// What is in the environment of all its children.
fn marker(broker: &Broker) -> String {
    let dir = run_dir(broker);
    format!("MCP_BROKER_RUN={}:", dir.file_name().unwrap().display())
}

fn kill(broker: &mut Broker) {
    broker.signal(Signal::KILL);
    assert_eq!(broker.wait().code(), None);
}

#[test]
fn a_killed_broker_leaves_no_child_and_the_next_start_the_rest() {
    let mut broker = Broker::start(&["--grandchild", "--ignore-term"]);
    let mut sessions = [broker.session(), broker.session()];
    let children = sessions.each_mut().map(|session| session.child().0);
    let pids: Vec<i32> = sessions.iter_mut().flat_map(escape_all).collect();
    let marker = marker(&broker);
    kill(&mut broker);
    eventually("the children end", || {
        children.iter().all(|pid| !process::runs(*pid))
    });
    assert!(process::with_env(&marker).len() >= 6);
    let next = broker.again();
    assert_eq!(process::with_env(&marker), []);
    next.wait_for_log("orphan killed pid=");
    // Not those that clear their environment and leave, all in less time than between two looks.
    let left: Vec<i32> = pids.into_iter().filter(|pid| process::runs(*pid)).collect();
    left.iter()
        .for_each(|pid| process::signal(*pid, Signal::KILL));
    assert!(left.len() <= 4, "{left:?}");
    next.assert_well();
}

#[test]
fn one_that_clears_its_environment_and_leaves_is_known_if_it_was_seen() {
    let mut broker = Broker::start(&[]);
    let mut session = broker.session();
    let pid = escape(&mut session, &json!({ "setsid": true, "clear_env": true }));
    wait_until_seen(&broker, pid);
    kill(&mut broker);
    let next = broker.again();
    assert!(!process::runs(pid));
    next.wait_for_log(&format!(
        "orphan killed pid={pid} of session={}",
        label(&session)
    ));
}

fn label(session: &Session) -> &str {
    &session.id.as_deref().expect("a session")[..8]
}

/// Opens sessions for as long as there is a broker.
fn open_sessions(addr: SocketAddr, stop: &AtomicBool) {
    let body = Session::new(addr).initialize_message().to_string();
    let head = "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
                Accept: application/json, text/event-stream\r\nConnection: close\r\n";
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut stream) = TcpStream::connect(addr) else {
            return;
        };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
        let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len());
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

/// A small generator (xorshift): the same moments for the same seed.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn a_broker_killed_at_any_moment_leaves_no_child() {
    let mut seed = u64::from(std::process::id()) << 20 | 1;
    say(&format!("seed {seed}"));
    let mut broker = Broker::start(&["--grandchild"]);
    for round in 0..5 {
        let (stop, addr) = (AtomicBool::new(false), broker.addr());
        let marker = marker(&broker);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| open_sessions(addr, &stop));
            }
            std::thread::sleep(Duration::from_micros(random(&mut seed) % 200_000));
            kill(&mut broker);
            stop.store(true, Ordering::Relaxed);
        });
        let leads = |process: &process::Process| process.pid == process.group;
        eventually("the children end", || {
            !process::with_env(&marker).iter().any(leads)
        });
        let next = broker.again();
        assert_eq!(
            process::with_env(&marker),
            [],
            "round {round}: {}",
            next.log()
        );
        broker = next;
    }
}

/// A process that no broker knows, in a group of its own; ended with its group at the end.
struct Stranger {
    child: Child,
    /// The process that is looked at.
    pid: i32,
}

impl Stranger {
    /// The shell's `sleep`, whose group has or has not a leader any more.
    fn start(env: Option<(&str, &str)>, has_leader: bool) -> Self {
        let script = match has_leader {
            true => "sleep 1000 & echo $!; wait",
            false => "sleep 1000 & echo $!",
        };
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).process_group(0);
        command.stdout(Stdio::piped()).envs(env);
        let mut child = command.spawn().expect("a shell");
        let mut pid = String::new();
        let mut stdout = child.stdout.take().expect("a pipe");
        while !pid.ends_with('\n') {
            let mut byte = [0];
            stdout.read_exact(&mut byte).expect("a pid");
            pid.push(char::from(byte[0]));
        }
        if !has_leader {
            child.wait().expect("its end");
        }
        let pid = pid.trim().parse().expect("a pid");
        Self { child, pid }
    }

    fn group(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        process::signal(self.pid, Signal::KILL);
        // The shell ends with it.
        let _ = self.child.wait();
    }
}

#[test]
fn no_stranger_is_hit() {
    let other = "ffffffffffffffffffffffffffffffff:3fa9c1d2.1";
    let mut broker = Broker::start(&[]);
    let session = broker.session();
    let dir = run_dir(&broker);
    kill(&mut broker);
    let record = |pid: i32, start: u64| {
        fs::write(dir.join(pid.to_string()), format!("{start} 3fa9c1d2\n")).unwrap();
    };
    let reused = Stranger::start(None, true);
    record(reused.group(), process::start_time(reused.group()) - 1);
    let leaderless = Stranger::start(None, false);
    record(leaderless.group(), process::start_time(leaderless.pid));
    let others = Stranger::start(Some(("MCP_BROKER_RUN", other)), true);
    let nobody = Stranger::start(None, true);
    // The proof that records are read at all.
    let ours = Stranger::start(None, true);
    record(ours.group(), process::start_time(ours.group()));
    let next = broker.again();
    assert!(!process::runs(ours.pid) && !process::runs(ours.group()));
    for stranger in [&reused, &leaderless, &others, &nobody] {
        assert!(process::runs(stranger.pid), "{}", next.log());
    }
    assert!(!dir.exists());
    drop(session);
}

#[test]
fn what_another_boot_or_pid_namespace_wrote_down_means_nothing() {
    let mut broker = Broker::start(&[]);
    let dir = run_dir(&broker);
    kill(&mut broker);
    let stranger = Stranger::start(None, true);
    let start = process::start_time(stranger.group());
    fs::write(
        dir.join(stranger.group().to_string()),
        format!("{start} 3fa9c1d2\n"),
    )
    .unwrap();
    fs::write(dir.join("scope"), "another boot\npid:[4026531836]\n").unwrap();
    let next = broker.again();
    assert!(process::runs(stranger.pid), "{}", next.log());
    assert!(!dir.exists());
}

#[test]
fn brokers_that_share_a_state_directory_leave_each_other_alone() {
    let one = Broker::start(&["--grandchild"]);
    let mut session = one.session();
    let (pid, _) = session.child();
    let other = one.again();
    other.assert_well();
    let mut killed = other;
    killed.session();
    kill(&mut killed);
    let next = one.again();
    assert!(process::runs(pid));
    assert_eq!(session.call_text("echo", json!({})), "{}");
    next.assert_well();
}
