//! Tokens, made and taken away while the broker runs, and the secrets that never come out again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Broker, Run, TempDir, broker::PROGRAM, eventually, run, within};

/// Within these a running broker notices, as documented; a little more for a machine under load.
const HONOURED: Duration = Duration::from_millis(1500);
const ENDED: Duration = Duration::from_millis(2500);

fn ping() -> Value {
    json!({ "jsonrpc": "2.0", "id": "ping", "method": "ping" })
}

/// The status of a GET without a session id: 401 for nobody, 400 for somebody.
fn knocked(broker: &Broker, token: &str) -> u16 {
    let client = broker.client().with_token(token);
    client.request("GET").send(broker.addr()).status
}

#[test]
fn a_new_token_is_honoured_within_a_second() {
    let broker = Broker::setup().user("alice", &[]).start();
    let token = broker.add_token("bob", &[]);
    within(HONOURED, "the token is honoured", || {
        knocked(&broker, &token) == 400
    });
    let mut bob = broker.client().with_token(&token).ready();
    assert_eq!(bob.call_text("echo", json!({})), "{}");
}

#[test]
fn revoking_a_token_ends_that_users_sessions_and_no_others() {
    let broker = Broker::setup().user("alice", &[]).user("bob", &[]).start();
    let alice = broker.user("alice").ready();
    let sessions = [broker.user("bob").ready(), broker.user("bob").ready()];
    let mut stream = sessions[0].listen();
    assert_eq!(broker.children().len(), 3);
    let revoked = broker.token_command(&["revoke", "bob"]);
    assert_eq!((revoked.code, revoked.stdout.as_str()), (Some(0), ""));
    within(ENDED, "bob's children end", || broker.children().len() == 1);
    assert_eq!(stream.rest(), Vec::<Value>::new());
    assert!(sessions.iter().all(|it| it.post(&ping()).status == 401));
    assert_eq!(broker.user("bob").initialize().status, 401);
    assert_eq!(alice.post(&ping()).status, 200);
}

#[test]
fn a_token_of_the_same_name_does_not_inherit_the_sessions() {
    let broker = Broker::setup().user("alice", &[]).user("bob", &[]).start();
    let old = broker.user("bob").ready();
    assert_eq!(broker.token_command(&["revoke", "bob"]).code, Some(0));
    let token = broker.add_token("bob", &[]);
    within(HONOURED, "the new one is honoured", || {
        knocked(&broker, &token) == 400
    });
    let status = old.clone().with_token(&token).post(&ping()).status;
    // Somebody else's, or gone by now.
    assert!([403, 404].contains(&status), "{status}");
    assert_eq!(old.post(&ping()).status, 401);
}

#[test]
fn a_token_expires_with_its_sessions() {
    let broker = Broker::setup()
        .user("alice", &[])
        .user("guest", &["--expires", "2s"])
        .start();
    let alice = broker.user("alice").ready();
    let guest = broker.user("guest").ready();
    within(Duration::from_secs(5), "it expires", || {
        guest.post(&ping()).status == 401
    });
    within(ENDED, "its child ends", || broker.children().len() == 1);
    assert_eq!(alice.post(&ping()).status, 200);
    let list = broker.token_command(&["list"]);
    let line = list.stdout.lines().find(|it| it.starts_with("guest"));
    assert!(line.is_some_and(|it| it.contains("expired")), "{list:?}");
}

#[test]
fn no_secret_is_ever_shown_again() {
    let broker = Broker::setup()
        .user("alice", &["--env", "KEY=hunter2-very-secret"])
        .start();
    let token = broker.token("alice").to_owned();
    // 256 bits at least, in characters of 6 bits at most.
    assert!(token.len() >= 43, "{token}");
    let alice = broker.user("alice").ready();
    assert_eq!(alice.post(&ping()).status, 200);
    let state = broker.dir().path().join("state");
    let mut seen = vec![broker.log(), broker.stdout()];
    for args in [&["list"][..], &["add", "alice"], &["revoke", "nobody"]] {
        let Run { stdout, stderr, .. } = broker.token_command(args);
        seen.extend([stdout, stderr]);
    }
    for text in seen {
        assert!(!text.contains(&token), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    for file in fs::read_dir(state).unwrap() {
        let path = file.unwrap().path();
        let Ok(bytes) = fs::read(&path) else {
            continue; // a socket
        };
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(&token), "{} has the token", path.display());
    }
    // Nor in the arguments of any process.
    for process in broker.children() {
        let path = format!("/proc/{}/cmdline", process.pid);
        let arguments = fs::read_to_string(path).unwrap_or_default();
        assert!(!arguments.contains("hunter2"), "{arguments}");
    }
}

#[test]
fn the_list_names_users_and_keys() {
    let broker = Broker::setup()
        .user("alice", &["--env", "B=2222", "--env", "A=1111"])
        .user("bob", &["--expires", "90d"])
        .start();
    let list = broker.token_command(&["list"]).stdout;
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines.len(), 3, "{list}");
    assert!(
        lines[1].starts_with("alice") && lines[1].ends_with("A,B"),
        "{list}"
    );
    assert!(
        lines[1].contains("never") && lines[2].starts_with("bob"),
        "{list}"
    );
}

#[test]
fn mistakes_with_tokens_are_said_in_one_line() {
    let broker = Broker::setup().user("alice", &[]).start();
    let check = |args: &[&str], code: i32, words: &[&str]| {
        let run = broker.token_command(args);
        assert_eq!((run.code, run.stdout.as_str()), (Some(code), ""), "{run:?}");
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
        assert!(
            words.iter().all(|it| run.stderr.contains(it)),
            "{}",
            run.stderr
        );
    };
    check(&["add", "alice"], 1, &["alice"]);
    check(&["revoke", "nobody"], 1, &["nobody"]);
    check(&["add", "new", "--env", "A=1", "--env", "A=2"], 1, &["A"]);
    check(&["add", "new", "--env", "hunter2"], 1, &["KEY=VALUE"]);
    let run = broker.token_command(&["add", "new", "--env", "hunter2"]);
    assert!(!run.stderr.contains("hunter2"), "{}", run.stderr);
    check(&["add", "new", "--expires", "soon"], 2, &["--expires"]);
    check(&["add"], 2, &["NAME"]);
}

#[test]
fn the_state_is_for_its_owner_only() {
    let broker = Broker::setup().user("alice", &[]).start();
    let state = broker.dir().path().join("state");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    let tokens = token_file(&state);
    assert_eq!(mode(&tokens), 0o600);
}

/// The only regular file that a first token leaves.
fn token_file(state: &std::path::Path) -> std::path::PathBuf {
    let files = fs::read_dir(state).unwrap().map(|it| it.unwrap().path());
    let mut files = files.filter(|it| it.is_file() && fs::metadata(it).unwrap().len() > 0);
    files.next().expect("a token file")
}

#[test]
fn a_token_file_that_others_can_read_is_refused() {
    let dir = TempDir::new();
    let state = dir.path().join("state");
    let state_text = state.to_str().unwrap();
    assert_eq!(
        run(&["token", "add", "a", "--state-dir", state_text]).code,
        Some(0)
    );
    let tokens = token_file(&state);
    let loosen = |path: &std::path::Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let check = |path: &std::path::Path| {
        let serve = [
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--state-dir",
            state_text,
        ];
        let list = ["token", "list", "--state-dir", state_text];
        for args in [&serve[..], &list] {
            let run = run(args);
            assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{run:?}");
            assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
            assert!(
                run.stderr.contains(path.to_str().unwrap()),
                "{}",
                run.stderr
            );
        }
    };
    loosen(&tokens, 0o644);
    check(&tokens);
    loosen(&tokens, 0o600);
    loosen(&state, 0o777);
    check(&state);
}

#[test]
fn the_running_broker_keeps_its_tokens_when_the_file_breaks() {
    let broker = Broker::setup().user("alice", &[]).start();
    let alice = broker.user("alice").ready();
    let tokens = token_file(&broker.dir().path().join("state"));
    let good = fs::read(&tokens).unwrap();
    fs::write(&tokens, "not what it was").unwrap();
    broker.wait_for_log("stay in force");
    assert_eq!(alice.post(&ping()).status, 200);
    fs::write(&tokens, good).unwrap();
    let token = broker.add_token("bob", &[]);
    eventually("it is read again", || knocked(&broker, &token) == 400);
    assert_eq!(alice.post(&ping()).status, 200);
}

#[test]
fn everybody_is_let_in_on_loopback_only() {
    let dir = TempDir::new();
    let state = dir.path().join("state");
    for addr in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let mut command = Command::new(PROGRAM);
        command.args(["serve", "--no-auth", "--listen", addr, "--state-dir"]);
        command.arg(&state);
        let run = crate::support::broker::run_command(command);
        assert_eq!((run.code, run.stdout.as_str()), (Some(78), ""), "{run:?}");
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
        assert!(run.stderr.contains("no_auth"), "{}", run.stderr);
    }
    assert!(!state.exists());
}

#[test]
fn a_token_that_is_revoked_while_its_child_starts_gets_no_session() {
    let broker = Broker::setup()
        .server("fake", &["--slow-ms", "1200"])
        .user("alice", &[])
        .user("bob", &[])
        .start();
    let opening = {
        let mut bob = broker.user("bob");
        std::thread::spawn(move || bob.initialize())
    };
    eventually("the child starts", || !broker.children().is_empty());
    assert_eq!(broker.token_command(&["revoke", "bob"]).code, Some(0));
    within(ENDED, "the child ends", || broker.children().is_empty());
    let response = opening.join().unwrap();
    assert!([401, 503].contains(&response.status), "{response:?}");
    broker.signal(Signal::TERM);
}
