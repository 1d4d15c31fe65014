//! The registry over fake children: no process, no sleep, and the time is passed in.

mod admission;
pub(super) mod client;
mod ending;
mod parking;
mod respawn;
mod revival;
mod sharing;
mod wanted;
mod world;

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use super::*;
use client::*;
use world::*;

#[test]
fn the_cap_of_all_holds_however_many_arrive_at_once() {
    let world = World::new(Options {
        max_sessions: 5,
        ..UNLIMITED
    });
    let opened = open_32(&world, |n| format!("user {n}"));
    let full = opened
        .iter()
        .filter(|it| matches!(it, Err(OpenError::Full)));
    assert_eq!(full.count(), 27);
    assert_eq!(world.fakes.count("start"), 5);
    assert_eq!(world.registry.active(), 5);
    assert!(world.fakes.most_active.load(SeqCst) <= 5);
    world.stop();
}

#[test]
fn the_cap_of_a_user_holds_however_many_arrive_at_once() {
    let world = World::new(Options {
        max_sessions_per_user: 5,
        ..UNLIMITED
    });
    let opened = open_32(&world, |_| "ann".to_owned());
    // None of them has its `initialize` yet, so none makes room.
    let starting = opened
        .iter()
        .filter(|it| matches!(it, Err(OpenError::UserStarting)));
    assert_eq!(starting.count(), 27);
    assert_eq!(world.registry.active(), 5);
    assert!(world.fakes.most_active.load(SeqCst) <= 5);
    world.stop();
}

#[test]
fn a_session_that_is_starting_makes_no_room() {
    let world = World::new(Options {
        max_sessions_per_user: 2,
        ..UNLIMITED
    });
    let (begun, _) = world.begin("ann", 1, None);
    world.ask(&begun);
    let starting = world.open("ann", 2).unwrap();
    let client = Client::default();
    client.post(&starting, &request("init", "initialize", CLIENT));
    // One that has begun goes first, although it is at work.
    let newest = world.open("ann", 3).unwrap();
    let all = [
        ("begun", &begun),
        ("starting", &starting),
        ("newest", &newest),
    ];
    assert_eq!(world.left(&all), ["starting", "newest"]);
    assert_eq!(world.open("ann", 4).unwrap_err(), OpenError::UserStarting);
    assert_eq!(world.left(&all), ["starting", "newest"]);
    assert_eq!(client.heard(), [""; 0]);
    // Whoever else comes is not held up.
    world.open("bob", 4).unwrap();
    world.child(starting.id()).say(&format!(
        r#"{{"jsonrpc":"2.0","id":"init","result":{RESULT}}}"#
    ));
    world.open("ann", 5).unwrap();
    assert_eq!(world.left(&all), ["newest"]);
    world.stop();
}

/// However that comes about, its client has not lost a session, and is not told so.
#[test]
fn a_client_whose_session_ends_before_it_begins_is_told_to_come_again() {
    let world = World::new(UNLIMITED);
    fn revoke(world: &World) {
        let revoked = [principal("ann")];
        world.registry.close_principals(&revoked, world.at(1));
    }
    fn stop(world: &World) {
        world.registry.stop();
    }
    type End = fn(&World);
    let ends: [(End, &str); 2] = [(revoke, "EndedEarly"), (stop, "Draining")];
    for (end, why) in ends {
        let (session, client) = (world.open("ann", 0).unwrap(), Client::default());
        let late = world.open("ann", 0).unwrap();
        client.post(&session, &request("1", "initialize", CLIENT));
        end(&world);
        world
            .child(session.id())
            .inbound
            .lock()
            .service(world.at(1));
        client.post(&late, &request("2", "initialize", CLIENT));
        let told = ["1", "2"].map(|id| format!("refused \"{id}\" {why}"));
        assert_eq!(client.heard(), told);
    }
    world.stop();
}

/// Nobody will ever know its id.
#[test]
fn a_session_whose_initialize_is_refused_is_gone() {
    let world = World::new(Options {
        max_in_flight_per_user: 1,
        ..UNLIMITED
    });
    let (busy, _) = world.begin("ann", 0, None);
    world.ask(&busy);
    let (session, client) = (world.open("ann", 1).unwrap(), Client::default());
    client.post(&session, &request("1", "initialize", CLIENT));
    assert_eq!(client.heard(), ["refused \"1\" TooManyInFlightOfUser"]);
    assert_eq!(
        world.left(&[("busy", &busy), ("session", &session)]),
        ["busy"]
    );
    world.stop();
}

#[test]
fn zero_is_unlimited() {
    let world = World::new(UNLIMITED);
    let opened = open_32(&world, |n| format!("user {}", n % 2));
    assert!(opened.iter().all(Result::is_ok));
    assert_eq!(world.registry.active(), 32);
    world.stop();
}

#[test]
fn ids_are_48_hex_digits_and_unique() {
    let world = World::new(UNLIMITED);
    let sessions: Vec<_> = (0..200).map(|_| world.open("ann", 0).unwrap()).collect();
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    for session in &sessions {
        assert_eq!(session.id().len(), 48);
        assert!(session.id().bytes().all(is_hex), "{}", session.id());
        assert_eq!(session.label(), &session.id()[..8]);
        // What a log may show of it.
        assert_eq!(
            format!("{session:?}"),
            format!("Session({})", session.label())
        );
    }
    let unique: std::collections::HashSet<_> = sessions.iter().map(|it| it.id()).collect();
    assert_eq!(unique.len(), 200);
    world.stop();
}

#[test]
fn a_slot_is_free_again_when_the_spawn_fails() {
    let world = World::new(Options {
        max_sessions: 1,
        max_sessions_per_user: 1,
        ..UNLIMITED
    });
    world.fakes.spawn_fails.store(true, SeqCst);
    for _ in 0..3 {
        let why = OpenError::Spawn("no such program".to_owned());
        assert_eq!(world.open("ann", 0).unwrap_err(), why);
        assert_eq!(world.registry.active(), 0);
    }
    world.fakes.spawn_fails.store(false, SeqCst);
    world.open("ann", 0).unwrap();
    assert_eq!(world.open("bob", 0).unwrap_err(), OpenError::Full);
    let registry = Arc::clone(&world.registry);
    within_deadline("stop", move || registry.stop()); // no spawn is taken to be under way
}

#[test]
fn a_slot_is_free_again_when_the_session_ends() {
    let world = World::new(Options {
        max_sessions: 1,
        ..UNLIMITED
    });
    let first = world.open("ann", 0).unwrap();
    assert_eq!(world.open("bob", 0).unwrap_err(), OpenError::Full);
    close(&world, first.id());
    close(&world, first.id());
    assert_eq!(world.registry.active(), 0);
    world.open("bob", 0).unwrap();
    world.stop();
}

#[test]
fn the_stalest_session_of_the_user_makes_room() {
    let world = World::new(Options {
        max_sessions_per_user: 2,
        ..UNLIMITED
    });
    let other = world.open("bob", 0).unwrap();
    let (old, _) = world.begin("ann", 1, None);
    let (new, _) = world.begin("ann", 2, None);
    world.find(old.id(), "ann", 3).unwrap(); // so `new` is the stalest now
    let newest = world.open("ann", 4).unwrap();
    let all = [
        ("other", &other),
        ("old", &old),
        ("new", &new),
        ("newest", &newest),
    ];
    assert_eq!(world.left(&all), ["other", "old", "newest"]);
    world.stop();
}

#[test]
fn a_session_with_a_request_in_flight_makes_room_only_if_all_have_one() {
    let world = World::new(Options {
        max_sessions_per_user: 2,
        idle_timeout: Some(IDLE),
        ..UNLIMITED
    });
    let (busy, _) = world.begin("ann", 1, None);
    let (quiet, _) = world.begin("ann", 2, None);
    world.ask(&busy);
    let (third, _) = world.begin("ann", 3, None);
    let all = [("busy", &busy), ("quiet", &quiet), ("third", &third)];
    assert_eq!(world.left(&all), ["busy", "third"]);
    world.ask(&third);
    // Both are seen to be in use, at the same time; that is no request.
    world.registry.tick(world.at(3));
    world.open("ann", 4).unwrap();
    assert_eq!(world.left(&all), ["third"]);
    world.stop();
}

#[test]
fn an_id_is_good_for_its_principal_on_its_server_only() {
    let world = World::new(UNLIMITED);
    let session = world.open("ann", 0).unwrap();
    let id = session.id();
    assert_eq!(world.find(id, "ann", 1), Ok(()));
    assert_eq!(world.find(id, "bob", 2), Err(FindError::Foreign));
    assert_eq!(
        world.find(&"0".repeat(48), "ann", 2),
        Err(FindError::Unknown)
    );
    assert_eq!(world.find("", "ann", 2), Err(FindError::Unknown));
    assert_eq!(world.find(&id[..47], "ann", 2), Err(FindError::Unknown));
    let find = |user: &str, on: &str| {
        let found = world.registry.find(id, &principal(user), on);
        found.map(|_| ()).unwrap_err()
    };
    assert_eq!(find("ann", "b"), FindError::Unknown);
    assert_eq!(find("bob", "b"), FindError::Foreign);
    // None of these counts as use.
    assert_eq!(world.last_active(id), Some(world.at(1)));
    close(&world, id);
    assert_eq!(world.find(id, "ann", 3), Err(FindError::Unknown));
    assert_eq!(world.find(id, "bob", 3), Err(FindError::Unknown));
    world.stop();
}

#[test]
fn a_name_that_was_given_again_opens_no_old_session() {
    let world = World::new(UNLIMITED);
    let session = world.open("ann", 0).unwrap();
    let mut namesake = principal("ann");
    namesake.subject = "somebody else".into();
    let found = world.registry.find(session.id(), &namesake, "a");
    assert_eq!(found.unwrap_err(), FindError::Foreign);
    world.stop();
}

#[test]
fn finding_a_session_counts_as_use() {
    let world = World::new(UNLIMITED);
    let session = world.open("ann", 5).unwrap();
    assert_eq!(world.last_active(session.id()), Some(world.at(5)));
    world.find(session.id(), "ann", 9).unwrap();
    assert_eq!(world.last_active(session.id()), Some(world.at(9)));
    assert_eq!(world.last_active("unknown"), None);
    world.stop();
}

#[test]
fn a_draining_registry_opens_nothing_and_serves_what_is_open() {
    let world = World::new(Options {
        max_sessions_per_user: 1,
        ..UNLIMITED
    });
    let session = world.open("ann", 0).unwrap();
    assert!(!world.registry.is_draining());
    world.registry.drain();
    assert!(world.registry.is_draining());
    assert_eq!(world.open("ann", 1).unwrap_err(), OpenError::Draining);
    assert_eq!(world.open("bob", 1).unwrap_err(), OpenError::Draining);
    assert_eq!(world.find(session.id(), "ann", 2), Ok(()));
    world.stop();
}

#[test]
fn a_client_that_waits_anywhere_is_seen() {
    let world = World::new(UNLIMITED);
    let (one, two) = (world.open("ann", 0).unwrap(), world.open("bob", 0).unwrap());
    assert!(!world.registry.has_clients());
    world.ask(&one);
    world.ask(&two);
    world.answer(&one);
    assert!(world.registry.has_clients());
    world.leave(&two);
    assert!(!world.registry.has_clients());
    world.stop();
}
