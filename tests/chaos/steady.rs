//! Clients that behave: they use all of the protocol, leave nothing behind, and may expect an
//! answer to everything. Beside their work they try what must be refused.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Client, Done, PATIENCE, Request, start_of};
use crate::ledger::Kind;
use crate::plan::{CALM, Role};
use crate::prng::Prng;
use crate::session::{Session, Work, initialize};
use crate::streams;
use crate::world::{State, World};

/// One round: a session from its opening to its end.
pub(crate) fn round(client: &mut Client<'_>) -> Done<()> {
    let server = client.rng.pick(CALM[0], &CALM);
    let steps = client.rng.between(3, 9);
    let mut rng = client.rng.clone();
    let mut session = Session::open(client, server)?;
    let mut done = Ok(());
    for _ in 0..steps {
        if client.world.is_over() {
            break;
        }
        done = step(&mut session, rng.next());
        if done.is_err() && session.standing.revives && client.world.await_broker() {
            // It was cut short by a blow, but its session must have survived that.
            done = session.call(&Work::default());
        }
        if done.is_err() {
            break;
        }
        client
            .world
            .think(Duration::from_millis(rng.between(20, 1500)));
    }
    done = done.and_then(|()| session.close());
    done = done.and_then(|()| gone(&mut session));
    if done.is_err() {
        session.abandon();
    }
    done
}

fn step(session: &mut Session<'_, '_>, choice: u64) -> Done<()> {
    let mut rng = Prng::derive(choice, &[]);
    let mut work = Work::default();
    match choice % 100 {
        0..=24 => work.step_ms = rng.between(0, 40),
        25..=29 => work.step_ms = rng.between(1000, 2500),
        30..=39 => {
            work.steps = rng.between(1, 8);
            work.step_ms = rng.between(0, 60);
        }
        40..=49 => return streams::broken_call(session, &mut rng),
        50..=57 => return streams::side_by_side(session, &mut rng),
        58..=64 => return streams::flood(session, &mut rng),
        65..=71 => return streams::question(session),
        72..=73 => return streams::cancelled_call(session),
        74..=78 => work.back = rng.index(300_000),
        79..=83 => work.send = rng.index(200_000),
        84..=91 => return foreign(session, &mut rng),
        92..=95 => return refusals(session, &mut rng),
        _ => return session.plain("POST", Some(&ping()), 200, "ping"),
    }
    session.call(&work)
}

fn ping() -> serde_json::Value {
    json!({ "jsonrpc": "2.0", "id": "ping", "method": "ping" })
}

/// What has ended must be unknown.
fn gone(session: &mut Session<'_, '_>) -> Done<()> {
    let bytes = session.bytes("POST", "", Some(&ping().to_string()));
    expect(session, &bytes, 404, "a session that was deleted")
}

/// Own token, somebody else's session: 403 as long as it lives, 404 afterwards.
fn foreign(session: &mut Session<'_, '_>, rng: &mut Prng) -> Done<()> {
    let (client, world) = (session.client, session.client.world);
    let Some(other) = world.foreign(client.principal, rng) else {
        return Ok(());
    };
    let (began, before) = (Instant::now(), other.state());
    let body = ping().to_string();
    let method = rng.pick("POST", &["GET", "DELETE"]);
    let request = Request {
        method,
        server: other.server,
        token: Some(&session.standing.token),
        session: Some(&other.id),
        fields: match method {
            "GET" => "Accept: text/event-stream\r\n",
            _ => "",
        },
        body: (method == "POST").then_some(&*body),
    };
    world.ledger.asked();
    let what = "a session of somebody else";
    let mut response = client
        .exchange(&request, PATIENCE)
        .map_err(|why| client.broken(None, began, &why, what))?;
    let status = response.head.status;
    let same = other.generation == world.generation() && !world.struck_since(began);
    let revives = other.server == "revive" && world.features.revive;
    let owner_safe = World::role(other.principal) == Role::Steady;
    let right = match (before, other.state()) {
        (State::Ended, _) => status == 404,
        (State::Live, State::Live) if same && owner_safe => status == 403,
        _ => status == 403 || status == 404,
    };
    if right {
        world.ledger.count("foreign session ids tried");
        world.ledger.refused(status);
        return Ok(());
    }
    if revives || world.struck_since(began) || status == 503 {
        return Err(client.refused(None, began, &mut response, what));
    }
    let state = (before, other.state());
    let body = response.text().unwrap_or_default();
    let what = format!("{what} ({state:?}): expected 403 or 404, got {status} {body}");
    Err(client.failed(Kind::Status, Some(&session.standing), &what))
}

/// One of the things that must be refused, each with its own status.
fn refusals(session: &mut Session<'_, '_>, rng: &mut Prng) -> Done<()> {
    let ping = ping().to_string();
    let again = initialize().to_string();
    let (fields, body, status, what) = match rng.index(6) {
        0 => (
            "Accept: application/json\r\n",
            &*ping,
            406,
            "half an Accept",
        ),
        1 => ("Content-Type: text/plain\r\n", &*ping, 415, "a text"),
        2 => ("", "{\"jsonrpc\":", 400, "half a JSON"),
        3 => ("", "[]", 400, "a batch"),
        4 => ("", &*again, 400, "a second initialize"),
        _ => (
            "Origin: http://evil.example\r\n",
            &*ping,
            403,
            "a foreign page",
        ),
    };
    let bytes = session.bytes("POST", fields, Some(body));
    expect(session, &bytes, status, what)
}

/// Sends this, and holds the broker to a status.
fn expect(session: &mut Session<'_, '_>, bytes: &[u8], status: u16, what: &str) -> Done<()> {
    let began = Instant::now();
    let (client, standing) = (session.client, &session.standing);
    client.world.ledger.asked();
    let response = client.connect().and_then(|mut connection| {
        connection.send(bytes)?;
        connection.response(PATIENCE)
    });
    let mut response = response.map_err(|why| client.broken(Some(standing), began, &why, what))?;
    let got = response.head.status;
    if got == status {
        client.world.ledger.refused(status);
        return Ok(());
    }
    if client.excuse(Some(standing), began).is_some() {
        return Err(client.refused(Some(standing), began, &mut response, what));
    }
    let body = start_of(&response.text().unwrap_or_default());
    let what = format!("{what}: expected status {status}, got {got} {body}");
    Err(client.failed(Kind::Status, Some(standing), &what))
}
