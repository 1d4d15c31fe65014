//! All clients of a phase at once: each on a thread of its own, round after round. Here too the two
//! roles that are short to tell: who opens without end, and whose token comes and goes.

use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Client, Done, PATIENCE, Request};
use crate::ledger::Kind;
use crate::plan::{self, CALM, Role};
use crate::session::{Session, Work, initialize};
use crate::world::{TOKEN_LAG, World};
use crate::{steady, wild};

/// A client's thread does not recurse, and its buffers are on the heap.
const STACK_BYTES: usize = 512 * 1024;
/// After a round that was cut short by something that may last.
const PAUSE: Duration = Duration::from_millis(400);

/// Starts all clients, runs `meanwhile`, and returns when all have ended.
///
/// # Errors
/// What `meanwhile` says, or that a thread could not be started, or panicked.
pub(crate) fn run(
    world: &World,
    phase: u64,
    clients: usize,
    meanwhile: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    thread::scope(|scope| {
        let mut threads = Vec::new();
        let mut done = Ok(());
        for no in 0..clients {
            let builder = thread::Builder::new()
                .name(format!("client-{no}"))
                .stack_size(STACK_BYTES);
            match builder.spawn_scoped(scope, move || live(world, phase, no)) {
                Ok(thread) => threads.push(thread),
                Err(error) => done = Err(format!("no thread for client {no}: {error}")),
            }
        }
        let done = done.and_then(|()| meanwhile());
        if done.is_err() {
            world.end_at(Instant::now());
        }
        let panicked = threads.into_iter().filter_map(|it| it.join().err()).count();
        match panicked {
            0 => done,
            _ => done.and(Err(format!("{panicked} clients panicked"))),
        }
    })
}

/// The life of one client.
fn live(world: &World, phase: u64, no: usize) {
    let principal = plan::principal_of(no);
    // Not all at once.
    let mut first = world.rng(phase, no, 0);
    world.think(Duration::from_millis(first.between(0, 3000)));
    let mut round = 0;
    while world.await_broker() {
        round += 1;
        let mut client = Client {
            world,
            no,
            principal,
            round,
            rng: world.rng(phase, no, round),
        };
        let done = match World::role(principal) {
            Role::Steady => steady::round(&mut client),
            Role::Wild => wild::round(&mut client),
            Role::Greedy => greedy(&mut client),
            Role::Fickle => fickle(&mut client),
        };
        if done.is_err() {
            world.think(PAUSE);
        }
    }
}

/// Opens sessions without ending any; each must work when it is new.
fn greedy(client: &mut Client<'_>) -> Done<()> {
    let server = client.rng.pick(CALM[0], &CALM);
    let pause = Duration::from_millis(client.rng.between(50, 500));
    let mut session = Session::open(client, server)?;
    let called = session.call(&Work::default());
    session.forget();
    client.world.think(pause);
    called
}

/// Works while there is a token, and tries the one that was taken away.
fn fickle(client: &mut Client<'_>) -> Done<()> {
    let mut rng = client.rng.clone();
    if rng.chance(40) {
        revoked(client)?;
    }
    if client.world.tokens(client.principal).current.is_none() {
        client
            .world
            .think(Duration::from_millis(rng.between(100, 800)));
        return Ok(());
    }
    let server = rng.pick(CALM[0], &CALM);
    let mut session = Session::open(client, server)?;
    let mut done = Ok(());
    for _ in 0..rng.between(1, 6) {
        let steps = rng.between(0, 3);
        done = done.and_then(|()| {
            session.call(&Work {
                steps,
                step_ms: 20,
                ..Work::default()
            })
        });
        if done.is_err() || client.world.is_over() {
            break;
        }
        client
            .world
            .think(Duration::from_millis(rng.between(20, 900)));
    }
    done = done.and_then(|()| session.close());
    if done.is_err() {
        session.abandon();
    }
    done
}

/// A token that was revoked opens nothing any more.
fn revoked(client: &Client<'_>) -> Done<()> {
    let tokens = client.world.tokens(client.principal);
    let Some(old) = tokens.revoked.clone() else {
        return Ok(());
    };
    let (began, body) = (Instant::now(), initialize().to_string());
    let Some(since) = began.checked_sub(TOKEN_LAG) else {
        return Ok(());
    };
    if tokens.in_doubt(began) || client.world.struck_since(since) {
        return Ok(());
    }
    let request = Request {
        method: "POST",
        server: "plain",
        token: Some(&old),
        session: None,
        fields: "",
        body: Some(&body),
    };
    client.world.ledger.asked();
    let what = "a token that was revoked";
    let mut response = client
        .exchange(&request, PATIENCE)
        .map_err(|why| client.broken(None, began, &why, what))?;
    match response.head.status {
        401 => {
            client.world.ledger.count("revoked tokens tried");
            client.world.ledger.refused(401);
            Ok(())
        }
        503 => Err(client.refused(None, began, &mut response, what)),
        status => {
            let what = format!("{what}: expected 401, got {status}");
            Err(client.failed(Kind::Status, None, &what))
        }
    }
}
