//! Clients that misbehave, and make their children misbehave: they vanish, stall, send garbage,
//! crash and silence what serves them, leave processes behind. What they get must still be their
//! own; what they lose, nobody promised them.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Client, Done, Halt, PATIENCE, Request, start_of};
use crate::ledger::{Kind, Why};
use crate::plan::{CALM, FAILING, START_TIMEOUT};
use crate::prng::Prng;
use crate::session::{Session, Work, initialize};
use crate::streams;

/// Longer than the broker lets a head take, 10 s.
const HEAD_PATIENCE: Duration = Duration::from_secs(10 + 30);

/// One round: one bad deed.
pub(crate) fn round(client: &mut Client<'_>) -> Done<()> {
    let mut rng = client.rng.clone();
    let client = &*client;
    client
        .world
        .think(Duration::from_millis(rng.between(0, 800)));
    match rng.index(100) {
        0..=9 => return garbage_heads(client, &mut rng),
        10..=19 => return failing_start(client, &mut rng),
        20..=24 => return vanish_while_opening(client, &mut rng),
        _ => {}
    }
    let deed = rng.index(11);
    let server = match deed {
        0 => rng.pick("mortal", &["killed"]),
        1 => rng.pick("stubborn", &["stubborn", "stubborn", "screamer"]),
        _ => rng.pick(CALM[0], &CALM),
    };
    let mut session = Session::open(client, server)?;
    let done = match deed {
        0 => mortal(&mut session),
        1 => session.call(&Work::default()),
        2 | 3 => crash(&mut session, &mut rng),
        4 => silence(&mut session, &mut rng),
        5 | 6 => vanish(&mut session, &mut rng),
        7 => slow_upload(&mut session, &mut rng),
        8 => stop_reading(&mut session, &mut rng),
        9 => fork(&mut session, &mut rng),
        _ => streams::flood(&mut session, &mut rng),
    };
    // Some clean up, some leave it to the idle timeout.
    if rng.chance(50) {
        session.abandon();
    }
    session.forget();
    done
}

/// Garbage instead of a request: an answer with an error, or the end; never silence.
fn garbage_heads(client: &Client<'_>, rng: &mut Prng) -> Done<()> {
    let random: Vec<u8> = (0..rng.between(1, 3000))
        .map(|_| rng.next().to_le_bytes()[0])
        .collect();
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(20_000));
    let token = client.token();
    let smuggled = format!(
        "POST /mcp/plain HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        client.world.address
    );
    let (bytes, may_wait): (&[u8], bool) = match rng.index(7) {
        0 => (&random, true),
        1 => (long.as_bytes(), false),
        2 => (smuggled.as_bytes(), false),
        3 => (b"GET / HTTP/2.0\r\n\r\n", false),
        4 => (b"POST /mcp/plain HTTP/1.1\r\n\r\n", false),
        5 => (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
            false,
        ),
        _ => (b"GET /mcp/plain HT", true),
    };
    let began = Instant::now();
    let ledger = &client.world.ledger;
    ledger.asked();
    let connected = client.connect();
    let mut connection = connected.map_err(|why| client.broken(None, began, &why, "garbage"))?;
    if connection.send(bytes).is_err() || (may_wait && rng.chance(80)) {
        ledger.interrupted(Why::Left);
        return Ok(());
    }
    match connection.response(HEAD_PATIENCE) {
        Ok(response) if response.head.status >= 400 => ledger.refused(response.head.status),
        Ok(response) => {
            let status = response.head.status;
            let what = format!("garbage: expected a refusal, got status {status}");
            return Err(client.failed(Kind::Status, None, &what));
        }
        Err(why @ crate::wire::Broken::Late) => {
            return Err(client.broken(None, began, &why, "garbage"));
        }
        // Bytes that nobody read make an end a reset.
        Err(_) => ledger.interrupted(Why::Left),
    }
    Ok(())
}

/// A server that never answers `initialize`: 500, in time, and no session.
fn failing_start(client: &Client<'_>, rng: &mut Prng) -> Done<()> {
    let server = rng.pick(FAILING[0], &FAILING);
    let (body, token, began) = (initialize().to_string(), client.token(), Instant::now());
    let request = Request {
        method: "POST",
        server,
        token: Some(&token),
        session: None,
        fields: "",
        body: Some(&body),
    };
    client.world.ledger.asked();
    let place = client.world.take_place(client.principal);
    let what = "initialize of a server that fails";
    let mut response = client
        .exchange(&request, START_TIMEOUT + PATIENCE)
        .map_err(|why| client.broken(None, began, &why, what))?;
    place.ended();
    if response.head.status != 500 {
        // A success is none here.
        return Err(match response.head.status {
            200 => client.failed(Kind::Status, None, "a server that fails has a session"),
            _ => client.refused(None, began, &mut response, what),
        });
    }
    let text = response.text();
    let text = text.map_err(|why| client.broken(None, began, &why, what))?;
    if response.head.session.is_none() && text.contains(server) {
        client.world.ledger.refused(500);
        return Ok(());
    }
    let what = format!(
        "{what}: expected the server's name, got {}",
        start_of(&text)
    );
    Err(client.failed(Kind::Status, None, &what))
}

/// The client goes before it knows of its session.
fn vanish_while_opening(client: &Client<'_>, rng: &mut Prng) -> Done<()> {
    let server = rng.pick("slow", &["mute", "plain", "stubborn"]);
    let (body, token, began) = (initialize().to_string(), client.token(), Instant::now());
    let request = Request {
        method: "POST",
        server,
        token: Some(&token),
        session: None,
        fields: "",
        body: Some(&body),
    };
    client.world.ledger.asked();
    client.world.take_place(client.principal);
    let sent = client.connect().and_then(|mut connection| {
        connection.send(&request.bytes(client.world))?;
        Ok(connection)
    });
    let connection = sent.map_err(|why| client.broken(None, began, &why, "initialize"))?;
    client
        .world
        .think(Duration::from_millis(rng.between(0, 300)));
    match rng.chance(50) {
        true => connection.reset(),
        false => drop(connection),
    }
    client.world.ledger.interrupted(Why::Left);
    Ok(())
}

/// A child that dies by itself after some answers.
fn mortal(session: &mut Session<'_, '_>) -> Done<()> {
    for call in 0..6 {
        if call == 1 {
            // From here on it may be any call.
            session.doom();
        }
        session.call(&Work::default())?;
    }
    let what = "a child that dies after a few answers is still there";
    let standing = Some(&session.standing);
    Err(session.client.violation(Kind::Status, standing, what))
}

/// The child is made to die in the middle of a call: the client is told, and the session is gone.
fn crash(session: &mut Session<'_, '_>, rng: &mut Prng) -> Done<()> {
    session.call(&Work::default())?;
    let work = Work {
        steps: rng.between(0, 3),
        step_ms: rng.between(0, 50),
        die: Some(rng.pick("exit", &["abort", "signal"])),
        ..Work::default()
    };
    session.doom();
    let call = session.call(&work);
    if call.is_ok() {
        let what = "a child that was made to die has answered";
        let standing = Some(&session.standing);
        return Err(session.client.violation(Kind::Status, standing, what));
    }
    // What the next one gets depends on `revive`; that it gets something does not.
    session.call(&Work::default())
}

/// The child stops answering, or reading; the client waits a little and goes.
fn silence(session: &mut Session<'_, '_>, rng: &mut Prng) -> Done<()> {
    session.doom();
    let is_deaf = rng.chance(50);
    if is_deaf {
        let id = session.fresh_id();
        let params = json!({ "name": "deaf", "arguments": {} });
        let body = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params });
        session.plain("POST", Some(&body), 200, "the last words of a deaf child")?;
    }
    let work = Work {
        die: Some("never"),
        send: rng.index(100_000),
        ..Work::default()
    };
    let (connection, _) = session.begin(&work, None)?;
    session
        .client
        .world
        .think(Duration::from_millis(rng.between(100, 2500)));
    match rng.chance(50) {
        true => connection.reset(),
        false => drop(connection),
    }
    session.left();
    if is_deaf {
        // What fills the pipe of a child that reads nothing holds the session for a minute, which
        // is longer than a short run can wait for.
        session.abandon();
    }
    Ok(())
}

/// The client goes in the middle of a call, in one of four ways.
fn vanish(session: &mut Session<'_, '_>, rng: &mut Prng) -> Done<()> {
    let work = Work {
        steps: rng.between(0, 20),
        step_ms: rng.between(1, 200),
        back: rng.index(200_000),
        ..Work::default()
    };
    let (connection, _) = session.begin(&work, None)?;
    let pause = |rng: &mut Prng| {
        let time = Duration::from_millis(rng.between(0, 400));
        session.client.world.think(time);
    };
    pause(rng);
    match rng.index(4) {
        0 => connection.reset(),
        1 => drop(connection),
        2 => {
            connection.half_close();
            pause(rng);
        }
        // Silent for long, as if the machine had been switched off.
        _ => session
            .client
            .world
            .think(Duration::from_millis(rng.between(1000, 6000))),
    }
    session.left();
    Ok(())
}

/// A body that comes in drops; some give up.
fn slow_upload(session: &mut Session<'_, '_>, rng: &mut Prng) -> Done<()> {
    let gives_up = rng.chance(40);
    let pause = Duration::from_millis(rng.between(20, 250));
    let padding = "x".repeat(rng.index(30_000));
    let body =
        json!({ "jsonrpc": "2.0", "id": "slow", "method": "ping", "params": { "x": padding } });
    let (began, standing) = (Instant::now(), &session.standing);
    let bytes = session.bytes("POST", "", Some(&body.to_string()));
    let (client, ledger) = (session.client, &session.client.world.ledger);
    ledger.asked();
    let what = "a slow upload";
    let lost = |why| client.broken(Some(standing), began, &why, what);
    let mut connection = client.connect().map_err(lost)?;
    let pieces = bytes.chunks(bytes.len() / 10 + 1);
    let last = pieces.len();
    for (at, piece) in pieces.enumerate() {
        if gives_up && at + 2 > last {
            ledger.interrupted(Why::Left);
            return Ok(());
        }
        connection.send(piece).map_err(lost)?;
        client.world.think(pause);
    }
    let mut response = connection.response(PATIENCE).map_err(lost)?;
    if response.head.status != 200 {
        return Err(client.refused(Some(standing), began, &mut response, what));
    }
    let text = response.text().map_err(lost)?;
    if !text.contains("\"slow\"") {
        return Err(client.failed(Kind::Wrong, Some(standing), &format!("{what}: got {text}")));
    }
    ledger.answered();
    Ok(())
}

/// A flood that nobody reads.
fn stop_reading(session: &mut Session<'_, '_>, rng: &mut Prng) -> Done<()> {
    let work = Work {
        flood: rng.between(100, 400),
        back: rng.index(12_000),
        ..Work::default()
    };
    let (connection, _) = session.begin(&work, None)?;
    session
        .client
        .world
        .think(Duration::from_millis(rng.between(500, 5000)));
    match rng.chance(50) {
        true => connection.reset(),
        false => drop(connection),
    }
    session.left();
    Ok(())
}

/// The child starts a process that lives on, in its group or out of it.
fn fork(session: &mut Session<'_, '_>, rng: &mut Prng) -> Done<()> {
    let leaves = session.client.world.features.escape && rng.chance(50);
    let arguments = json!({ "ignore_term": rng.chance(50), "setsid": leaves });
    let params = json!({ "name": "spawn_grandchild", "arguments": arguments });
    let id = session.fresh_id();
    let body = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params });
    session.plain("POST", Some(&body), 200, "a call that forks")?;
    if rng.chance(30) {
        session.doom();
        let work = Work {
            die: Some("signal"),
            ..Work::default()
        };
        return match session.call(&work) {
            Ok(()) => Err(Halt),
            Err(_) => Ok(()),
        };
    }
    session.call(&Work::default())
}
