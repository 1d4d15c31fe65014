//! What keeps one user's child from another's, and from the broker. Where the tests are run by
//! root, brokers are started here as an ordinary user, or as root with children that are not.

mod limits;

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::user::{Programs, is_root};
use crate::support::{Broker, Session, TempDir, eventually, process};

const DENIED: &str = "Permission denied";
const NOT_PERMITTED: &str = "Operation not permitted";

/// Two users with a secret each, and a broker that is an ordinary user's, or root's.
fn two_users(is_ordinary: bool, options: Value, settings: &[(&str, Value)]) -> Broker {
    let programs = Programs::copy();
    let entry = json!({
        "command": programs.fake_mcp(),
        "env": { "KEY": "${user.env.KEY}" },
        "broker": options,
    });
    let mut setup = Broker::setup()
        .server_entry("fake", entry)
        .user("alice", &["--env", "KEY=secret-of-alice"])
        .user("bob", &["--env", "KEY=secret-of-bob"])
        .env("IT_SECRET", "secret-of-the-broker");
    for (key, value) in settings {
        setup = setup.setting(key, value.clone());
    }
    setup.programs(programs, is_ordinary).start()
}

/// A session of one of them, and what its child is.
struct User {
    session: Session,
    pid: i32,
    home: PathBuf,
}

impl User {
    #[track_caller]
    fn of(broker: &Broker, name: &str) -> Self {
        let mut session = broker.user(name).ready();
        let (pid, _) = session.child();
        let home = session.call_text("env", json!({ "name": "HOME" }));
        Self {
            session,
            pid,
            home: home.into(),
        }
    }

    /// Text, or what the operating system said.
    #[track_caller]
    fn tries(&mut self, tool: &str, arguments: Value) -> Result<String, String> {
        let answer = self.session.call(tool, arguments);
        let result = &answer["result"];
        let text = result["content"][0]["text"].as_str();
        let text = text
            .unwrap_or_else(|| panic!("{tool}: {answer}"))
            .to_owned();
        match result["isError"] == true {
            true => Err(text),
            false => Ok(text),
        }
    }

    #[track_caller]
    fn reads(&mut self, path: impl AsRef<Path>) -> Result<String, String> {
        self.tries("read_file", json!({ "path": path.as_ref() }))
    }

    #[track_caller]
    fn writes(&mut self, path: impl AsRef<Path>) -> Result<String, String> {
        self.tries("write_file", json!({ "path": path.as_ref() }))
    }

    #[track_caller]
    fn renames(&mut self, from: &Path, to: &Path) -> Result<String, String> {
        self.tries("rename", json!({ "path": from, "to": to }))
    }

    /// The first number of a line of its `/proc/PID/status`.
    #[track_caller]
    fn status(&mut self, key: &str) -> String {
        let status = self.reads("/proc/self/status").expect("its status");
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix(&format!("{key}:")));
        let word = line.and_then(|line| line.split_whitespace().next());
        word.unwrap_or_else(|| panic!("no {key} in {status}"))
            .to_owned()
    }
}

#[track_caller]
fn assert_refused(tried: &Result<String, String>, why: &str) {
    assert!(
        tried.as_ref().is_err_and(|said| said.contains(why)),
        "{tried:?}"
    );
}

/// Without Landlock there is nothing to be seen but the warning.
fn has_landlock(broker: &Broker) -> bool {
    let log = broker.log();
    assert!(log.contains("protection landlock="), "{log}");
    !log.contains("protection landlock=off: this kernel")
}

/// What holds whoever runs the broker.
#[track_caller]
fn assert_apart(broker: &Broker, alice: &mut User, bob: &mut User) {
    let environ = alice
        .reads("/proc/self/environ")
        .expect("its own environment");
    let key = alice.session.call_text("env", json!({ "name": "KEY" }));
    assert!(environ.contains(&key), "{key} in {environ}");
    for pid in [bob.pid, broker.pid()] {
        for file in ["environ", "mem", "maps"] {
            assert_refused(&alice.reads(format!("/proc/{pid}/{file}")), DENIED);
        }
    }

    let treasure = bob.home.join("treasure");
    assert_eq!(bob.writes(&treasure).as_deref(), Ok("written"));
    assert_eq!(bob.reads(&treasure).as_deref(), Ok("written\n"));
    let own = alice.home.join("own");
    assert_eq!(alice.writes(&own).as_deref(), Ok("written"));
    assert_refused(&alice.reads(&treasure), DENIED);
    assert_refused(&alice.writes(&treasure), DENIED);
    assert_refused(&alice.writes(bob.home.join("new")), DENIED);
    assert!(alice.renames(&own, &treasure).is_err());

    let state = broker.dir().path().join("state");
    assert_refused(&alice.reads(state.join("tokens.json")), DENIED);
    assert_refused(&alice.writes(state.join("new")), DENIED);
    assert!(alice.renames(&own, &state.join("tokens.json")).is_err());
    assert!(alice.renames(&state.join("tokens.json"), &own).is_err());

    // The one way past the edge would be its socket.
    let in_state = fs::read_dir(&state).expect("the state directory");
    let names: Vec<_> = in_state.map(|it| it.unwrap().file_name()).collect();
    let is_socket = |name: &std::ffi::OsString| name.to_string_lossy().ends_with(".sock");
    assert!(!names.iter().any(is_socket), "{names:?}");

    for signal in [0, Signal::TERM.as_raw()] {
        for pid in [bob.pid, broker.pid()] {
            let sent = alice.tries("signal", json!({ "pid": pid, "signal": signal }));
            assert_refused(&sent, NOT_PERMITTED);
        }
    }
    assert_eq!(bob.reads(&treasure).as_deref(), Ok("written\n"));
}

#[test]
fn children_of_an_ordinary_user_cannot_reach_each_other() {
    let broker = two_users(true, json!({}), &[]);
    if !has_landlock(&broker) {
        return;
    }
    let (mut alice, mut bob) = (User::of(&broker, "alice"), User::of(&broker, "bob"));
    assert_ne!(alice.status("Uid"), "0");
    assert_eq!(alice.status("Uid"), bob.status("Uid"));
    assert_apart(&broker, &mut alice, &mut bob);
    assert_apart(&broker, &mut bob, &mut alice);
}

#[test]
fn children_of_root_have_a_uid_for_each_user() {
    if !is_root() {
        return;
    }
    let broker = two_users(false, json!({}), &[]);
    let (mut alice, mut bob) = (User::of(&broker, "alice"), User::of(&broker, "bob"));
    let uid = |user: &mut User| {
        let uid: u32 = user.status("Uid").parse().expect("a uid");
        assert_eq!(user.status("Gid"), uid.to_string());
        assert_eq!(user.status("CapEff"), "0000000000000000");
        uid
    };
    let (of_alice, of_bob) = (uid(&mut alice), uid(&mut bob));
    assert!((61184..=65519).contains(&of_alice), "{of_alice}");
    assert_ne!(of_alice, of_bob);
    let mut again = User::of(&broker, "alice");
    assert_eq!((uid(&mut again), &again.home), (of_alice, &alice.home));
    assert_apart(&broker, &mut alice, &mut bob);
}

#[test]
fn a_uid_for_each_user_is_enough_where_landlock_is_not_wanted() {
    if !is_root() {
        return;
    }
    let settings = [("run_as", json!("60000-60001"))];
    let broker = two_users(false, json!({ "isolate": false }), &settings);
    let (mut alice, mut bob) = (User::of(&broker, "alice"), User::of(&broker, "bob"));
    assert_apart(&broker, &mut alice, &mut bob);
    let token = broker.add_token("carol", &["--env", "KEY=secret-of-carol"]);
    eventually("the token is known", || {
        broker.client().with_token(&token).initialize().status == 500
    });
    let refused = broker.client().with_token(&token).initialize();
    let why = refused.error_message().to_owned();
    assert!(why.contains("no uid of 60000-60001 is free"), "{why}");
    bob.session.delete();
    eventually("bob's uid is free", || {
        broker.client().with_token(&token).initialize().status == 200
    });
}

#[test]
fn a_server_that_is_not_isolated_is_warned_of() {
    let broker = two_users(true, json!({ "isolate": false }), &[]);
    if !has_landlock(&broker) {
        return;
    }
    let (mut alice, bob) = (User::of(&broker, "alice"), User::of(&broker, "bob"));
    let seen = alice.reads(format!("/proc/{}/environ", bob.pid));
    assert!(seen.is_ok_and(|it| it.contains("secret-of-bob")));
    broker.wait_for_log("protection landlock=off server=fake");
}

#[test]
fn what_servers_usually_do_goes_on_working() {
    let broker = two_users(true, json!({}), &[]);
    let mut alice = User::of(&broker, "alice");
    let tmp: PathBuf = alice
        .session
        .call_text("env", json!({ "name": "TMPDIR" }))
        .into();
    let name = format!("mcp-broker-it-{}", std::process::id());
    let elsewhere = [
        Path::new("/var/tmp").join(&name),
        Path::new("/dev/shm").join(&name),
    ];
    let in_home = alice.home.join("file");
    for path in [&in_home, &tmp.join("file"), Path::new("/dev/null")] {
        assert_eq!(
            alice.writes(path).as_deref(),
            Ok("written"),
            "{}",
            path.display()
        );
    }
    for path in &elsewhere {
        assert_eq!(
            alice.writes(path).as_deref(),
            Ok("written"),
            "{}",
            path.display()
        );
        let _ = fs::remove_file(path);
    }
    let moved = alice.renames(&in_home, &tmp.join("moved"));
    assert_eq!(moved.as_deref(), Ok("renamed"));
    for path in [
        "/etc/passwd",
        "/proc/self/environ",
        "/proc/meminfo",
        "/proc/1/stat",
    ] {
        assert!(alice.reads(path).is_ok(), "{path}");
    }
    // A process of its own is its own to end.
    let grandchild: i32 = alice
        .session
        .call_text("spawn_grandchild", json!({}))
        .parse()
        .expect("a pid");
    let killed = alice.tries("signal", json!({ "pid": grandchild, "signal": 9 }));
    assert_eq!(killed.as_deref(), Ok("sent"));
}

#[test]
fn abstract_sockets_of_others_are_out_of_reach() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};

    let name = format!("mcp-broker-it-{}", std::process::id());
    let addr = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&addr).unwrap();
    for isolate in [true, false] {
        let broker = two_users(true, json!({ "isolate": isolate }), &[]);
        let mut alice = User::of(&broker, "alice");
        let tried = alice.tries("connect", json!({ "name": name }));
        match isolate && broker.log().contains("abstract sockets") {
            true => assert_refused(&tried, NOT_PERMITTED),
            false => assert_eq!(tried.as_deref(), Ok("connected")),
        }
    }
}

#[test]
fn a_home_goes_with_the_last_session_of_its_user() {
    let broker = two_users(true, json!({}), &[]);
    let (mut first, bob) = (User::of(&broker, "alice"), User::of(&broker, "bob"));
    let second = User::of(&broker, "alice");
    assert_eq!(first.home, second.home);
    assert_ne!(first.home, bob.home);
    let file = first.home.join("file");
    first.writes(&file).expect("a file in its home");
    first.session.delete();
    eventually("its child ends", || !process::runs(first.pid));
    assert!(file.exists());
    second.session.delete();
    eventually("the home goes", || !first.home.exists());
    assert!(bob.home.exists());
    let third = User::of(&broker, "alice");
    assert!(third.home.exists() && !file.exists());
}

#[test]
fn homes_are_kept_where_that_is_wanted() {
    let broker = two_users(true, json!({}), &[("keep_homes", json!(true))]);
    let mut alice = User::of(&broker, "alice");
    let tmp: PathBuf = alice
        .session
        .call_text("env", json!({ "name": "TMPDIR" }))
        .into();
    for directory in [alice.home.clone(), tmp.clone()] {
        alice.writes(directory.join("file")).expect("a file");
    }
    alice.session.delete();
    eventually("its tmp goes", || !tmp.exists());
    let mut again = User::of(&broker, "alice");
    assert_eq!(
        again.reads(alice.home.join("file")).as_deref(),
        Ok("written\n")
    );
    assert!(again.reads(tmp.join("file")).is_err());
}

#[test]
fn a_home_of_its_own_wins() {
    let programs = Programs::copy();
    let env = json!({ "HOME": "/nowhere", "TMPDIR": "${env.IT_TMP}" });
    let entry = json!({ "command": programs.fake_mcp(), "env": env });
    let broker = Broker::setup()
        .server_entry("fake", entry)
        .env("IT_TMP", "/var/tmp")
        .programs(programs, true)
        .start();
    let mut session = broker.session();
    let mut value = |name: &str| session.call_text("env", json!({ "name": name }));
    assert_eq!(
        (value("HOME"), value("TMPDIR")),
        ("/nowhere".into(), "/var/tmp".into())
    );
}

#[test]
fn nothing_is_left_of_homes_when_a_broker_was_killed() {
    let programs = Programs::copy();
    let dir = TempDir::new();
    let state = dir.path().join("state");
    let serve = || {
        let mut command = programs.broker(false);
        command.args([
            "serve",
            "--no-auth",
            "--listen",
            "127.0.0.1:0",
            "--state-dir",
        ]);
        command.arg(&state);
        command.args(crate::support::user::as_ourselves());
        command.args(["--", &programs.fake_mcp()]);
        Broker::launch(command, TempDir::new())
    };
    let mut killed = serve();
    let mut session = killed.session();
    let home = session.call_text("env", json!({ "name": "HOME" }));
    session.call("write_file", json!({ "path": format!("{home}/file") }));
    let (pid, _) = session.child();
    killed.signal(Signal::KILL);
    killed.wait();
    eventually("its child ends", || !process::runs(pid));
    assert!(Path::new(&home).exists());
    let next = serve();
    assert!(!Path::new(&home).exists());
    drop(next);
    assert!(!state.join("homes").exists());
}
