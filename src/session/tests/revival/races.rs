//! Revivals at the same time as each other, and as what ends a session for good.

use std::sync::{Barrier, OnceLock};

use super::*;
use crate::session::tests::ending::ROUNDS;

#[test]
fn of_many_that_come_at_once_one_starts_a_child_and_all_are_served() {
    let dir = TempDir::new();
    let world = world(UNLIMITED, &dir);
    let (session, _) = world.begin("ann", 0, None);
    let id = session.id();
    let barrier = Barrier::new(4);
    for round in 0..ROUNDS {
        world.registry.close(id, Cause::Idle, world.at(0));
        let started = world.fakes.count("start");
        let client = Client::default();
        std::thread::scope(|scope| {
            for n in 0..4 {
                let (world, barrier, client) = (&world, &barrier, &client);
                scope.spawn(move || {
                    barrier.wait();
                    let session = world.revive(id, USE, 0).unwrap();
                    client.post(&session, &request(&n.to_string(), "tools/list", "{}"));
                });
            }
        });
        assert_eq!(world.fakes.count("start"), started + 1);
        if round % 20 == 0 {
            assert_eq!(world.play(id).len(), 2);
            let mut lines: Vec<_> = (0..4).flat_map(|_| world.child(id).next()).collect();
            lines.sort();
            let all = (0..4).map(|n| request(&n.to_string(), "tools/list", "{}"));
            assert_eq!(lines, all.collect::<Vec<_>>());
        }
        assert_eq!(client.heard(), [""; 0]);
    }
    world.stop();
}

/// Runs two things to the same session at once, many times over; in the end nothing is left.
fn race(rests: bool, one: impl Fn(&World, &str) + Sync, other: impl Fn(&World, &str) + Sync) {
    let dir = TempDir::new();
    let world = world(UNLIMITED, &dir);
    let barrier = Barrier::new(2);
    for round in 0..200 {
        let (session, _) = world.begin("ann", 0, None);
        let id = session.id();
        if rests {
            world.registry.close(id, Cause::Idle, world.at(0));
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                barrier.wait();
                (0..round * 20).for_each(|_| std::hint::spin_loop());
                one(&world, id);
            });
            barrier.wait();
            other(&world, id);
        });
        assert_eq!(world.registry.active(), 0, "round {round}");
        let found = world.find(id, "ann", 0);
        assert_eq!(found, Err(FindError::Unknown), "round {round}");
        assert_eq!(dir.records(), [""; 0], "round {round}");
    }
    world.stop();
}

#[test]
fn what_is_deleted_while_it_is_revived_is_gone() {
    race(true, close, |world, id| match world.revive(id, USE, 0) {
        Ok(_) | Err(OpenError::Ended) => {}
        Err(why) => panic!("{why:?}"),
    });
}

#[test]
fn what_is_deleted_while_it_is_written_down_is_gone() {
    race(false, close, |world, id| {
        let child = world.child(id);
        let handshake = Handshake {
            result: RESULT.into(),
            ..Handshake::default()
        };
        (0..3).for_each(|_| child.host.changed(id, &handshake));
    });
}

#[test]
fn what_is_deleted_while_it_goes_to_rest_is_gone() {
    race(false, close, |world, id| {
        world.registry.close(id, Cause::Idle, world.at(0));
    });
}

#[test]
fn what_is_deleted_while_it_goes_to_rest_and_comes_back_is_gone() {
    race(false, close, |world, id| {
        world.registry.close(id, Cause::Idle, world.at(0));
        let _ = world.revive(id, USE, 0);
    });
}

/// The bridge came only after that, and must know of it.
#[test]
fn a_session_that_goes_idle_while_it_is_revived_rests_on() {
    let dir = TempDir::new();
    let registry: Arc<OnceLock<Weak<Registry>>> = Arc::default();
    let its = Arc::clone(&registry);
    let respawning = move |_: &str| {
        let registry = its.get().and_then(Weak::upgrade).unwrap();
        registry.tick(Instant::now() + IDLE * 2);
    };
    let options = Options {
        idle_timeout: Some(IDLE),
        ..UNLIMITED
    };
    let hooks = Hooks {
        respawning: Some(Box::new(respawning)),
        ..Hooks::default()
    };
    let world = world_with(options, hooks, &dir);
    let _ = registry.set(Arc::downgrade(&world.registry)); // it was empty
    let (session, client) = world.begin("ann", 0, None);
    world.registry.close(session.id(), Cause::Idle, world.at(1));
    client.heard();
    let revived = world.revive(session.id(), LISTENING, 2).unwrap();
    assert_eq!(world.last_active(session.id()), None);
    client.listen(&revived);
    client.post(&revived, &request("1", "ping", "{}"));
    let told = ["refused null Resting", "refused \"1\" Resting"];
    assert_eq!(client.heard(), told);
    assert!(world.is_resting(session.id()));
    world.stop();
}
