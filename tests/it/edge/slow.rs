//! Clients that read slowly, or not at all: what they cost themselves, and that it costs nobody
//! else more than the memory that is set aside for them.

use std::io::Read;
use std::time::Instant;

use serde_json::Value;

use super::*;
use crate::streams::with_progress;
use crate::support::{DEADLINE, within};

/// What a client notices as prompt, on a machine under load. A client that waits for one which
/// does not read waits for half a minute.
const PROMPT: Duration = Duration::from_secs(3);
const EVENT_BYTES: u64 = 64 * 1024;
/// What all clients together may leave unread, and what a broker in the middle of it may need
/// besides.
const UNREAD_KIB: u64 = 64 * 1024;
const AT_WORK_KIB: u64 = 48 * 1024;

/// Calls again and again until `is_over`; none of the calls may take long.
#[track_caller]
fn prompt_until(sessions: &mut [&mut Session], mut is_over: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    let mut calls = 0;
    while !is_over() || calls < 10 {
        for session in &mut *sessions {
            let start = Instant::now();
            session.call_text("echo", json!({}));
            assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
            calls += 1;
        }
        assert!(Instant::now() < deadline, "it is never over");
    }
}

/// Sends a request, and reads nothing of what comes.
#[track_caller]
fn send_deaf(session: &Session, request: &Request) -> Connection {
    let mut connection = Connection::open(session.addr);
    connection.send(request);
    connection
}

/// A call that floods its own stream with so many events, with nobody who reads them.
#[track_caller]
fn flood(session: &mut Session, n: u64) -> (Value, Connection) {
    let call = with_progress(session, "flood", json!({ "n": n, "bytes": EVENT_BYTES }));
    let request = session.request("POST").body(call.to_string());
    let connection = send_deaf(session, &request);
    (call, connection)
}

fn is_cut(broker: &Broker) -> bool {
    broker.log().contains("cut: its client takes too little")
}

fn progress(messages: &[Value]) -> Vec<u64> {
    let step = |it: &Value| it["params"]["progress"].as_u64();
    messages.iter().filter_map(step).collect()
}

#[test]
fn who_reads_nothing_delays_nobody_and_can_still_read_it_all() {
    const EVENTS: u64 = 200;
    let mut target = Target::start();
    let mut other = target.broker.session();
    let session = &mut target.session;
    let mut get = send_deaf(session, &session.request("GET"));
    assert_eq!(get.head().0, 200);
    let (call, post) = flood(session, EVENTS);
    let arguments = json!({ "n": EVENTS, "bytes": EVENT_BYTES });
    let aside = session.call_aside("flood", arguments);
    prompt_until(&mut [session, &mut other], || aside.is_finished());
    assert_eq!(aside.join().expect("no panic").status, 200);
    let all = post.events().rest();
    assert_eq!(progress(&all), (1..=EVENTS).collect::<Vec<_>>());
    assert_eq!(all.last().expect("an answer")["id"], call["id"]);
    assert!(!is_cut(&target.broker));
    drop(get);
    assert_eq!(other.delete().status, 204);
    target.assert_unharmed();
}

#[test]
fn an_answer_that_is_read_slowly_delays_nothing_else() {
    const BYTES: usize = 15_000_000;
    let mut target = Target::start();
    let call = target
        .session
        .call_message("big", json!({ "bytes": BYTES }));
    let mut slow = target.connect_raw();
    SockRef::from(&slow)
        .set_recv_buffer_size(64 * 1024)
        .expect("SO_RCVBUF");
    let request = target.session.request("POST").body(call.to_string());
    let request = request.bytes(target.broker.addr());
    std::io::Write::write_all(&mut slow, &request).expect("the broker reads");
    let reader = std::thread::spawn(move || {
        let mut bytes = vec![0; 64 * 1024];
        let mut read = 0;
        while read < BYTES {
            read += slow.read(&mut bytes).expect("the rest of the answer");
            std::thread::sleep(Duration::from_millis(30));
        }
    });
    prompt_until(&mut [&mut target.session], || reader.is_finished());
    reader.join().expect("no panic");
    target.assert_unharmed();
}

#[test]
fn who_lags_too_far_behind_is_cut_and_leaves_nothing() {
    let mut target = Target::start();
    let (_, _deaf) = flood(&mut target.session, 2000);
    let broker = &target.broker;
    prompt_until(&mut [&mut target.session], || is_cut(broker));
    target.assert_unharmed();
}

#[test]
fn who_was_cut_resumes_with_what_is_kept_and_gets_nothing_twice() {
    const EVENTS: u64 = 1200;
    let mut target = Target::start();
    let (call, connection) = flood(&mut target.session, EVENTS);
    let mut stream = connection.events();
    let first = stream.next_message().expect("an event");
    assert!(first.data.is_some_and(|it| it.contains(r#""progress":1,"#)));
    within(DEADLINE, "it is cut", || is_cut(&target.broker));
    // What was under way can still be read.
    let mut last = first.id;
    let mut seen = 1;
    while let Some(event) = stream.next_if_whole() {
        last = event.id;
        seen += 1;
    }
    let request = target.session.request("GET");
    let request = request.header("Last-Event-ID", &last.expect("an id"));
    let rest = request.stream(target.broker.addr()).rest();
    let steps = progress(&rest);
    let next = *steps.first().expect("what was kept");
    assert!(next > seen, "{next} comes again after {seen}");
    assert_eq!(steps, (next..=EVENTS).collect::<Vec<_>>());
    assert_eq!(rest.last().expect("an answer")["id"], call["id"]);
    target.assert_unharmed();
}

#[test]
fn many_who_read_nothing_take_no_more_memory_than_is_set_aside() {
    let mut target = Target::start();
    let mut sessions: Vec<Session> = (0..6).map(|_| target.broker.session()).collect();
    let streams = sessions.iter_mut().flat_map(|session| {
        let one = flood(session, 400).1;
        [one, flood(session, 400).1]
    });
    let deaf: Vec<Connection> = streams.collect();
    let pid = target.broker.pid();
    let mut most = 0;
    prompt_until(&mut [&mut target.session], || {
        most = most.max(process::resident_kib(pid));
        is_cut(&target.broker)
    });
    let grown = most - target.resident_kib;
    assert!(grown < UNREAD_KIB + AT_WORK_KIB, "it grew by {grown} KiB");
    assert!(grown > UNREAD_KIB / 2, "it grew by {grown} KiB only");
    drop(deaf);
    for session in &sessions {
        assert_eq!(session.delete().status, 204);
    }
    target.assert_unharmed();
}
