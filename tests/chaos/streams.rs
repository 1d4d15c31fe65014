//! Streams that break: a client that leaves in the middle and comes back for the rest, calls side
//! by side, floods on the session's own stream, questions of the child, calls that are called off.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Done, Halt, PATIENCE};
use crate::ledger::Kind;
use crate::prng::Prng;
use crate::session::{Expected, Session, Work};
use crate::wire::{Broken, Response};

/// How long the broker waits for a child that owes no answer to a cancelled request, and more.
const CANCEL_PATIENCE: Duration = Duration::from_secs(5 + 30);
/// Messages of one flood; what a stream keeps for replay is more.
const FLOOD: u64 = 120;

/// A call with progress, whose stream breaks after an event and is resumed.
pub(crate) fn broken_call(session: &mut Session<'_, '_>, rng: &mut Prng) -> Done<()> {
    let work = Work {
        steps: rng.between(3, 12),
        step_ms: rng.between(5, 120),
        ..Work::default()
    };
    let breaks = rng.between(1, 3);
    let (connection, mut expected) = session.begin(&work, None)?;
    let mut response = session.head(connection, expected.began, 200, "a call")?;
    for _ in 0..breaks {
        if !read_some(session, &mut expected, &mut response, rng.between(1, 4))? {
            break;
        }
        leave(response, rng.chance(50));
        session
            .client
            .world
            .think(Duration::from_millis(rng.between(0, 150)));
        session.client.world.ledger.count("streams resumed");
        response = resume(session, &expected)?;
    }
    session.finish(&mut expected, &mut response)
}

/// Reads so many events with data; false when the answer was among them. At least one event
/// gives the stream an id to come back with.
fn read_some(
    session: &mut Session<'_, '_>,
    expected: &mut Expected,
    response: &mut Response,
    count: u64,
) -> Done<bool> {
    response.within(PATIENCE);
    for _ in 0..count {
        let event = response.event();
        match event.map_err(|why| session.broken(expected, &why))? {
            Some(event) => session.take(expected, &event)?,
            None => return Ok(false),
        }
        if expected.answered {
            return Ok(false);
        }
    }
    Ok(true)
}

fn leave(response: Response, by_reset: bool) {
    let connection = response.leave();
    match by_reset {
        true => connection.reset(),
        false => drop(connection),
    }
}

/// Comes back for the rest of a stream.
fn resume(session: &mut Session<'_, '_>, expected: &Expected) -> Done<Response> {
    let last = expected.last_event.clone().unwrap_or_default();
    let fields = format!("Last-Event-ID: {last}\r\nAccept: text/event-stream\r\n");
    listen_with(session, &fields).inspect_err(|_| {
        // The request is lost with its stream; that is accounted for once, here.
        if expected.id.is_some() && !expected.answered {
            session.lost_with_stream();
        }
    })
}

fn listen_with(session: &mut Session<'_, '_>, fields: &str) -> Done<Response> {
    let began = Instant::now();
    session.client.world.ledger.asked();
    let bytes = session.bytes("GET", fields, None);
    let connection = session.send(&bytes, began, "GET")?;
    let used = session.standing.used;
    let response = session.head(connection, began, 200, "GET")?;
    // A GET does not keep a session alive.
    session.standing.used = used;
    session.client.world.ledger.answered();
    Ok(response)
}

/// Several calls at once on connections of their own, whose answers come in any order.
pub(crate) fn side_by_side(session: &mut Session<'_, '_>, rng: &mut Prng) -> Done<()> {
    let mut calls = Vec::new();
    for _ in 0..rng.between(2, 4) {
        let work = Work {
            steps: rng.between(0, 2),
            step_ms: rng.between(0, 80),
            ..Work::default()
        };
        calls.push(session.begin(&work, None));
    }
    // All are read, also after one was lost: each is accounted for.
    let mut done = Ok(());
    while let Some(begun) = calls.pop() {
        let read = begun.and_then(|(connection, mut expected)| {
            let mut response = session.head(connection, expected.began, 200, "a call")?;
            session.finish(&mut expected, &mut response)
        });
        done = done.and(read);
    }
    done
}

/// A flood while the session's own stream is open, breaks, and is resumed: each message comes
/// once, on that stream or on the call's.
pub(crate) fn flood(session: &mut Session<'_, '_>, rng: &mut Prng) -> Done<()> {
    let before = session.flooded();
    let mut own = Expected::of_stream(session.client.world);
    let stream = listen_with(session, "Accept: text/event-stream\r\n")?;
    let work = Work {
        flood: rng.between(1, FLOOD),
        back: rng.index(200),
        ..Work::default()
    };
    let wanted = before + usize::try_from(work.flood).unwrap_or_default();
    let (connection, mut call) = session.begin(&work, None)?;
    let first = rng.between(1, 6).min(work.flood);
    let listening = listen_on(session, &mut own, stream, first, rng);
    let listening = listening.inspect_err(|_| session.lost_with_stream())?;
    let mut response = session.head(connection, call.began, 200, "a flood")?;
    session.finish(&mut call, &mut response)?;
    let Some(mut stream) = listening else {
        let what = "nothing of a flood came on the session's own stream, nor its end";
        let standing = Some(&session.standing);
        return Err(session.client.violation(Kind::Stream, standing, what));
    };
    while session.flooded() < wanted {
        let missing = wanted - session.flooded();
        match stream.event() {
            Ok(Some(event)) => session.take(&mut own, &event)?,
            _ if session
                .client
                .excuse(Some(&session.standing), call.began)
                .is_some() =>
            {
                return Err(Halt);
            }
            other => {
                let what = format!("{missing} messages of a flood are missing: {other:?}");
                let standing = Some(&session.standing);
                return Err(session.client.violation(Kind::Stream, standing, &what));
            }
        }
    }
    leave(stream, rng.chance(50));
    Ok(())
}

/// Reads so many events of the session's own stream, then mostly breaks it and comes back. `None`
/// if they do not come in time: then the answer to the call tells why, or is missing too.
fn listen_on(
    session: &mut Session<'_, '_>,
    own: &mut Expected,
    mut stream: Response,
    count: u64,
    rng: &mut Prng,
) -> Done<Option<Response>> {
    stream.within(PATIENCE);
    // The first event of all has no data; it says from where to resume.
    for _ in 0..count {
        match stream.event() {
            Ok(Some(event)) => session.take(own, &event)?,
            Ok(None) => break,
            Err(Broken::Late) => return Ok(None),
            Err(why) => return Err(session.broken(own, &why)),
        }
    }
    if rng.chance(40) {
        return Ok(Some(stream));
    }
    leave(stream, rng.chance(50));
    session.client.world.ledger.count("streams resumed");
    resume(session, own).map(Some)
}

/// The child asks for the client's roots in the middle of a call, and must get this client's.
pub(crate) fn question(session: &mut Session<'_, '_>) -> Done<()> {
    let (client, ledger) = (session.client, &session.client.world.ledger);
    let root = format!("file:///{}/{}/{}", client.no, client.round, client.name());
    let mut expected = Expected::of_stream(session.client.world);
    expected.what = "a question";
    let id = session.fresh_id();
    expected.id = Some(id);
    let params = json!({ "name": "ask", "arguments": { "kind": "roots" } });
    let body = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params });
    let bytes = session.bytes("POST", "", Some(&body.to_string()));
    ledger.asked();
    let connection = session.send(&bytes, expected.began, "a question")?;
    let mut response = session.head(connection, expected.began, 200, "a question")?;
    response.within(PATIENCE);
    let mut answer = Value::Null;
    while answer.is_null() {
        let event = match response.event() {
            Ok(Some(event)) => event,
            Ok(None) => {
                let why = Broken::Malformed("the stream ended without the answer");
                return Err(session.broken(&expected, &why));
            }
            Err(why) => return Err(session.broken(&expected, &why)),
        };
        let message: Value = serde_json::from_str(&event.data).unwrap_or_default();
        if message["id"] == id && message["method"].is_null() {
            answer = message;
            continue;
        }
        session.take(&mut expected, &event)?;
        for question in std::mem::take(&mut expected.questions) {
            let result = json!({ "roots": [{ "uri": root }] });
            let reply = json!({ "jsonrpc": "2.0", "id": question["id"], "result": result });
            if let Err(halt) = session.tell(&reply) {
                session.lost_with_stream();
                return Err(halt);
            }
        }
    }
    let standing = Some(&session.standing);
    if answer["error"].is_object() {
        return Err(client.error_answer(&session.standing, expected.began, &answer, "a question"));
    }
    let text = answer["result"]["content"][0]["text"].as_str();
    if !text.is_some_and(|text| text.contains(&root)) {
        let what = format!("the child was told other roots than {root}: {answer}");
        return Err(client.failed(Kind::Wrong, standing, &what));
    }
    ledger.answered();
    Ok(())
}

/// A call that is called off: its response ends, without an answer.
pub(crate) fn cancelled_call(session: &mut Session<'_, '_>) -> Done<()> {
    let work = Work {
        steps: 5_000,
        step_ms: 30,
        ..Work::default()
    };
    let (connection, mut expected) = session.begin(&work, None)?;
    let mut response = session.head(connection, expected.began, 200, "a cancelled call")?;
    // The broker has it for certain once the child has said something.
    read_some(session, &mut expected, &mut response, 2)?;
    let params = json!({ "requestId": expected.id, "reason": "changed its mind" });
    let method = "notifications/cancelled";
    let told = session.tell(&json!({ "jsonrpc": "2.0", "method": method, "params": params }));
    if let Err(halt) = told {
        session.lost_with_stream();
        return Err(halt);
    }
    response.within(CANCEL_PATIENCE);
    loop {
        match response.event() {
            Ok(None) => break,
            Ok(Some(event)) => session.take(&mut expected, &event)?,
            Err(why) => return Err(session.broken(&expected, &why)),
        }
    }
    match session
        .client
        .excuse(Some(&session.standing), expected.began)
    {
        _ if expected.answered => Ok(()),
        Some(why) => {
            session.client.world.ledger.interrupted(why);
            Err(Halt)
        }
        None => {
            session.client.world.ledger.answered();
            Ok(())
        }
    }
}
