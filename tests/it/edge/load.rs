//! Many clients, few descriptors.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::process::Command;

use serde_json::json;
use socket2::{Domain, Socket, Type};

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
        .args(crate::support::user::as_ourselves())
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

/// A connection from one of many addresses.
#[track_caller]
fn connect_from(broker: &Broker, no: usize) -> TcpStream {
    let [.., high, low] = no.to_be_bytes();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let address = SocketAddr::from(([127, 7, high, low], 0));
    socket.bind(&address.into()).expect("a loopback address");
    socket.connect(&broker.addr().into()).expect("a connection");
    socket.into()
}

/// Where no address is to blame, the bound for all of them holds, and those who are in stay in.
#[test]
fn a_flood_from_many_addresses_is_bounded() {
    const MOST: usize = 100;
    let broker = Broker::setup()
        .setting("max_connections", MOST)
        .setting("max_connections_per_address", 5)
        .start();
    let session = broker.session();
    let mut stream = session.listen();
    let mut target = Target::of(broker, session);
    let mut inside = target.connect();
    let mut call = |target: &mut Target| {
        let call = target.session.call_message("echo", json!({}));
        let request = target.session.request("POST").body(call.to_string());
        inside.send(&request);
        assert_eq!(inside.response().answer()["id"], call["id"]);
    };
    call(&mut target);
    let kinds = [
        String::new(),
        "G".to_owned(),
        get("X: y\r\n"),
        post("Content-Length: 3000000\r\n\r\nbody"),
        get("\r\n"),
    ];
    let mut flood = Vec::new();
    for no in 0..1500 {
        let mut one = connect_from(&target.broker, no);
        // One that was refused may be closed already.
        let _ = one.write_all(kinds[no % kinds.len()].as_bytes());
        flood.push(one);
        if no % 100 == 0 {
            call(&mut target);
            let threads = process::threads(target.broker.pid());
            let connections = threads.iter().filter(|name| name.starts_with("c:"));
            assert!(connections.count() <= MOST);
        }
    }
    // Whoever comes now is told why.
    let mut late = connect_from(&target.broker, 1500);
    let _ = late.write_all(get("\r\n").as_bytes());
    assert_eq!(status(&mut late), Some(503));
    target.assert_small();
    call(&mut target);
    drop(flood);
    drop(late);
    eventually("it serves again", || target.is_healthy());
    let arguments = json!({ "method": "notifications/tools/list_changed" });
    target.session.call("notify", arguments);
    assert_eq!(
        stream.message()["method"],
        "notifications/tools/list_changed"
    );
    drop((stream, inside));
    target.assert_unharmed();
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
