//! Several listeners: what comes through which, and those that another broker will have next.

use std::net::TcpListener;
use std::os::fd::OwnedFd;

use super::*;

/// An edge over these listeners.
fn edge(fake: &Fake, max_connections: usize, listeners: Vec<Listener>) -> Edge {
    let options = Options {
        timings: Timings::default(),
        max_body: 1000,
        max_backlog: 1000,
        max_connections,
        max_connections_per_address: 2,
        trusted_proxies: Vec::new(),
        gone: Box::new(|_| {}),
        failed: Box::new(|| {}),
    };
    Edge::start(options, listeners, fake.path().to_owned()).unwrap()
}

fn listener(door: Door) -> (Listener, SocketAddr) {
    let listener = Listener::tcp((LOCALHOST, 0).into(), door).unwrap();
    let addr = listener.tcp_addr().unwrap();
    (listener, addr)
}

fn connect(addr: SocketAddr) -> Client {
    Client::new(TcpStream::connect(addr).unwrap())
}

/// Has a request answered; gives its head as tiny_http got it.
fn echo(client: &mut Client, fields: &str) -> String {
    client.send(post("/echo", &format!("{fields}\r\n")));
    client.response().1
}

#[test]
fn a_request_tells_its_door_and_nobody_can_lie_about_it() {
    let fake = Fake::start();
    let (public, public_addr) = listener(Door::Public);
    let (admin, admin_addr) = listener(Door::Admin);
    let _edge = edge(&fake, 10, vec![public, admin]);
    let forged = "Edge-Door: admin\r\nedge-door: public\r\n";
    let head = echo(&mut connect(public_addr), forged);
    assert!(!head.to_ascii_lowercase().contains("edge-door"), "{head}");
    let head = echo(&mut connect(admin_addr), forged);
    assert_eq!(head.matches("Edge-Door: admin\r\n").count(), 1, "{head}");
    assert!(!head.contains("edge-door"), "{head}");
}

#[test]
fn each_door_has_room_of_its_own() {
    let fake = Fake::start();
    let (public, public_addr) = listener(Door::Public);
    let (admin, admin_addr) = listener(Door::Admin);
    let _edge = edge(&fake, 1, vec![public, admin]);
    let enter = |addr| {
        let mut client = connect(addr);
        client.send(post("/ok", "\r\n"));
        (client.response().0, client)
    };
    let (status, _client) = enter(public_addr);
    assert_eq!(status, 200);
    assert_eq!(enter(public_addr).0, 503);
    // More than one address may have, too.
    let operators: Vec<_> = (0..ADMIN_CONNECTIONS_MAX)
        .map(|_| enter(admin_addr))
        .collect();
    assert!(operators.iter().all(|(status, _)| *status == 200));
    assert_eq!(enter(admin_addr).0, 503);
}

#[test]
fn passed_sockets_are_left_to_the_next_edge() {
    let fake = Fake::start();
    let held = TcpListener::bind((LOCALHOST, 0)).unwrap();
    let addr = held.local_addr().unwrap();
    let passed = || {
        let copy = OwnedFd::from(held.try_clone().unwrap());
        Listener::passed(copy, Door::Public).unwrap()
    };
    let (own, own_addr) = listener(Door::Public);
    let first = edge(&fake, 10, vec![passed(), own]);
    assert!(echo(&mut connect(addr), "").contains("Edge-Connection: 1\r\n"));
    first.leave_passed();
    assert!(first.pulse().is_felt(DEADLINE), "it has seen that by now");
    let mut late = connect(addr);
    late.send(post("/ok", "\r\n"));
    assert!(late.is_quiet());
    // Its own socket is as before.
    assert!(echo(&mut connect(own_addr), "").contains("Edge-Connection: "));
    drop(first);
    assert!(late.is_quiet());
    let _second = edge(&fake, 10, vec![passed()]);
    assert_eq!(late.response(), (200, "ok".to_owned()));
}

#[test]
fn a_client_that_has_just_come_is_told_that_it_is_too_late() {
    let fake = Fake::start();
    let (public, addr) = listener(Door::Public);
    let edge = edge(&fake, 10, vec![public]);
    let mut client = connect(addr);
    assert!(edge.pulse().is_felt(DEADLINE));
    edge.stop();
    client.send(post("/ok", "\r\n"));
    let text = client.rest();
    assert_eq!(status(&text), 503, "{text}");
    assert!(text.contains("\r\nRetry-After: "), "{text}");
}

#[test]
fn no_pulse_is_felt_when_nobody_answers_behind_the_edge() {
    let path = std::env::temp_dir().join(format!("mcp-broker-mute-{}", std::process::id()));
    let mute = UnixListener::bind(&path).unwrap();
    let mut fixture = Fixture::before(Fake::start(), path.clone(), |_| {});
    let pulse = fixture.edge.as_ref().unwrap().pulse();
    assert!(!pulse.is_felt(DEADLINE));
    fixture.edge.as_ref().unwrap().stop();
    assert!(pulse.is_felt(SHORT), "stopping is no illness");
    drop(pulse);
    fixture.stop();
    drop(mute);
    std::fs::remove_file(path).unwrap();
}
