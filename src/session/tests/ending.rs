//! How sessions end: alone, all together, and while other things happen to them.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::*;
use crate::session::reaper::Reaper;
use crate::thread;

/// How often a race is run that one side wins almost always.
pub(super) const ROUNDS: usize = 2000;

#[test]
fn a_session_without_a_request_for_long_is_ended() {
    let world = World::new(Options {
        idle_timeout: Some(IDLE),
        ..UNLIMITED
    });
    let (idle, used) = (world.open("ann", 0).unwrap(), world.open("ann", 0).unwrap());
    let all = [("idle", &idle), ("used", &used)];
    world.find(used.id(), "ann", 1).unwrap();
    world.registry.tick(world.at(1799));
    assert_eq!(world.left(&all), ["idle", "used"]);
    world.registry.tick(world.at(1800));
    assert_eq!(world.left(&all), ["used"]);
    world.registry.tick(world.at(1801));
    assert_eq!(world.left(&all), [""; 0]);
    world.stop();
}

#[test]
fn a_session_that_waits_for_an_answer_is_not_idle() {
    let world = World::new(Options {
        idle_timeout: Some(IDLE),
        ..UNLIMITED
    });
    let session = world.open("ann", 0).unwrap();
    world.ask(&session);
    world.registry.tick(world.at(5000));
    assert_eq!(world.registry.active(), 1);
    world.answer(&session);
    world.registry.tick(world.at(5000 + 1799));
    assert_eq!(world.registry.active(), 1); // idle counts from the answer
    world.registry.tick(world.at(5000 + 1800));
    assert_eq!(world.registry.active(), 0);
    world.stop();
}

#[test]
fn a_request_whose_client_has_gone_keeps_no_session() {
    let world = World::new(Options {
        idle_timeout: Some(IDLE),
        ..UNLIMITED
    });
    let session = world.open("ann", 0).unwrap();
    world.ask(&session);
    world.leave(&session);
    world.registry.tick(world.at(1799));
    assert_eq!(world.registry.active(), 1);
    world.registry.tick(world.at(1800));
    assert_eq!(world.registry.active(), 0);
    world.stop();
}

#[test]
fn without_an_idle_timeout_sessions_stay() {
    let world = World::new(UNLIMITED);
    world.open("ann", 0).unwrap();
    world.registry.tick(world.at(1_000_000));
    assert_eq!(world.registry.active(), 1);
    world.stop();
}

#[test]
fn the_end_of_the_child_ends_the_session() {
    let world = World::new(UNLIMITED);
    let (one, two) = (world.open("ann", 0).unwrap(), world.open("ann", 0).unwrap());
    world.fakes.end_child(one.id());
    world.fakes.end_child(one.id());
    assert_eq!(world.registry.active(), 1);
    assert_eq!(world.find(one.id(), "ann", 1), Err(FindError::Unknown));
    assert_eq!(world.find(two.id(), "ann", 1), Ok(()));
    world.stop();
    // Long gone, and nothing is counted twice.
    world.fakes.end_child(two.id());
    assert_eq!(world.registry.active(), 0);
}

#[test]
fn a_revoked_principal_loses_its_sessions_and_nobody_else_does() {
    let world = World::new(UNLIMITED);
    let one = world.open("ann", 0).unwrap();
    let two = world.open("ann", 0).unwrap();
    let (bob, eve) = (world.open("bob", 0).unwrap(), world.open("eve", 0).unwrap());
    let all = [("one", &one), ("two", &two), ("bob", &bob), ("eve", &eve)];
    world.registry.close_principals(&[], world.start);
    assert_eq!(world.left(&all).len(), 4);
    world
        .registry
        .close_principals(&[principal("ann"), principal("eve")], world.start);
    assert_eq!(world.left(&all), ["bob"]);
    world.stop();
}

#[test]
fn children_are_stopped_side_by_side() {
    let meeting = Barrier::new(8);
    let world = World::with_hooks(
        UNLIMITED,
        Hooks {
            // Nobody passes unless all are here.
            stopping: Some(Box::new(move |_| {
                meeting.wait();
            })),
            ..Hooks::default()
        },
    );
    for n in 0..8 {
        world.open(&format!("user {n}"), 0).unwrap();
    }
    world.stop();
}

/// A hook that says that it was reached, and waits for permission to go on.
pub(super) fn gate() -> (Hook, Receiver<String>, Sender<()>) {
    let (reached, is_reached) = unbounded();
    let (go_on, may_go_on) = bounded(1);
    let hook = move |id: &str| {
        reached.send(id.to_owned()).unwrap();
        may_go_on.recv_timeout(DEADLINE).unwrap();
    };
    (Box::new(hook), is_reached, go_on)
}

#[test]
fn stop_waits_for_a_spawn_that_is_under_way() {
    let (spawning, is_spawning, go_on) = gate();
    let world = World::with_hooks(
        UNLIMITED,
        Hooks {
            spawning: Some(spawning),
            ..Hooks::default()
        },
    );
    let registry = Arc::clone(&world.registry);
    let now = world.start;
    let opening = thread::spawn("open", move || {
        registry.open(&principal("ann"), &server("a"), CLIENT, now)
    });
    is_spawning.recv_timeout(DEADLINE).unwrap();
    let (registry, fakes) = (Arc::clone(&world.registry), Arc::clone(&world.fakes));
    let stopping = thread::spawn("stop", move || {
        registry.stop();
        fakes.note("all stopped", "");
    });
    wait_until("draining", || world.registry.is_draining());
    go_on.send(()).unwrap();
    stopping.unwrap().join().expect("no panic");
    let session = opening.unwrap().join().expect("no panic").unwrap();
    let id = session.id();
    let expected = [
        format!("start {id}"),
        format!("stop {id}"),
        "all stopped ".to_owned(),
    ];
    assert_eq!(*world.fakes.log.lock(), expected);
    assert_eq!(world.registry.active(), 0);
}

/// What begins while the broker drains would keep it from coming to its end.
#[test]
fn a_session_whose_child_starts_while_the_broker_drains_takes_no_request() {
    let (spawning, is_spawning, go_on) = gate();
    let hooks = Hooks {
        spawning: Some(spawning),
        serves: true,
        ..Hooks::default()
    };
    let world = World::with_hooks(UNLIMITED, hooks);
    let client = Client::default();
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| world.open("ann", 0).unwrap());
        is_spawning.recv_timeout(DEADLINE).unwrap();
        world.registry.drain();
        go_on.send(()).unwrap();
        let session = opening.join().unwrap();
        client.post(&session, &request("1", "initialize", CLIENT));
        assert_eq!(client.heard(), ["refused \"1\" Draining"]);
    });
    assert!(!world.registry.has_clients());
    world.stop();
}

#[test]
fn a_session_closed_while_its_child_starts_leaves_no_child() {
    let (spawning, is_spawning, go_on) = gate();
    let world = World::with_hooks(
        UNLIMITED,
        Hooks {
            spawning: Some(spawning),
            ..Hooks::default()
        },
    );
    let registry = Arc::clone(&world.registry);
    let now = world.start;
    let opening = thread::spawn("open", move || {
        registry.open(&principal("ann"), &server("a"), CLIENT, now)
    });
    let id = is_spawning.recv_timeout(DEADLINE).unwrap();
    assert_eq!(world.registry.active(), 1);
    world
        .registry
        .close_principals(&[principal("ann")], world.start);
    assert_eq!(world.registry.active(), 0);
    go_on.send(()).unwrap();
    let session = opening.unwrap().join().expect("no panic").unwrap();
    assert_eq!(session.id(), id);
    world.stop();
}

/// The end may come at any moment of the start: of a child that exits at once, for one.
#[test]
fn no_child_is_forgotten_whenever_its_session_ends() {
    let (spawning, is_spawning) = unbounded::<String>();
    let round = Arc::new(AtomicUsize::new(0));
    let spawned = Arc::clone(&round);
    let world = World::with_hooks(
        UNLIMITED,
        Hooks {
            spawning: Some(Box::new(move |id| spawning.send(id.to_owned()).unwrap())),
            spawned: Some(Box::new(move |_| {
                spawned.fetch_add(1, SeqCst);
            })),
            ..Hooks::default()
        },
    );
    let registry = Arc::clone(&world.registry);
    let closing = thread::spawn("close", move || {
        for (n, id) in is_spawning.iter().take(ROUNDS).enumerate() {
            // As close as can be to what follows the spawn, and a little later each time.
            wait_until("the spawn", || round.load(SeqCst) > n);
            (0..n % 50).for_each(|_| std::hint::spin_loop());
            registry.close(&id, Cause::Deleted, Instant::now());
        }
    });
    for _ in 0..ROUNDS {
        world.open("ann", 0).unwrap();
    }
    closing.unwrap().join().expect("no panic");
    world.stop();
}

/// `stop` may be called while the reaper, or the end of a child, is ending a session.
#[test]
fn stop_waits_for_a_session_that_another_thread_is_ending() {
    let (waking, is_waking, go_on) = gate();
    let world = World::with_hooks(
        UNLIMITED,
        Hooks {
            waking: Some(waking),
            ..Hooks::default()
        },
    );
    let session = world.open("ann", 0).unwrap();
    let registry = Arc::clone(&world.registry);
    let id = session.id().to_owned();
    let closing = thread::spawn("close", move || {
        registry.close(&id, Cause::Deleted, Instant::now())
    });
    is_waking.recv_timeout(DEADLINE).unwrap(); // the session has left the map by now
    let (registry, fakes) = (Arc::clone(&world.registry), Arc::clone(&world.fakes));
    let stopping = thread::spawn("stop", move || {
        registry.stop();
        fakes.note("all stopped", "");
    });
    wait_until("draining", || world.registry.is_draining());
    go_on.send(()).unwrap();
    closing.unwrap().join().expect("no panic");
    stopping.unwrap().join().expect("no panic");
    let log = world.fakes.log.lock();
    assert_eq!(
        log.last().map(String::as_str),
        Some("all stopped "),
        "{log:?}"
    );
    assert_eq!(log[1], format!("stop {}", session.id()));
}

/// Hooks of children that end only when they are killed, and a count of those being stopped.
fn stubborn() -> (Hooks, Receiver<String>) {
    let (stopping, is_stopping) = unbounded();
    let killed: Arc<(Mutex<Vec<String>>, Condvar)> = Arc::default();
    let kills = Arc::clone(&killed);
    let hooks = Hooks {
        stopping: Some(Box::new(move |id| {
            stopping.send(id.to_owned()).unwrap();
            let mut dead = killed.0.lock();
            while !dead.iter().any(|it| it == id) {
                killed.1.wait(&mut dead);
            }
        })),
        killing: Some(Box::new(move |id| {
            kills.0.lock().push(id.to_owned());
            kills.1.notify_all();
        })),
        ..Hooks::default()
    };
    (hooks, is_stopping)
}

#[test]
fn all_children_can_be_killed_while_they_are_being_stopped() {
    let (hooks, is_stopping) = stubborn();
    let world = World::with_hooks(UNLIMITED, hooks);
    for _ in 0..3 {
        world.open("ann", 0).unwrap();
    }
    let (registry, killer) = (Arc::clone(&world.registry), Arc::clone(&world.registry));
    within_deadline("stop", move || {
        let stopping = thread::spawn("stopping", move || registry.stop());
        for _ in 0..3 {
            is_stopping.recv_timeout(DEADLINE).unwrap();
        }
        killer.kill_all();
        stopping.unwrap().join().expect("no panic");
    });
    assert_eq!(world.fakes.count("stop"), 3);
}

#[test]
fn killing_all_reaches_sessions_that_are_open() {
    let (hooks, _is_stopping) = stubborn();
    let world = World::with_hooks(UNLIMITED, hooks);
    for _ in 0..3 {
        world.open("ann", 0).unwrap();
    }
    world.registry.kill_all();
    assert_eq!(world.fakes.count("kill"), 3);
    world.stop();
}

#[test]
fn killing_all_reaches_a_session_that_is_just_ending() {
    let (waking, is_waking, go_on) = gate();
    let (hooks, _is_stopping) = stubborn();
    let world = World::with_hooks(
        UNLIMITED,
        Hooks {
            waking: Some(waking),
            ..hooks
        },
    );
    let session = world.open("ann", 0).unwrap();
    let (registry, id) = (Arc::clone(&world.registry), session.id().to_owned());
    let closing = thread::spawn("close", move || {
        registry.close(&id, Cause::Deleted, Instant::now())
    });
    is_waking.recv_timeout(DEADLINE).unwrap(); // no longer open, and not yet being stopped
    world.registry.kill_all();
    go_on.send(()).unwrap();
    closing.unwrap().join().expect("no panic");
    world.stop();
}

#[test]
fn killing_all_reaches_a_session_that_is_just_starting() {
    let (spawning, is_spawning, go_on) = gate();
    let (hooks, _is_stopping) = stubborn();
    let world = World::with_hooks(
        UNLIMITED,
        Hooks {
            spawning: Some(spawning),
            ..hooks
        },
    );
    let (registry, now) = (Arc::clone(&world.registry), world.start);
    let opening = thread::spawn("open", move || {
        registry.open(&principal("ann"), &server("a"), CLIENT, now)
    });
    is_spawning.recv_timeout(DEADLINE).unwrap();
    world.registry.kill_all();
    go_on.send(()).unwrap();
    opening.unwrap().join().expect("no panic").unwrap();
    world.stop();
}

#[test]
fn what_has_stopped_is_forgotten_by_the_next_tick() {
    let world = World::new(UNLIMITED);
    let session = world.open("ann", 0).unwrap();
    close(&world, session.id());
    wait_until("the end of the stop thread", || {
        world.registry.tick(world.at(1));
        world.registry.stopping.lock().is_empty()
    });
    assert_eq!(world.fakes.count("stop"), 1);
}

#[test]
fn the_reaper_ends_sessions_of_the_revoked() {
    let world = World::new(UNLIMITED);
    world.open("ann", 0).unwrap();
    world.open("bob", 0).unwrap();
    let mut revoked = vec![principal("ann")];
    let revoked = move || std::mem::take(&mut revoked);
    let reaper = Reaper::start(Arc::clone(&world.registry), revoked, |_| ());
    wait_until("revocation", || world.registry.active() == 1);
    within_deadline("the reaper", move || drop(reaper));
    world.stop();
}

#[test]
fn processes_on_their_way_out_take_places_too() {
    let (hold, held) = bounded::<()>(0);
    let hooks = Hooks {
        stopping: Some(Box::new(move |_| {
            let _ = held.recv(); // closed means go on
        })),
        ..Hooks::default()
    };
    let one = Options {
        max_sessions: 1,
        ..UNLIMITED
    };
    let world = World::with_hooks(one, hooks);
    for _ in 0..ENDING_MIN {
        let session = world.open("ann", 0).unwrap();
        close(&world, session.id());
    }
    let sessions = world.registry.sessions.lock();
    assert!(sessions.too_many_ending(&one, &principal("ann")));
    drop(sessions);
    let waits = std::thread::scope(|scope| {
        let opener = scope.spawn(|| world.open("ann", 0).map(|session| session.id().to_owned()));
        // It waits until one of them has gone.
        hold.send_timeout((), DEADLINE).unwrap();
        opener.join().unwrap()
    });
    assert!(waits.is_ok());
    drop(hold);
    world.stop();
}
