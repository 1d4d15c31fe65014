//! What stands against another child, beside the caps: memory, children that keep dying, age, and
//! requests in flight.

use std::sync::OnceLock;

use super::*;
use crate::bridge::End;

fn die_at_once(world: &World, user: &str, seconds: u64) -> Result<(), OpenError> {
    let session = world.open(user, seconds)?;
    world.child(session.id()).exit();
    assert_eq!(world.last_active(session.id()), None);
    Ok(())
}

fn paused(result: Result<(), OpenError>) -> (u64, String) {
    match result {
        Err(OpenError::Pause { left, why }) => (left.as_secs_f64().ceil() as u64, why),
        other => panic!("no pause: {other:?}"),
    }
}

/// A registry in whose time a fake child dies: the real one, so pauses are seen from afar.
fn now(world: &World) -> u64 {
    world.start.elapsed().as_secs()
}

#[test]
fn a_child_that_keeps_dying_is_not_started_again_and_again() {
    let world = World::new(UNLIMITED);
    for _ in 0..3 {
        assert_eq!(die_at_once(&world, "ann", now(&world)), Ok(()));
    }
    let (seconds, why) = paused(die_at_once(&world, "ann", now(&world)));
    assert!((1..=2).contains(&seconds), "{seconds}");
    assert!(why.contains("exit status 1"), "{why}");
    assert_eq!(world.fakes.count("start"), 3);
    // Nobody else has to wait.
    assert_eq!(die_at_once(&world, "bob", now(&world)), Ok(()));
    let ann = principal("ann");
    let other = world
        .registry
        .open(&ann, &server("b"), CLIENT, world.at(now(&world)));
    assert!(other.is_ok());
    // And then it may be tried once.
    assert_eq!(die_at_once(&world, "ann", now(&world) + 3), Ok(()));
    let (seconds, _) = paused(die_at_once(&world, "ann", now(&world)));
    assert!((2..=3).contains(&seconds), "{seconds}");
    world.stop();
}

#[test]
fn a_session_that_was_used_to_its_end_is_a_success() {
    let world = World::new(UNLIMITED);
    for _ in 0..5 {
        for _ in 0..2 {
            assert_eq!(die_at_once(&world, "ann", now(&world)), Ok(()));
        }
        let session = world.open("ann", now(&world)).unwrap();
        close(&world, session.id());
    }
    world.stop();
}

#[test]
fn a_child_that_dies_after_long_has_not_failed() {
    let world = World::new(UNLIMITED);
    for _ in 0..5 {
        let session = world.open("ann", 0).unwrap();
        let end = End::Exited {
            why: String::new(),
            detail: String::new(),
        };
        let no = session.child_no();
        world.registry.child_ended(no, end, world.at(10));
    }
    world.stop();
}

#[test]
fn a_start_that_fails_after_long_has_failed() {
    let world = World::new(UNLIMITED);
    for _ in 0..3 {
        let session = world.open("ann", 0).unwrap();
        let end = End::StartFailed {
            why: String::new(),
            detail: "it did not answer initialize in 30 s".to_owned(),
        };
        let no = session.child_no();
        world.registry.child_ended(no, end, world.at(30));
    }
    let (_, why) = paused(world.open("ann", 30).map(drop));
    assert_eq!(why, "it did not answer initialize in 30 s");
    world.stop();
}

#[test]
fn below_the_memory_floor_no_child_is_started() {
    let low = Options {
        min_free_memory: 1000,
        free_memory: || Some(999),
        ..UNLIMITED
    };
    let world = World::new(low);
    assert_eq!(world.open("ann", 0).unwrap_err(), OpenError::LowMemory);
    assert_eq!(
        (world.registry.active(), world.fakes.count("start")),
        (0, 0)
    );
    for fits in [
        Options {
            free_memory: || Some(1000),
            ..low
        },
        Options {
            free_memory: || None,
            ..low
        },
        Options {
            min_free_memory: 0,
            ..low
        },
    ] {
        let world = World::new(fits);
        assert!(world.open("ann", 0).is_ok());
        world.stop();
    }
}

#[test]
fn a_session_that_is_too_old_ends_although_it_is_used() {
    let world = World::new(Options {
        max_age: Some(Duration::from_secs(100)),
        ..UNLIMITED
    });
    let session = world.open("ann", 0).unwrap();
    world.ask(&session);
    world.registry.tick(world.at(99));
    assert_eq!(world.find(session.id(), "ann", 99), Ok(()));
    world.registry.tick(world.at(100));
    assert_eq!(
        world.find(session.id(), "ann", 100),
        Err(FindError::Unknown)
    );
    world.stop();
}

#[test]
fn requests_in_flight_are_bounded_in_a_session_and_of_a_user() {
    let hooks = Hooks {
        serves: true,
        ..Hooks::default()
    };
    let options = Options {
        max_in_flight_per_user: 10,
        ..UNLIMITED
    };
    let world = World::with_hooks(options, hooks);
    let (one, client) = world.begin("ann", 0, None);
    let (two, _) = world.begin("ann", 0, None);
    let (other, _) = world.begin("bob", 0, None);
    let ask = |session: &Session, n: usize| {
        client.post(session, &request(&n.to_string(), "tools/call", "{}"));
        client.heard().pop()
    };
    (0..8).for_each(|n| assert_eq!(ask(&one, n), None));
    let refused = |id, why| Some(format!("refused \"{id}\" {why}"));
    assert_eq!(ask(&one, 8), refused(8, "TooManyInFlight"));
    assert_eq!((ask(&two, 0), ask(&two, 1)), (None, None));
    assert_eq!(ask(&two, 2), refused(2, "TooManyInFlightOfUser"));
    assert_eq!(ask(&other, 2), None);
    world
        .child(one.id())
        .say(r#"{"jsonrpc":"2.0","id":"0","result":{}}"#);
    assert_eq!(client.heard().len(), 1);
    assert_eq!(ask(&two, 3), None);
    assert_eq!(ask(&two, 4), refused(4, "TooManyInFlightOfUser"));
    // What a session has in flight when it ends counts no more.
    close(&world, one.id());
    client.heard();
    (10..15).for_each(|n| assert_eq!(ask(&two, n), None));
    let (third, _) = world.begin("ann", 0, None);
    (0..2).for_each(|n| assert_eq!(ask(&third, n), None));
    assert_eq!(ask(&third, 2), refused(2, "TooManyInFlightOfUser"));
    world.stop();
}

/// Its time may be up while its new child starts: its owner has come back all the same.
#[test]
fn a_session_is_not_forgotten_while_it_is_revived() {
    const DAY: u64 = 24 * 3600;
    let dir = TempDir::new();
    let policy = Policy {
        revive: Some(Duration::from_secs(DAY)),
        park: None,
        keeps_old_token: false,
    };
    let registry: Arc<OnceLock<Weak<Registry>>> = Arc::default();
    let (its, start) = (Arc::clone(&registry), Instant::now());
    let time_passes = move |_: &str| {
        let registry = its.get().and_then(Weak::upgrade).unwrap();
        registry.tick(start + Duration::from_secs(DAY + 60));
    };
    let hooks = Hooks {
        respawning: Some(Box::new(time_passes)),
        serves: true,
        ..Hooks::default()
    };
    let world = World::with(UNLIMITED, hooks, policy, Some(dir.path()));
    let _ = registry.set(Arc::downgrade(&world.registry)); // it was empty
    let (session, _) = world.begin("ann", 0, None);
    let (id, user, server) = (session.id(), principal("ann"), server("a"));
    world.registry.close(id, Cause::Idle, world.at(0));
    let revive = |now| world.registry.revive(id, &user, &server, true, now);
    revive(world.at(DAY - 60)).unwrap();
    assert_eq!(dir.records().len(), 1);
    world.stop();
}
