//! Clients that go, and an edge that goes.

use super::*;

#[test]
fn a_client_that_goes_is_noticed_at_once() {
    let edge = Fixture::start();
    let check = |target: &str, leave: fn(Client), no: u64| {
        let client = edge.send(request("GET", target, "\r\n"));
        assert_eq!(edge.arrived(), target);
        assert!(edge.gone.recv_timeout(QUIET).is_err(), "gone too early");
        leave(client);
        assert_eq!(edge.gone.recv_timeout(DEADLINE), Ok(no), "{target}");
        let abandoned = edge.fake.abandoned.recv_timeout(DEADLINE).unwrap();
        assert!(abandoned.contains(target), "{abandoned}");
        edge.wait_until_empty();
    };
    // No timer of the edge is anywhere near DEADLINE: what is noticed is the going.
    check("/hold?fin", drop, 1);
    check("/hold?reset", Client::reset, 2);
    check("/stream?fin", drop, 3);
    check("/stream?reset", Client::reset, 4);
    let half_close = |mut client: Client| {
        client.0.shutdown(Shutdown::Write).unwrap();
        assert!(client.is_closed());
    };
    check("/hold?half", half_close, 5);
    assert!(edge.gone.try_recv().is_err(), "gone twice");
}

#[test]
fn a_pipelined_request_is_no_going() {
    let edge = Fixture::start();
    let mut client = edge.send(post("/gate", "\r\n"));
    assert_eq!(edge.arrived(), "/gate");
    client.send(post("/ok", "\r\n"));
    assert!(edge.gone.recv_timeout(QUIET).is_err());
    edge.fake.release.send(()).unwrap();
    assert_eq!(client.response().0, 200);
    assert_eq!(client.response().0, 200);
    assert!(edge.gone.try_recv().is_err());
}

#[test]
fn who_was_never_served_is_not_missed() {
    let edge = Fixture::start();
    drop(edge.connect());
    edge.connect().reset();
    drop(edge.send("GET / HT"));
    drop(edge.send(post("/ok", "Content-Length: 3\r\n\r\nx")));
    assert_eq!(status(&edge.send("bad\r\n\r\n").rest()), 400);
    let mut served = edge.send(post("/ok", "\r\n"));
    assert_eq!(served.response().0, 200);
    drop(served);
    assert_eq!(edge.gone.recv_timeout(DEADLINE), Ok(6));
    edge.wait_until_empty();
    assert!(edge.gone.try_recv().is_err());
}

#[test]
fn connections_leave_nothing_behind() {
    let edge = Fixture::start();
    for round in 0..5 {
        let mut clients: Vec<Client> = (0..40).map(|_| edge.connect()).collect();
        clients
            .iter_mut()
            .for_each(|client| client.send(post("/ok", "\r\n")));
        clients
            .iter_mut()
            .for_each(|client| assert_eq!(client.response().0, 200));
        for (at, client) in clients.into_iter().enumerate() {
            if at % 2 == 0 {
                drop(client)
            } else {
                client.reset()
            }
        }
        edge.wait_until_empty();
        assert_eq!(edge.gone.try_iter().count(), 40, "{round}");
    }
}

#[test]
fn the_edge_goes_and_takes_all_connections_with_it() {
    let mut edge = Fixture::start();
    let mut clients = vec![edge.connect()];
    clients.push(edge.send("GET / HT"));
    clients.push(edge.send(post("/ok", "Content-Length: 3\r\n\r\nx")));
    clients.push(edge.send(post("/ok", "Transfer-Encoding: chunked\r\n\r\n3\r\n")));
    clients.push(edge.send(request("GET", "/hold", "\r\n")));
    assert_eq!(edge.arrived(), "/hold");
    clients.push(edge.send(request("GET", "/gate", "\r\n")));
    assert_eq!(edge.arrived(), "/gate");
    clients.push(edge.send(request("GET", "/bytes?90000000", "\r\n")));
    clients.last_mut().unwrap().until("\r\n\r\n");
    clients.push(edge.send(request("GET", "/stream", "\r\n")));
    clients.last_mut().unwrap().until("one\r\n");
    let mut idle = edge.send(post("/ok", "\r\n"));
    assert_eq!(idle.response().0, 200);
    clients.push(idle);
    let mut lingering = edge.send("bad\r\n\r\n");
    assert_eq!(lingering.response().0, 400);
    clients.push(lingering);
    assert!(
        edge.stop().upgrade().is_none(),
        "something still holds the edge"
    );
    for (at, client) in clients.iter_mut().enumerate() {
        // What was under way may still be read, but it ends.
        let mut rest = Vec::new();
        let read = client.0.read_to_end(&mut rest);
        assert!(
            read.is_ok() || read.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset),
            "{at}"
        );
    }
    assert!(TcpStream::connect(edge.addr).is_err());
}

#[test]
fn the_edge_goes_while_tiny_http_is_silent() {
    let fake = Fake::start();
    let path = fake.path().with_extension("silent");
    let silent = UnixListener::bind(&path).unwrap();
    let mut edge = Fixture::before(fake, path.clone(), |_| {});
    let clients: Vec<Client> = (0..8).map(|_| edge.send(post("/ok", "\r\n"))).collect();
    drop(silent.accept().unwrap());
    let _proof = silent.accept().unwrap();
    let shared = edge.stop();
    std::fs::remove_file(path).unwrap();
    assert!(shared.upgrade().is_none());
    drop(clients);
}

/// Who was taken on before the end came gets an answer, also if there was no time to ask for it.
#[test]
fn a_request_that_waits_for_its_turn_is_refused_when_the_edge_goes() {
    let fake = Fake::start();
    let path = fake.path().with_extension("turn");
    let silent = UnixListener::bind(&path).unwrap();
    let mut edge = Fixture::before(fake, path.clone(), |_| {});
    let mut client = edge.connect();
    // So long that nobody would wait for its first request.
    client.0.set_read_timeout(Some(acceptor::FRESH)).unwrap();
    assert!(client.0.read(&mut [0]).is_err());
    client.0.set_read_timeout(Some(DEADLINE)).unwrap();
    client.send(post("/ok", "\r\n"));
    let _proof = silent.accept().unwrap();
    edge.edge.as_ref().unwrap().stop();
    assert_eq!(status(&client.rest()), 503);
    edge.stop();
    std::fs::remove_file(path).unwrap();
}

#[test]
fn the_edge_says_when_nobody_is_behind_it() {
    let fake = Fake::start();
    let path = fake.path().with_extension("closed");
    drop(UnixListener::bind(&path).unwrap());
    let edge = Fixture::before(fake, path.clone(), |_| {});
    let mut client = edge.send(post("/ok", "\r\n"));
    assert_eq!(status(&client.rest()), 503);
    assert_eq!(edge.failed.recv_timeout(DEADLINE), Ok(()));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn serves_on_a_unix_socket() {
    let fake = Fake::start();
    let path = fake.path().with_extension("outer");
    let options = Options {
        timings: Timings::default(),
        max_body: 1000,
        max_backlog: 1000,
        max_connections: 1000,
        max_connections_per_address: 1,
        trusted_proxies: Vec::new(),
        gone: Box::new(|_| {}),
        failed: Box::new(|| {}),
    };
    let listener = Listener::unix(&path, Door::Public).unwrap();
    assert!(listener.tcp_addr().is_none());
    assert_eq!(
        Listener::unix(&path, Door::Public).err().unwrap().kind(),
        ErrorKind::AddrInUse
    );
    let edge = Edge::start(options, vec![listener], fake.path().to_owned()).unwrap();
    for _ in 0..2 {
        let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let fields = "X-Forwarded-For: 1.2.3.4\r\nConnection: close\r\n\r\n";
        stream.write_all(post("/echo", fields).as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.contains("\r\nEdge-Peer: 1.2.3.4\r\n"), "{text}");
    }
    drop(edge);
    assert!(!path.exists());
}
