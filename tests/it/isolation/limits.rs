//! What each child is started with, whoever it is for: its end with the broker's, its limits, its
//! descriptors; and what a user is told when it cannot be started.

use std::fs;
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::broker::{PROGRAM, run_command};
use crate::support::user::{Programs, as_ourselves, give, is_root};
use crate::support::{Broker, TempDir, eventually, fake_mcp, process, run};

#[test]
fn children_end_with_a_broker_that_is_killed() {
    let mut broker = Broker::start(&[]);
    let deaf = |_| {
        let mut session = broker.session();
        let (pid, _) = session.child();
        // It does not notice that its stdin ends, either.
        session.call("deaf", json!({}));
        pid
    };
    let children: Vec<i32> = (0..3).map(deaf).collect();
    assert_eq!(broker.children().len(), 3);
    broker.signal(Signal::KILL);
    broker.wait();
    for pid in children {
        eventually("the child ends", || !process::runs(pid));
    }
}

#[test]
fn one_thread_is_the_parent_of_all_children_as_long_as_there_are_any() {
    let broker = Broker::start(&[]);
    let is_there = || {
        process::threads(broker.pid())
            .iter()
            .any(|it| it == "spawn")
    };
    // A thread gives itself its name.
    eventually("the thread that starts children", is_there);
    let session = broker.session();
    broker.session().delete();
    assert!(is_there());
    assert_eq!(session.clone().call_text("echo", json!({})), "{}");
}

fn read(session: &mut crate::support::Session, path: &str) -> String {
    session.call_text("read_file", json!({ "path": path }))
}

#[track_caller]
fn assert_limit(limits: &str, name: &str, expected: [&str; 2]) {
    let line = limits.lines().find_map(|line| line.strip_prefix(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in {limits}"));
    let found: Vec<&str> = line.split_whitespace().take(2).collect();
    assert_eq!(found, expected, "{name}");
}

#[test]
fn limits_are_what_the_broker_was_given_or_what_is_configured() {
    let entry = |options: Value| json!({ "command": fake_mcp(), "broker": options });
    let broker = Broker::setup()
        .server_entry("free", entry(json!({})))
        .server_entry(
            "bound",
            entry(json!({ "open_files_max": 100, "file_size_max": "1MiB" })),
        )
        .start();
    let mut free = broker.client().at("/mcp/free").ready();
    let limits = read(&mut free, "/proc/self/limits");
    assert_limit(&limits, "Max core file size", ["0", "0"]);
    let mine = |file: &str, start: &str| {
        let text = fs::read_to_string(format!("/proc/self/{file}")).unwrap();
        let line = text.lines().find(|it| it.starts_with(start));
        line.unwrap().trim_end().to_owned()
    };
    let files = mine("limits", "Max open files");
    assert!(limits.contains(&files), "{files} in {limits}");
    // Of the thread that reads: while one starts another, its signals are blocked.
    let status = read(&mut free, "/proc/thread-self/status");
    // Both are programs in Rust, which ignore SIGPIPE.
    let ignored = mine("status", "SigIgn:");
    for part in ["NoNewPrivs:\t1", "SigBlk:\t0000000000000000", &ignored] {
        assert!(status.contains(part), "{part} in {status}");
    }

    let mut bound = broker.client().at("/mcp/bound").ready();
    let limits = read(&mut bound, "/proc/self/limits");
    assert_limit(&limits, "Max core file size", ["0", "0"]);
    assert_limit(&limits, "Max open files", ["100", "100"]);
    assert_limit(&limits, "Max file size", ["1048576", "1048576"]);
}

#[test]
fn a_child_has_three_descriptors_whatever_the_broker_has() {
    let dir = TempDir::new();
    let mut command = Command::new("sh");
    command.args(["-c", r#"exec 7</dev/null; exec "$0" "$@""#, PROGRAM]);
    command.args([
        "serve",
        "--no-auth",
        "--listen",
        "127.0.0.1:0",
        "--state-dir",
    ]);
    command.arg(dir.path().join("state"));
    command.args(as_ourselves());
    command.args(["--", &fake_mcp()]);
    let broker = Broker::launch(command, dir);
    let mut sessions: Vec<_> = (0..4).map(|_| broker.session()).collect();
    for session in &mut sessions {
        assert_eq!(session.call_text("descriptors", json!({})), "0 1 2");
    }
}

#[test]
fn a_user_is_told_why_a_server_cannot_be_started() {
    let dir = TempDir::new();
    let plain = dir.write("plain", "no program").unwrap();
    let plain = plain.to_str().unwrap();
    let nowhere = "/nonexistent/directory";
    let entries = [
        (
            "missing",
            json!({ "command": "/nonexistent/server" }),
            "status 127",
            "cannot start /nonexistent/server: No such file or directory (os error 2)".to_owned(),
        ),
        (
            "unknown",
            json!({ "command": "no-such-program-anywhere" }),
            "status 127",
            "cannot start no-such-program-anywhere: No such file or directory (os error 2)"
                .to_owned(),
        ),
        (
            "plain",
            json!({ "command": plain }),
            "status 126",
            format!("cannot start {plain}: Permission denied (os error 13)"),
        ),
        (
            "homeless",
            json!({ "command": fake_mcp(), "cwd": nowhere }),
            "status 126",
            format!(
                "cannot start {}: cannot work in {nowhere}: No such file or directory (os error 2)",
                fake_mcp()
            ),
        ),
    ];
    let mut setup = Broker::setup();
    let mut servers = serde_json::Map::new();
    for (name, entry, ..) in &entries {
        setup = setup.server_entry(name, entry.clone());
        servers.insert((*name).to_owned(), entry.clone());
    }
    let config = json!({ "mcpServers": servers }).to_string();
    let config = dir.write("config.json", &config).unwrap();
    let config = config.to_str().unwrap();
    let checked = run(&[&["check", "--config", config], as_ourselves()].concat());
    assert_eq!(checked.code, Some(1), "{checked:?}");
    let broker = setup.start();
    for (name, _, status, why) in &entries {
        let response = broker.client().at(&format!("/mcp/{name}")).initialize();
        assert_eq!((response.status, response.error_code()), (500, -32603));
        let message = response.error_message();
        for part in [&format!("\"{name}\""), *status, why] {
            assert!(message.contains(part), "{part} in {message}");
        }
        assert!(
            checked.stdout.contains(why.as_str()),
            "{why} in {checked:?}"
        );
    }
    eventually("nothing is left", || broker.children().is_empty());
}

#[test]
fn who_cannot_be_run_as_is_said_at_the_start() {
    let programs = Programs::copy();
    let dir = TempDir::new();
    give(&[dir.path()]);
    let state = dir.path().join("state");
    let complaint = |is_ordinary: bool, command: &str, who: &str| {
        let mut broker = programs.broker(is_ordinary);
        broker.args([command, "--no-auth", "--run-as", who, "--state-dir"]);
        broker.arg(&state);
        let run = run_command(broker);
        assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{run:?}");
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
        run.stderr
    };
    for command in ["serve", "check"] {
        for who in ["root", "60000-60001", "1:1", "nobody"] {
            let said = complaint(true, command, who);
            let expected = format!("run_as is {who}, but the broker is not root");
            assert!(said.contains(&expected), "{said}");
        }
        if is_root() {
            let said = complaint(false, command, "no-such-user");
            assert!(said.contains("/etc/passwd does not have"), "{said}");
        }
    }
}

#[test]
fn the_launcher_starts_nothing_without_its_broker() {
    let launched = run(&["launch", "--parent", "1", "--", "echo", "started"]);
    assert_eq!((launched.code, launched.stdout.as_str()), (Some(126), ""));
    assert_eq!(launched.stderr, "cannot start echo: the broker has ended");
    let asked = run(&["launch", "--parent", "1", "--strange", "1", "--", "echo"]);
    assert_eq!(asked.code, Some(126), "{asked:?}");
    assert!(!run(&["--help"]).stdout.contains("launch"));
}

#[test]
fn a_protection_that_cannot_be_applied_is_not_skipped() {
    let me = std::process::id().to_string();
    for option in [
        ["--cgroup", "/nonexistent/cgroup"],
        ["--record", "/nonexistent/run"],
        ["--open-files", "18446744073709551614:18446744073709551614"],
    ] {
        let args = [
            "launch", "--parent", &me, option[0], option[1], "--", "echo", "started",
        ];
        let launched = run(&args);
        assert_eq!(
            (launched.code, launched.stdout.as_str()),
            (Some(126), ""),
            "{option:?}"
        );
        assert!(
            launched.stderr.starts_with("cannot start echo: cannot "),
            "{launched:?}"
        );
    }
}
