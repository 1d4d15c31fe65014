//! Many clients, few descriptors.

use std::io::{ErrorKind, Read, Write};
use std::process::Command;

use serde_json::json;

use super::*;
use crate::support::TempDir;
use crate::support::broker::PROGRAM;
use crate::support::fake_mcp;

/// A broker that may open no more than so many descriptors.
#[track_caller]
fn with_descriptors(limit: usize, max_sessions: usize) -> Broker {
    let dir = TempDir::new();
    let config = json!({
        "mcpServers": { "fake": { "command": fake_mcp() } },
        "broker": { "max_sessions": max_sessions, "stop_grace": "300ms", "kill_grace": "300ms" },
    });
    let config = dir.write("config.json", &config.to_string());
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            &format!("ulimit -n {limit}; exec \"$0\" \"$@\""),
            PROGRAM,
        ])
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--no-auth",
            "--drain",
            "300ms",
        ])
        .arg("--state-dir")
        .arg(dir.path().join("state"))
        .arg("--config")
        .arg(config.expect("a configuration file"))
        .env_remove("RUST_LOG");
    Broker::launch(command, dir)
}

/// One request on a connection of its own; `None` if it was reset before it had an answer.
fn status(stream: &mut TcpStream) -> Option<u16> {
    let timeout = Some(crate::support::DEADLINE);
    stream.set_read_timeout(timeout).expect("a timeout");
    let mut answer = Vec::new();
    let mut bytes = [0; 1024];
    while !answer.windows(4).any(|four| four == b"\r\n\r\n") {
        match stream.read(&mut bytes) {
            Ok(0) => break,
            Ok(len) => answer.extend_from_slice(&bytes[..len]),
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::WouldBlock, "no answer");
                break;
            }
        }
    }
    str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()
}

/// One failed accept ends tiny_http's listener for good.
#[test]
fn h4_without_descriptors_it_refuses_and_lives() {
    let target = {
        let broker = with_descriptors(128, 2);
        let session = broker.session();
        Target::of(broker, session)
    };
    for round in 0..5 {
        let mut flood: Vec<TcpStream> = (0..300).map(|_| target.connect_raw()).collect();
        for stream in &mut flood {
            // One that was refused may be closed already.
            let _ = stream.write_all(get("\r\n").as_bytes());
        }
        let answers: Vec<_> = flood.iter_mut().map(status).collect();
        let count = |status| answers.iter().filter(|it| **it == status).count();
        assert!(count(Some(200)) > 0, "{round}: {answers:?}");
        assert_eq!(
            count(Some(200)) + count(Some(503)),
            300,
            "{round}: {answers:?}"
        );
        drop(flood);
        eventually("it serves again", || target.is_healthy());
    }
    target.assert_unharmed();
}

/// The same with clients that come and go faster than anybody can look after them.
#[test]
fn h4_descriptors_come_back_in_time() {
    let target = {
        let broker = with_descriptors(128, 2);
        let session = broker.session();
        Target::of(broker, session)
    };
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for no in 0..500 {
                    let mut stream = target.connect_raw();
                    let _ = stream.write_all(get("\r\n").as_bytes());
                    match no % 2 {
                        0 => reset(stream),
                        _ => assert!(matches!(status(&mut stream), Some(200 | 503))),
                    }
                }
            });
        }
    });
    eventually("it serves again", || target.is_healthy());
    target.assert_unharmed();
}

#[test]
fn a_broker_that_is_full_says_so() {
    let broker = Broker::setup().setting("max_connections", 20).start();
    let mut full: Vec<Connection> = Vec::new();
    eventually("20 connections are open", || {
        full.push(Connection::open(broker.addr()));
        let threads = process::threads(broker.pid());
        threads.iter().filter(|name| name.starts_with("c:")).count() == 20
    });
    for _ in 0..30 {
        let mut connection = Connection::open(broker.addr());
        connection.try_send_bytes(get("\r\n").as_bytes());
        let response = connection.response();
        assert_eq!(response.status, 503);
        assert_eq!(response.header("Retry-After"), Some("5"));
    }
    drop(full);
    eventually("it serves again", || {
        Request::new("GET", "/healthz").send(broker.addr()).status == 200
    });
    broker.assert_well();
}

#[test]
fn one_address_cannot_take_all_connections() {
    let broker = Broker::setup()
        .setting("max_connections_per_address", 5)
        .setting("trusted_proxies", json!([]))
        .start();
    let mut open: Vec<Connection> = (0..10).map(|_| Connection::open(broker.addr())).collect();
    let answers: Vec<u16> = open
        .iter_mut()
        .map(|connection| {
            connection.try_send_bytes(get("\r\n").as_bytes());
            connection.response().status
        })
        .collect();
    assert_eq!(answers, [[200; 5], [503; 5]].concat());
    drop(open);
    eventually("it serves again", || {
        Request::new("GET", "/healthz").send(broker.addr()).status == 200
    });
}
