//! Bounds in time and number.

use super::*;

#[test]
fn a_drip_fed_head_is_cut() {
    let edge = Fixture::with_timings(short(|it| it.head = SHORT));
    let start = Instant::now();
    let mut client = edge.send("GET /");
    while client.is_quiet() {
        client.send("a");
        assert!(start.elapsed() < DEADLINE, "never cut");
    }
    assert!(start.elapsed() >= SHORT);
    // The first byte has been looked at already.
    assert!(client.rest().starts_with("TTP/1.1 408 "));
}

#[test]
fn half_a_head_is_answered_with_408() {
    let edge = Fixture::with_timings(short(|it| it.head = SHORT));
    let start = Instant::now();
    let mut clients =
        ["G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\r"].map(|head| edge.send(head));
    for client in &mut clients {
        assert_eq!(status(&client.rest()), 408);
    }
    assert!(start.elapsed() >= SHORT);
    // Also as the second request of a connection.
    let mut client = edge.send(post("/ok", "\r\n") + "GET / H");
    assert_eq!(client.response().0, 200);
    assert_eq!(status(&client.rest()), 408);
}

#[test]
fn a_silent_connection_is_closed_quietly() {
    let edge = Fixture::with_timings(short(|it| it.head = SHORT));
    let start = Instant::now();
    assert_eq!(edge.connect().rest(), "");
    assert!(start.elapsed() >= SHORT);
    edge.wait_until_empty();
}

#[test]
fn an_idle_connection_is_closed_quietly() {
    let edge = Fixture::with_timings(short(|it| it.idle = SHORT));
    let mut client = edge.send(post("/ok", "\r\n"));
    assert_eq!(client.response().0, 200);
    let start = Instant::now();
    assert_eq!(client.rest(), "");
    assert!(start.elapsed() >= SHORT);
    assert_eq!(edge.gone.recv_timeout(DEADLINE), Ok(1));
    edge.wait_until_empty();
}

#[test]
fn a_connection_is_served_after_a_rest() {
    let edge = Fixture::start();
    let mut client = edge.send(post("/ok", "\r\n"));
    assert_eq!(client.response().0, 200);
    let start = Instant::now();
    // By then it has given its buffer and its way to tiny_http back.
    while start.elapsed() < Duration::from_millis(1200) {
        assert!(client.is_quiet());
    }
    client.send(post("/ok", "\r\n"));
    assert_eq!(client.response().0, 200);
}

#[test]
fn a_stalled_upload_is_cut() {
    let edge = Fixture::with_timings(short(|it| it.head = SHORT));
    let start = Instant::now();
    let mut clients = [
        edge.send(post("/ok", "Content-Length: 9\r\n\r\n")),
        edge.send(post("/ok", "Content-Length: 9\r\n\r\nhalf")),
        edge.send(post("/ok", "Transfer-Encoding: chunked\r\n\r\n")),
        edge.send(post(
            "/ok",
            "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        )),
        edge.send(post(
            "/ok",
            "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
        )),
    ];
    for client in &mut clients {
        assert_eq!(status(&client.rest()), 408);
    }
    assert!(start.elapsed() >= SHORT);
    assert!(edge.fake.arrived.try_recv().is_err());
}

#[test]
fn a_body_is_bounded_whichever_way_it_is_framed() {
    let edge = Fixture::start();
    let check = |len: usize, expected: u16| {
        let body = "x".repeat(len);
        let sized = format!("Content-Length: {len}\r\n\r\n{body}");
        let chunked = format!("Transfer-Encoding: chunked\r\n\r\n{len:x}\r\n{body}\r\n0\r\n\r\n");
        let pieces = "1\r\nx\r\n".repeat(len);
        let pieces = format!("Transfer-Encoding: chunked\r\n\r\n{pieces}0\r\n\r\n");
        for rest in [sized, chunked, pieces] {
            assert_eq!(
                edge.send(post("/ok", &rest)).response().0,
                expected,
                "{len}"
            );
        }
    };
    check(1000, 200);
    check(1001, 413);
}

#[test]
fn a_client_that_reads_nothing_is_cut() {
    let edge = Fixture::with_timings(short(|it| it.stall = SHORT));
    let start = Instant::now();
    let mut client = edge.send(post("/bytes?90000000", "\r\n"));
    client.until("\r\n\r\n");
    assert_eq!(edge.gone.recv_timeout(DEADLINE), Ok(1));
    assert!(start.elapsed() >= SHORT);
    let abandoned = edge.fake.abandoned.recv_timeout(DEADLINE).unwrap();
    assert!(abandoned.contains("/bytes"));
    edge.wait_until_empty();
}

#[test]
fn a_client_that_reads_slowly_is_not_cut() {
    const LEN: usize = 6_000_000;
    let edge = Fixture::with_timings(short(|it| it.stall = SHORT));
    let mut client = edge.connect();
    SockRef::from(&client.0)
        .set_recv_buffer_size(16 * 1024)
        .unwrap();
    client.send(post(&format!("/bytes?{LEN}"), "\r\n"));
    client.until("\r\n\r\n");
    let start = Instant::now();
    for _ in 0..LEN / 100_000 {
        client.take(100_000);
        let pause = edge.gone.recv_timeout(Duration::from_millis(15));
        assert!(pause.is_err(), "cut in {:?}", start.elapsed());
    }
    assert!(start.elapsed() > SHORT * 2);
}

#[test]
fn nobody_behind_the_edge_waits_for_a_client() {
    const LEN: usize = 20_000_000;
    let edge = Fixture::start();
    let mut clients: Vec<Client> = (0..2)
        .map(|_| edge.send(post(&format!("/bytes?{LEN}"), "\r\n")))
        .collect();
    for _ in &clients {
        assert_eq!(edge.fake.answered.recv_timeout(DEADLINE).unwrap(), "/bytes");
    }
    for client in &mut clients {
        assert_eq!(client.response().1.len(), LEN);
        client.send(post("/ok", "\r\n"));
        assert_eq!(client.response().0, 200);
    }
    assert_eq!(edge.memory_taken(), 0);
}

#[test]
fn a_client_that_lags_too_far_behind_is_cut() {
    let edge = Fixture::with(|options| {
        options.max_backlog = 4_000_000;
        options.timings.catch_up = SHORT;
    });
    let start = Instant::now();
    let mut lagging = edge.send(post("/bytes?90000000", "\r\n"));
    lagging.until("\r\n\r\n");
    let mut other = edge.send(post("/ok", "\r\n"));
    assert_eq!(other.response().0, 200);
    assert_eq!(edge.gone.recv_timeout(DEADLINE), Ok(1));
    assert!(start.elapsed() >= SHORT);
    assert!(start.elapsed() < Timings::default().stall);
    assert!(edge.fake.abandoned.recv_timeout(DEADLINE).is_ok());
    other.send(post("/ok", "\r\n"));
    assert_eq!(other.response().0, 200);
    drop(other);
    edge.wait_until_empty();
    assert_eq!(edge.memory_taken(), 0);
}

#[test]
fn a_client_that_keeps_up_is_served_without_any_memory() {
    const LEN: usize = 50_000_000;
    let edge = Fixture::with(|options| options.max_backlog = 0);
    let mut client = edge.send(post(&format!("/bytes?{LEN}"), "\r\n"));
    assert_eq!(client.response().1.len(), LEN);
}

#[test]
fn what_there_is_of_a_broken_response_is_passed_on() {
    const LEN: usize = 10_000_000;
    let edge = Fixture::start();
    let mut client = edge.send(post(&format!("/most?{LEN}"), "\r\n"));
    assert!(edge.fake.abandoned.recv_timeout(DEADLINE).is_ok());
    client.until("\r\n\r\n");
    assert_eq!(client.rest().len(), LEN);
}

#[test]
fn a_stream_may_be_silent_for_long() {
    let edge = Fixture::with_timings(Timings {
        head: QUIET,
        idle: QUIET,
        stall: QUIET,
        catch_up: QUIET,
    });
    let mut clients = [
        edge.send(request("GET", "/stream", "\r\n")),
        edge.send(request("GET", "/gate", "\r\n")),
    ];
    clients[0].until("one\r\n");
    let start = Instant::now();
    while start.elapsed() < QUIET * 6 {
        assert!(clients.iter_mut().all(Client::is_quiet));
    }
    edge.fake.release.send(()).unwrap();
    assert_eq!(clients[1].response().0, 200);
}

#[test]
fn too_many_connections_are_refused_not_left_waiting() {
    let edge = Fixture::with(|options| options.max_connections = 3);
    let mut clients: Vec<Client> = (0..3).map(|_| edge.connect()).collect();
    for _ in 0..5 {
        let answer = edge.connect().rest();
        assert_eq!(status(&answer), 503);
        assert!(answer.contains("\r\nRetry-After: 5\r\n"), "{answer}");
    }
    // Also one that begins to speak when it has been refused, and in two pieces.
    let mut late = edge.connect();
    assert_eq!(late.0.peek(&mut [0]).unwrap(), 1);
    late.send(post("/ok", "Content-Length: 4\r\n\r\n"));
    late.send("body");
    assert_eq!(status(&late.rest()), 503);
    for client in &mut clients {
        client.send(post("/ok", "\r\n"));
        assert_eq!(client.response().0, 200);
    }
    // A place that becomes free can be taken.
    drop(clients.pop());
    assert!(edge.gone.recv_timeout(DEADLINE).is_ok());
    let deadline = Instant::now() + DEADLINE;
    while edge.send(post("/ok", "\r\n")).response().0 != 200 {
        assert!(Instant::now() < deadline, "no place becomes free");
    }
}

#[test]
fn an_address_has_its_share_of_connections() {
    let with = |trusted_proxies: Vec<IpAddr>| {
        Fixture::with(|options| {
            options.max_connections_per_address = 2;
            options.trusted_proxies = trusted_proxies;
        })
    };
    let from = |edge: &Fixture, address: [u8; 4]| {
        let socket = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((address, 0)).into()).unwrap();
        socket.connect(&edge.addr.into()).unwrap();
        let mut client = Client::new(socket.into());
        client.send(post("/ok", "\r\n"));
        let status = client.response().0;
        (client, status)
    };
    let edge = with(Vec::new());
    let mut clients: Vec<_> = (0..4).map(|_| from(&edge, [127, 0, 0, 1])).collect();
    assert_eq!(
        clients.iter().map(|it| it.1).collect::<Vec<_>>(),
        [200, 200, 503, 503]
    );
    assert_eq!(from(&edge, [127, 0, 0, 2]).1, 200);
    clients.clear();
    edge.wait_until_empty();
    let deadline = Instant::now() + DEADLINE;
    while from(&edge, [127, 0, 0, 1]).1 != 200 {
        assert!(Instant::now() < deadline, "no place becomes free");
    }
    // A proxy stands for many.
    let edge = with(vec![LOCALHOST]);
    let clients: Vec<_> = (0..4).map(|_| from(&edge, [127, 0, 0, 1])).collect();
    assert!(clients.iter().all(|it| it.1 == 200));
}

#[test]
fn connections_that_come_together_are_all_served() {
    let edge = Fixture::start();
    let mut clients: Vec<Client> = (0..128)
        .map(|_| edge.send(request("GET", "/ok", "\r\n")))
        .collect();
    for client in &mut clients {
        assert_eq!(client.response(), (200, "ok".to_owned()));
    }
}
