//! Streams that break: what `Last-Event-ID` brings back, and what it does not.

use serde_json::{Value, json};

use super::{notify, with_progress};
use crate::support::{Broker, Events, Session};

#[track_caller]
fn resume(session: &Session, id: &str) -> Events {
    let request = session.request("GET").header("Last-Event-ID", id);
    request.stream(session.addr)
}

fn steps(messages: &[Value]) -> Vec<u64> {
    let step = |it: &Value| it["params"]["progress"].as_u64();
    messages.iter().filter_map(step).collect()
}

#[test]
fn a_broken_post_stream_is_resumed_exactly_where_it_broke() {
    let broker = Broker::start(&[]);
    let mut session = broker.session();
    let call = with_progress(&mut session, "count", json!({ "n": 30, "delay_ms": 10 }));
    let mut stream = session.post_stream(&call);
    let mut last = None;
    for step in 1..=5 {
        let event = stream.next_message().expect("progress");
        assert!(
            event
                .data
                .unwrap()
                .contains(&format!("\"progress\":{step},"))
        );
        last = event.id;
    }
    drop(stream);
    // Something for another stream, which must not come with it.
    let mut get = session.listen();
    notify(&mut session, "notifications/tools/list_changed");
    let rest = resume(&session, &last.expect("an id")).rest();
    assert_eq!(steps(&rest), (6..=30).collect::<Vec<_>>());
    let answer = rest.last().unwrap();
    assert_eq!(answer["id"], call["id"]);
    assert_eq!(rest.len(), 26, "{rest:?}");
    assert_eq!(get.message()["method"], "notifications/tools/list_changed");
}

#[test]
fn a_stream_that_broke_before_its_first_message_is_resumed_from_its_first_event() {
    let broker = Broker::start(&[]);
    let mut session = broker.session();
    let call = with_progress(&mut session, "count", json!({ "n": 3, "delay_ms": 50 }));
    let mut stream = session.post_stream(&call);
    let first = stream.next().and_then(|it| it.id).expect("an id");
    drop(stream);
    let rest = resume(&session, &first).rest();
    assert_eq!(steps(&rest), [1, 2, 3]);
    assert_eq!(rest.last().unwrap()["id"], call["id"]);
}

#[test]
fn an_ended_stream_can_still_be_read_again() {
    let broker = Broker::start(&[]);
    let mut session = broker.session();
    let call = with_progress(&mut session, "count", json!({ "n": 3, "delay_ms": 0 }));
    let mut stream = session.post_stream(&call);
    let second = {
        stream.next_message();
        stream.next_message().and_then(|it| it.id).expect("an id")
    };
    stream.rest();
    for _ in 0..2 {
        let rest = resume(&session, &second).rest();
        assert_eq!(steps(&rest), [3]);
        assert_eq!(rest.len(), 2, "{rest:?}");
    }
}

#[test]
fn an_answer_that_came_while_nobody_listened_is_there_afterwards() {
    let broker = Broker::start(&[]);
    let mut session = broker.session();
    let call = with_progress(&mut session, "count", json!({ "n": 2, "delay_ms": 30 }));
    let mut stream = session.post_stream(&call);
    let first = stream.next_message().and_then(|it| it.id).expect("an id");
    drop(stream);
    session.call("sleep", json!({ "ms": 100 }));
    let rest = resume(&session, &first).rest();
    assert_eq!(steps(&rest), [2]);
    assert_eq!(rest.last().unwrap()["id"], call["id"]);
}

#[test]
fn a_broken_get_stream_is_resumed() {
    let broker = Broker::start(&[]);
    let mut session = broker.session();
    let mut get = session.listen();
    let tell = |session: &mut Session, n: u32| {
        let arguments = json!({ "method": "notifications/x", "params": { "n": n } });
        session.call("notify", arguments);
    };
    (1..=3).for_each(|n| tell(&mut session, n));
    let first = get.next_message().expect("a message");
    assert!(first.data.unwrap().contains(r#""n":1"#));
    // The client has read no further when the connection breaks.
    drop(get);
    let mut get = resume(&session, &first.id.expect("an id"));
    tell(&mut session, 4);
    let seen: Vec<Value> = (0..3)
        .map(|_| get.message()["params"]["n"].clone())
        .collect();
    assert_eq!(seen, [2, 3, 4]);
}

#[test]
fn a_last_event_id_that_is_none_of_ours_opens_the_sessions_stream() {
    let broker = Broker::start(&[]);
    let mut session = broker.session();
    for id in ["nonsense", "-", "1-", "99999999999999999999-1", "0-99999"] {
        let mut get = resume(&session, id);
        notify(&mut session, "notifications/tools/list_changed");
        let message = get.message();
        assert_eq!(
            message["method"], "notifications/tools/list_changed",
            "{id}"
        );
    }
}

#[test]
fn a_stream_that_is_kept_no_more_is_refused_and_takes_nothing_over() {
    let broker = Broker::start(&[]);
    let mut session = broker.session();
    let mut get = session.listen();
    let request = session.request("GET").header("Last-Event-ID", "99-1");
    let response = request.send(broker.addr());
    assert_eq!((response.status, response.error_code()), (405, -32600));
    notify(&mut session, "notifications/tools/list_changed");
    assert_eq!(get.message()["method"], "notifications/tools/list_changed");
}

#[test]
fn nobody_resumes_the_stream_of_another_session() {
    let broker = Broker::start(&[]);
    let (mut one, other) = (broker.session(), broker.session());
    let call = with_progress(&mut one, "count", json!({ "n": 3, "delay_ms": 0 }));
    let mut stream = one.post_stream(&call);
    let first = stream.next_message().and_then(|it| it.id).expect("an id");
    stream.rest();
    let request = other.request("GET").header("Last-Event-ID", &first);
    let response = request.send(broker.addr());
    assert_eq!((response.status, response.error_code()), (405, -32600));
}
