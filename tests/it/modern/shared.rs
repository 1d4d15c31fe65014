//! One child for all requests of a principal, and never one for two.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{KINDS, client, setup, user};
use crate::support::modern::text;
use crate::support::{Connection, Request, eventually, process, within};

#[test]
fn many_first_requests_start_one_child() {
    for kind in KINDS {
        let broker = setup(kind).start();
        let calls: Vec<_> = (0..16)
            .map(|n| client(&broker).call_aside("echo", json!({ "n": n })))
            .collect();
        for (n, call) in calls.into_iter().enumerate() {
            let response = call.join().unwrap();
            assert_eq!(response.status, 200, "{kind}: {response:?}");
            assert_eq!(text(&response.answer()), format!(r#"{{"n":{n}}}"#));
        }
        eventually("what was probed ends", || broker.children().len() == 1);
    }
}

#[test]
fn principals_never_meet() {
    for kind in KINDS {
        let broker = setup(kind)
            .user("ann", &["--env", "WHO=ann"])
            .user("bob", &["--env", "WHO=bob"])
            .start();
        let clients =
            ["ann", "bob"].map(|name| user(&broker, name).with_meta("progressToken", "same"));
        let pids = clients.clone().map(|mut it| it.pid());
        assert_ne!(pids[0], pids[1]);
        let mut streams = clients.clone().map(|mut it| {
            let (_, stream) = it.listen(json!({ "toolsListChanged": true }));
            stream
        });
        // Equal ids and equal tokens at once.
        let counts = [3, 5];
        let threads = [0, 1].map(|at| {
            let (mut client, n) = (clients[at].clone(), counts[at]);
            std::thread::spawn(move || {
                for _ in 0..20 {
                    client.last_request = 6;
                    let call = client.call_message("count", json!({ "n": n, "delay_ms": 1 }));
                    let messages = client.stream(&call).rest();
                    assert_eq!(messages.len(), n + 1, "{messages:?}");
                    for message in &messages[..n] {
                        assert_eq!(message["params"]["progressToken"], "same");
                        assert_eq!(message["params"]["total"], n);
                    }
                    assert_eq!(text(&messages[n]), format!("counted to {n}"));
                }
            })
        });
        threads.into_iter().for_each(|it| it.join().unwrap());
        let [mut ann, mut bob] = clients;
        ann.call_text("test_trigger_tool_change", json!({}));
        let change = streams[0].message();
        assert_eq!(change["method"], "notifications/tools/list_changed");
        // The next that the other hears of is its own.
        bob.call_text("test_trigger_tool_change", json!({}));
        streams[1].message();
        assert_eq!(ann.pid(), pids[0]);
        assert_eq!(bob.pid(), pids[1]);
    }
}

#[test]
fn servers_do_not_share_a_child() {
    let broker = crate::support::Broker::setup()
        .server("one", &["--era", "legacy"])
        .server("two", &["--era", "modern"])
        .start();
    let pid = |path: &str| client(&broker).at(path).pid();
    let (one, two) = (pid("/mcp/one"), pid("/mcp/two"));
    assert_ne!(one, two);
    assert_eq!((pid("/mcp/one"), pid("/mcp/two")), (one, two));
}

#[test]
fn an_idle_child_ends_and_comes_back() {
    for kind in KINDS {
        let broker = setup(kind).setting("idle_timeout", "1s").start();
        let mut client = client(&broker);
        let first = client.pid();
        eventually("it ends", || process::group(first).is_empty());
        let second = client.pid();
        assert_ne!(first, second);
        // A subscription is use; a client that listens would have to come back otherwise.
        let (_, stream) = client.listen(json!({ "toolsListChanged": true }));
        let seen = broker.log().matches("session ended").count();
        let mut slow = client.clone();
        assert_eq!(
            slow.call_text("sleep", json!({ "ms": 2500 })),
            "slept 2500 ms"
        );
        assert_eq!(broker.log().matches("session ended").count(), seen);
        assert_eq!(client.pid(), second, "{kind}");
        drop(stream);
        eventually("it ends", || process::group(second).is_empty());
    }
}

#[test]
fn a_revoked_token_ends_its_child_and_nothing_else() {
    for kind in KINDS {
        let broker = setup(kind).user("ann", &[]).user("bob", &[]).start();
        let (mut ann, mut bob) = (user(&broker, "ann"), user(&broker, "bob"));
        let (of_ann, of_bob) = (ann.pid(), bob.pid());
        let (_, mut stream) = bob.listen(json!({ "toolsListChanged": true }));
        let revoked = broker.token_command(&["revoke", "bob"]);
        assert_eq!(revoked.code, Some(0));
        within(Duration::from_secs(2), "bob's child ends", || {
            process::group(of_bob).is_empty()
        });
        let last = stream.rest();
        assert!(last.len() <= 1, "{last:?}");
        let message = bob.message("tools/list", json!({}));
        assert_eq!(bob.post(&message).status, 401);
        assert_eq!(ann.pid(), of_ann);
    }
}

#[test]
fn requests_follow_each_other_on_a_connection() {
    for kind in KINDS {
        let broker = setup(kind).start();
        let mut client = client(&broker);
        let mut connection = Connection::open(broker.addr());
        for n in 0..20 {
            let call = client.call_message("echo", json!({ "n": n }));
            let request: Request = client.request(&call.to_string());
            connection.send(&request);
            let answer = connection.response().answer();
            assert_eq!(text(&answer), format!(r#"{{"n":{n}}}"#), "{kind}");
        }
    }
}

#[test]
fn log_messages_come_by_the_level_that_is_asked_for() {
    for kind in KINDS {
        let broker = setup(kind).start();
        let level = "io.modelcontextprotocol/logLevel";
        let log = |client: &mut crate::support::modern::Modern| -> Vec<Value> {
            let call = client.call_message("log", json!({ "level": "warning", "n": 2 }));
            let messages = client.post(&call).messages();
            let parsed = messages.iter().map(|it| serde_json::from_str(it).unwrap());
            parsed.collect()
        };
        assert_eq!(log(&mut client(&broker)).len(), 1, "{kind}");
        let heard = log(&mut client(&broker).with_meta(level, "debug"));
        assert_eq!(heard.len(), 3, "{kind}: {heard:?}");
        assert_eq!(heard[0]["params"]["level"], "warning");
        assert_eq!(log(&mut client(&broker).with_meta(level, "error")).len(), 1);
        assert_eq!(log(&mut client(&broker)).len(), 1, "{kind}");
    }
}

#[test]
fn a_restarted_broker_serves_the_same_client() {
    let broker = setup("dual").start();
    let first = client(&broker).pid();
    let broker = broker.restart(Signal::TERM);
    assert_ne!(client(&broker).pid(), first);
}
