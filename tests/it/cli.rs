//! The program as a user meets it in a shell: what it prints, and how it ends.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use serde_json::json;

use crate::support::broker::{PROGRAM, run_command};
use crate::support::user::as_ourselves;
use crate::support::{Broker, Run, TempDir, fake_mcp, run};

/// Ends so, having said one line on stderr with all these words, and nothing on stdout.
#[track_caller]
fn assert_complaint(run: &Run, code: i32, words: &[&str]) {
    assert_eq!((run.code, run.stdout.as_str()), (Some(code), ""), "{run:?}");
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    for word in words {
        assert!(run.stderr.contains(word), "{word} in {}", run.stderr);
    }
}

#[test]
fn help_and_version_go_to_stdout() {
    let help = run(&["--help"]);
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    for word in [
        "serve",
        "token add",
        "user revoke",
        "client list",
        "check",
        "demo-server",
        "--listen",
        "--no-auth",
    ] {
        assert!(help.stdout.contains(word), "{word} in {}", help.stdout);
    }
    for args in [
        &["serve", "--help"][..],
        &["token", "add", "-h"],
        &["user", "-h"],
        &["client", "revoke", "--help"],
        &["check", "-h"],
        &[],
    ] {
        assert_eq!(run(args).stdout, help.stdout, "{args:?}");
    }
    let version = run(&["--version"]);
    let expected = concat!("mcp-broker ", env!("CARGO_PKG_VERSION"));
    assert_eq!((version.code, version.stdout.as_str()), (Some(0), expected));
}

#[test]
fn a_command_line_that_makes_no_sense_ends_with_2() {
    let check = |args: &[&str], words: &[&str]| assert_complaint(&run(args), 2, words);
    check(&["server"], &["server", "did you mean serve"]);
    check(
        &["serve", "--lisen", "x"],
        &["--lisen", "did you mean --listen"],
    );
    check(&["serve", "--listen"], &["--listen", "value"]);
    check(&["serve", "--listen", "nowhere"], &["--listen", "nowhere"]);
    check(
        &["serve", "--max-sessions", "many"],
        &["--max-sessions", "many"],
    );
    check(&["serve", "--idle-timeout", "30"], &["--idle-timeout"]);
    check(&["serve", "--gone-status", "500"], &["404", "410"]);
    check(&["serve", "stray"], &["stray", "--"]);
    check(&["serve", "--"], &["--"]);
    check(&["serve", "--no-auth=yes"], &["--no-auth"]);
    check(&["token", "ad", "x"], &["ad", "add"]);
    check(&["token"], &["add", "list", "revoke"]);
    check(&["user"], &["list", "revoke"]);
    check(&["client", "revoke"], &["client revoke", "NAME"]);
}

#[test]
fn a_wrong_configuration_ends_with_78_and_names_file_and_line() {
    let dir = TempDir::new();
    let check = |text: &str, line: u32, words: &[&str]| {
        let path = dir.write("config.json", text).unwrap();
        let place = format!("config.json:{line}:");
        for command in ["serve", "check"] {
            let run = run(&[command, "--config", path.to_str().unwrap()]);
            assert_complaint(&run, 78, &[&[place.as_str()], words].concat());
        }
    };
    check("{", 1, &[]);
    check("{\n \"mcpServer\": {}\n}", 2, &["mcpServer", "mcpServers"]);
    let server = r#""mcpServers": {"a": {"command": "x"}}"#;
    let broker = format!("{{\n{server},\n\"broker\": {{\n \"max_session\": 1}}}}");
    check(&broker, 4, &["max_session", "max_sessions"]);
    check(
        "{\n\"mcpServers\": {\"a\":\n{\"comand\": \"x\"}}}",
        3,
        &["comand", "command"],
    );
    let missing = dir.path().join("missing.json");
    let missing = missing.to_str().unwrap();
    let missing_run = run(&["serve", "--config", missing]);
    assert_complaint(&missing_run, 78, &[missing, "No such file"]);
}

/// What they do where somebody has signed in is tested beside them.
#[test]
fn user_and_client_make_nothing_where_nobody_signed_in() {
    let dir = TempDir::new();
    let state = dir.path().join("state");
    let state = state.to_str().unwrap();
    for who in ["user", "client"] {
        let list = run(&[who, "list", "--state-dir", state]);
        assert_eq!((list.code, list.stderr.as_str()), (Some(0), ""));
        assert!(list.stdout.starts_with("NAME "), "{list:?}");
        assert_eq!(list.stdout.lines().count(), 1, "{list:?}");
        let revoke = run(&[who, "revoke", "alice", "--state-dir", state]);
        assert_complaint(&revoke, 1, &[state, "nobody has signed in"]);
        assert!(fs::metadata(state).is_err(), "{state} was made");
    }
}

#[test]
fn an_address_in_use_is_said_in_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let dir = TempDir::new();
    let state = dir.path().join("state");
    let state = state.to_str().unwrap();
    let run = run(&[
        "serve",
        "--no-auth",
        "--listen",
        &addr,
        "--state-dir",
        state,
    ]);
    assert_complaint(&run, 1, &[&addr, "in use"]);
}

/// `check` over programs that only whoever runs the tests may be able to reach.
#[track_caller]
fn run_check(args: &[&str]) -> Run {
    run(&[&["check"], as_ourselves(), args].concat())
}

#[test]
fn check_prints_what_each_server_offers() {
    let dir = TempDir::new();
    let config = json!({ "mcpServers": {
        "good": { "command": fake_mcp(), "args": [] },
        "chatty": { "command": fake_mcp(), "args": ["--garbage"] },
    }});
    let path = dir.write("config.json", &config.to_string()).unwrap();
    let path = path.to_str().unwrap();
    let state = dir.path().join("state");
    let state = state.to_str().unwrap();
    let checked = run_check(&["--config", path, "--state-dir", state]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let lines: Vec<&str> = checked.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{checked:?}");
    for name in ["good", "chatty"] {
        let line = lines
            .iter()
            .find(|it| it.starts_with(&format!("{name}: fake_mcp")));
        let line = line.unwrap_or_else(|| panic!("{name} in {lines:?}"));
        for part in ["protocol 2025-11-25", " tools", " resources", " prompts"] {
            assert!(line.contains(part), "{part} in {line}");
        }
    }
    let checked = run_check(&["--state-dir", state, "--", &fake_mcp()]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(checked.stdout.contains("fake_mcp"), "{checked:?}");
}

#[test]
fn check_fails_for_a_broken_server_and_says_why() {
    let dir = TempDir::new();
    let config = json!({
        "mcpServers": {
            "good": { "command": fake_mcp() },
            "missing": { "command": "/nonexistent/server" },
            "quitter": { "command": fake_mcp(), "args": ["--exit-at-start", "3"] },
            "mute": { "command": fake_mcp(), "args": ["--mute"] },
        },
        "broker": { "start_timeout": "500ms", "stop_grace": "200ms", "kill_grace": "200ms" },
    });
    let path = dir.write("config.json", &config.to_string()).unwrap();
    let checked = run_check(&["--config", path.to_str().unwrap()]);
    assert_eq!(checked.code, Some(1), "{checked:?}");
    let says = |start: &str, word: &str| {
        let line = checked.stdout.lines().find(|it| it.starts_with(start));
        assert!(line.is_some_and(|it| it.contains(word)), "{checked:?}");
    };
    says("good: fake_mcp", "tools");
    says("missing: FAILED", "exit status 127");
    says("  cannot start /nonexistent/server: ", "No such file");
    says("quitter: FAILED", "exit status 3");
    says("mute: FAILED", "initialize");
    assert!(checked.stdout.contains("cannot start"), "{checked:?}");
    assert!(checked.stderr.contains("3 of 4 servers"), "{checked:?}");
}

/// `serve` with nothing configured, as a new user types it, but at a free port.
fn serve_nothing(state: &std::path::Path) -> Broker {
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--listen", "127.0.0.1:0", "--state-dir"]);
    command.arg(state);
    Broker::launch(command, TempDir::new())
}

#[track_caller]
fn line_with(broker: &Broker, text: &str) -> String {
    let find = || {
        let stdout = broker.stdout();
        let line = stdout.lines().find(|it| it.contains(text));
        line.map(ToOwned::to_owned)
    };
    crate::support::eventually(text, || find().is_some());
    find().unwrap_or_default()
}

#[test]
fn the_first_run_makes_a_token_and_the_lines_it_prints_work() {
    let dir = TempDir::new();
    let state = dir.path().join("state");
    let broker = serve_nothing(&state);
    let add = line_with(&broker, "claude mcp add");
    let url = format!("http://{}/mcp", broker.addr());
    let token = line_with(&broker, "shown only now");
    let token = token.rsplit(' ').next().unwrap();
    assert!(add.contains(&url) && add.contains(token), "{add}");
    let curl = line_with(&broker, "curl ");
    let mut shell = Command::new("sh");
    shell.args(["-c", &curl]);
    let ran = run_command(shell);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stdout.starts_with("HTTP/1.1 200"), "{ran:?}");
    assert!(
        ran.stdout.to_lowercase().contains("mcp-session-id: "),
        "{ran:?}"
    );
    assert!(ran.stdout.contains(r#""serverInfo""#), "{ran:?}");
    let mut session = broker.client().with_token(token).ready();
    assert!(
        session
            .call_text("echo", json!({ "text": "hello" }))
            .contains("hello")
    );
    drop(broker);
    // The second run shows no token, and the first one still works.
    let broker = serve_nothing(&state);
    let curl = line_with(&broker, "curl ");
    assert!(curl.contains("$TOKEN"), "{curl}");
    line_with(&broker, "claude mcp add");
    assert!(!broker.stdout().contains(token) && !broker.stdout().contains("shown only now"));
    broker.client().with_token(token).ready();
}

#[test]
fn a_command_line_of_ones_own_is_served() {
    let mut command = Command::new(PROGRAM);
    command.args([
        "serve",
        "--no-auth",
        "--listen",
        "127.0.0.1:0",
        "--state-dir",
    ]);
    let dir = TempDir::new();
    command.arg(dir.path().join("state"));
    command.args(as_ourselves());
    command.args(["--", &fake_mcp(), "--garbage"]);
    let broker = Broker::launch(command, dir);
    broker.assert_well();
}

#[test]
fn without_authentication_the_curl_line_needs_no_token() {
    let broker = Broker::start(&[]);
    let curl = line_with(&broker, "curl ");
    assert!(!curl.contains("Authorization"), "{curl}");
    let mut shell = Command::new("sh");
    shell.args(["-c", &curl]);
    let ran = run_command(shell);
    assert!(ran.stdout.starts_with("HTTP/1.1 200"), "{ran:?}");
}

#[test]
fn it_serves_on_a_unix_socket_which_goes_with_it() {
    use std::io::{Read, Write};
    let dir = TempDir::new();
    let socket = dir.path().join("broker.sock");
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--no-auth", "--state-dir"]);
    command.arg(dir.path().join("state")).arg("--listen");
    command.arg(format!("unix:{}", socket.display()));
    let mut child = command
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 17];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut line)
        .unwrap();
    assert_eq!(&line, b"listening on unix");
    let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    stream
        .set_read_timeout(Some(crate::support::DEADLINE))
        .unwrap();
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    let pid = i32::try_from(child.id()).unwrap();
    crate::support::process::signal(pid, rustix::process::Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(
        fs::symlink_metadata(&socket).is_err(),
        "the socket is left behind"
    );
}
