//! Children that misbehave, the environment they get, and what is left of them: nothing.

mod ending;

use serde_json::{Value, json};

use crate::support::{Broker, Session, eventually, fake_mcp, process};

#[test]
fn garbage_on_stdout_is_logged_and_never_forwarded() {
    let broker = Broker::start(&["--garbage"]);
    let mut session = broker.session();
    let get = session.listen();
    let call = session.call_message("echo", json!({}));
    let response = session.post(&call);
    assert_eq!(response.messages().len(), 1, "{}", response.text());
    assert_eq!(response.answer()["id"], call["id"]);
    session.call("garbage", json!({}));
    session.call("notify", json!({ "method": "notifications/x" }));
    let mut get = get;
    assert_eq!(get.message()["method"], "notifications/x");
    broker.wait_for_log("this is not JSON");
}

#[test]
fn a_line_longer_than_allowed_is_skipped_and_ends_nothing() {
    let broker = Broker::setup().options(&["--max-message", "64KiB"]).start();
    let mut session = broker.session();
    let too_long = json!({ "bytes": 300 * 1024 });
    assert_eq!(
        session.call_text("longline", too_long),
        "wrote 307200 bytes"
    );
    broker.wait_for_log("longer than max_message");
    assert_eq!(session.call_text("echo", json!({})), "{}");
}

#[test]
fn an_answer_longer_than_allowed_is_an_error() {
    let broker = Broker::setup().options(&["--max-message", "64KiB"]).start();
    let mut session = broker.session();
    let answer = session.call("big", json!({ "bytes": 300 * 1024 }));
    let message = answer["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("longer than max_message"), "{answer}");
    assert_eq!(session.call_text("echo", json!({})), "{}");
}

#[test]
fn a_flood_on_stderr_neither_stops_the_child_nor_fills_the_broker() {
    let broker = Broker::start(&["--flood-stderr"]);
    let mut session = broker.session();
    let before = process::resident_kib(broker.pid());
    for _ in 0..20 {
        assert_eq!(
            session.call_text("sleep", json!({ "ms": 25 })),
            "slept 25 ms"
        );
    }
    let grown = process::resident_kib(broker.pid()).saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB more");
    let lines = broker.log().lines().count();
    assert!(lines < 1000, "{lines} lines of log");
}

#[test]
fn a_deaf_child_hurts_nobody_else() {
    let broker = Broker::start(&[]);
    let mut deaf = broker.session();
    let mut other = broker.session();
    let (pid, _) = deaf.child();
    assert_eq!(deaf.call_text("deaf", json!({})), "deaf from now on");
    // More than the pipe holds: the writer thread cannot finish.
    let calls: Vec<_> = (0..4)
        .map(|_| deaf.call_aside("echo", json!({ "text": "z".repeat(200_000) })))
        .collect();
    for _ in 0..10 {
        assert_eq!(other.call_text("echo", json!({})), "{}");
    }
    assert_eq!(deaf.delete().status, 204);
    for call in calls {
        let response = call.join().unwrap();
        if response.status == 200 {
            assert_eq!(response.answer()["error"]["code"], -32000);
        } else {
            assert_eq!((response.status, response.error_code()), (404, -32001));
        }
    }
    eventually("the deaf child ends", || !process::runs(pid));
    assert_eq!(other.call_text("echo", json!({})), "{}");
}

#[test]
fn a_child_that_never_reads_or_answers_has_not_started() {
    for how in ["--mute", "--deaf"] {
        let broker = Broker::setup()
            .server("silent", &[how])
            .setting("start_timeout", "300ms")
            .start();
        let response = broker.client().initialize();
        assert_eq!(
            (response.status, response.error_code()),
            (500, -32603),
            "{how}"
        );
        assert!(response.error_message().contains("\"silent\""));
        assert_eq!(response.header("Mcp-Session-Id"), None);
        eventually("its child ends", || broker.children().is_empty());
    }
}

#[test]
fn a_child_that_refuses_to_initialize_makes_no_session() {
    // Else it would be found out to be a modern one, and be served.
    let entry = json!({
        "command": fake_mcp(), "args": ["--era", "modern"], "broker": { "era": "legacy" }
    });
    let broker = Broker::setup().server_entry("fake", entry).start();
    let response = broker.client().initialize();
    assert!(
        response.json().get("error").is_some(),
        "{}",
        response.text()
    );
    assert_eq!(response.header("Mcp-Session-Id"), None);
    eventually("its child ends", || broker.children().is_empty());
}

#[test]
fn a_child_that_dies_at_work_ends_its_session_only() {
    let broker = Broker::start(&["--die-after", "2"]);
    let other = broker.session();
    let mut session = broker.session();
    assert_eq!(session.call_text("echo", json!({})), "{}");
    let call = session.call_message("echo", json!({}));
    let answer = session.post(&call).answer();
    assert_eq!(answer["error"]["code"], -32000);
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("exit status 7"), "{message}");
    let ping = json!({ "jsonrpc": "2.0", "id": "p", "method": "ping" });
    assert_eq!(session.post(&ping).status, 404);
    assert_eq!(other.post(&ping).status, 200);
    eventually("no zombie", || process::zombies(broker.pid()).is_empty());
}

#[test]
fn the_environment_is_what_was_configured_and_little_else() {
    let env = json!({
        "USER_NAME": "${user.name}",
        "KEY": "x-${user.env.KEY}-y",
        "FROM_BROKER": "${env.IT_BROKER_ONLY}",
        "PRICE": "5$$",
        "LANG": "tlh",
    });
    let entry = json!({ "command": fake_mcp(), "args": [], "env": env });
    let broker = Broker::setup()
        .server_entry("fake", entry)
        .user(
            "alice",
            &["--env", "KEY=of-alice", "--env", "OTHER=not-asked-for"],
        )
        .user("bob", &["--env", "KEY=of-bob"])
        .env("IT_BROKER_ONLY", "broker's own")
        .env("IT_SECRET", "not for children")
        .env("TMPDIR", "/tmp")
        .start();
    let (mut alice, mut bob) = (broker.user("alice").ready(), broker.user("bob").ready());
    let names = alice.call_text("env", json!({}));
    let names: Vec<String> = serde_json::from_str(&names).unwrap();
    let allowed = [
        "FROM_BROKER",
        "HOME",
        "KEY",
        "LANG",
        "MCP_BROKER_RUN",
        "PATH",
        "PRICE",
        "TMPDIR",
        "USER_NAME",
    ];
    for name in &names {
        assert!(allowed.contains(&name.as_str()), "{name} in {names:?}");
    }
    for name in ["PATH", "HOME", "TMPDIR"] {
        assert!(names.iter().any(|it| it == name), "no {name} in {names:?}");
    }
    let check = |session: &mut Session, name: &str, expected: &str| {
        assert_eq!(session.call_text("env", json!({ "name": name })), expected);
    };
    check(&mut alice, "USER_NAME", "alice");
    check(&mut alice, "KEY", "x-of-alice-y");
    check(&mut alice, "FROM_BROKER", "broker's own");
    check(&mut alice, "PRICE", "5$");
    check(&mut alice, "LANG", "tlh");
    check(&mut bob, "USER_NAME", "bob");
    check(&mut bob, "KEY", "x-of-bob-y");
}

#[test]
fn a_user_without_a_key_that_is_needed_is_told_its_name() {
    let entry = json!({ "command": fake_mcp(), "env": { "TOKEN": "${user.env.TOKEN}" } });
    let broker = Broker::setup()
        .server_entry("fake", entry)
        .user("alice", &["--env", "OTHER=quite-secret"])
        .start();
    let response = broker.user("alice").initialize();
    assert_eq!((response.status, response.error_code()), (500, -32603));
    let message = response.error_message();
    assert!(
        message.contains("TOKEN") && message.contains("\"fake\""),
        "{message}"
    );
    assert!(!message.contains("quite-secret"), "{message}");
    assert_eq!(broker.children(), []);
}

#[test]
fn a_secret_on_stderr_is_struck_out_of_the_log() {
    let entry = json!({ "command": fake_mcp(), "env": { "KEY": "${user.env.KEY}" } });
    let broker = Broker::setup()
        .server_entry("fake", entry)
        .user("alice", &["--env", "KEY=hunter2-very-secret"])
        .start();
    let mut alice = broker.user("alice").ready();
    alice.call(
        "stderr",
        json!({ "text": "before hunter2-very-secret after" }),
    );
    broker.wait_for_log("before *** after");
    assert!(!broker.log().contains("hunter2"), "{}", broker.log());
    assert!(!broker.log().contains(broker.token("alice")));
}

#[test]
fn a_child_leads_its_own_process_group() {
    let broker = Broker::start(&[]);
    let (mut one, mut other) = (broker.session(), broker.session());
    let ((one_pid, one_group), (other_pid, other_group)) = (one.child(), other.child());
    assert_eq!((one_pid, other_pid), (one_group, other_group));
    assert_ne!(one_group, other_group);
    let ids: Value = serde_json::from_str(&one.call_text("pid", json!({}))).unwrap();
    assert_eq!(ids["ppid"], broker.pid());
}

#[test]
fn threads_and_descriptors_go_with_their_session() {
    let broker = Broker::start(&[]);
    broker.assert_well();
    let settled = || {
        (
            process::threads(broker.pid()),
            process::descriptors(broker.pid()),
        )
    };
    let count = || {
        let (threads, descriptors) = settled();
        let own = |it: &&String| {
            ["w:", "r:", "e:", "stop:"]
                .iter()
                .any(|kind| it.starts_with(kind))
        };
        (threads.iter().filter(own).count(), descriptors)
    };
    eventually("the first one's threads end", || count().0 == 0);
    let sessions: Vec<Session> = (0..8).map(|_| broker.session()).collect();
    assert!(count().0 >= 16, "{:?}", settled());
    let streams: Vec<_> = sessions.iter().map(Session::listen).collect();
    for session in &sessions {
        assert_eq!(session.delete().status, 204);
    }
    drop(streams);
    eventually("their threads end", || count().0 == 0);
    // Connections opened ahead between the edge and tiny_http may come and go.
    eventually("their descriptors are closed", || count().1 < 40);
    assert_eq!(broker.children(), []);
    assert_eq!(process::zombies(broker.pid()), []);
}
