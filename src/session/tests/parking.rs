//! Children between two sessions: who gets them, who does not, and that nothing comes with them.

use std::sync::Barrier;
use std::sync::atomic::Ordering::SeqCst;

use super::ending::ROUNDS;
use super::*;
use crate::session::parking::PARKING_TIMEOUT;
use crate::thread;

const PARK: Duration = Duration::from_secs(60);
const PARKING: Policy = Policy {
    revive: None,
    park: Some(PARK),
    keeps_old_token: false,
};

fn world(options: Options) -> World {
    let hooks = Hooks {
        serves: true,
        ..Hooks::default()
    };
    World::with(options, hooks, PARKING, None)
}

fn parked(world: &World) -> usize {
    world.registry.sessions.lock().parked.len()
}

fn notification(n: u32) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"n":{n}}}}}"#)
}

#[test]
fn the_same_client_gets_the_child_again() {
    let world = world(UNLIMITED);
    let (first, _) = world.begin("ann", 0, None);
    let mut last = Arc::clone(&first);
    for _ in 0..3 {
        close(&world, last.id());
        assert_eq!((world.registry.active(), parked(&world)), (0, 1));
        assert_eq!(world.find(last.id(), "ann", 0), Err(FindError::Unknown));
        let (next, client) = world.begin("ann", 0, Some(first.id()));
        assert_ne!(next.id(), last.id());
        client.post(&next, &request("1", "tools/list", "{}"));
        assert_eq!(world.child(first.id()).take_lines().len(), 1);
        world
            .child(first.id())
            .say(r#"{"jsonrpc":"2.0","id":"1","result":{}}"#);
        assert_eq!(client.heard().len(), 1);
        // There is but one `initialize` in it too.
        client.post(&next, &request("2", "initialize", CLIENT));
        assert_eq!(client.heard(), [r#"refused "2" AlreadyInitialized"#]);
        last = next;
    }
    assert_eq!((world.fakes.count("start"), parked(&world)), (1, 0));
    world.stop();
}

#[test]
fn nobody_else_gets_the_child() {
    let world = world(UNLIMITED);
    let (first, _) = world.begin("ann", 0, None);
    close(&world, first.id());
    let other_version = CLIENT.replace("2025-11-25", "2025-06-18");
    let other_name = CLIENT.replace(r#""c""#, r#""d""#);
    let other_abilities = CLIENT.replace(r#""capabilities":{}"#, r#""capabilities":{"roots":{}}"#);
    let mut other_env = principal("ann");
    other_env.env = Arc::new([("KEY".to_owned(), "new".to_owned())].into());
    for (who, on, client) in [
        (principal("bob"), "a", CLIENT),
        (principal("ann"), "b", CLIENT),
        (principal("ann"), "a", &other_version),
        (principal("ann"), "a", &other_name),
        (principal("ann"), "a", &other_abilities),
        (principal("ann"), "a", ""),
        (other_env, "a", CLIENT),
    ] {
        let started = world.fakes.count("start");
        let opened = world
            .registry
            .open(&who, &server(on), client, world.start)
            .unwrap();
        assert_eq!(world.fakes.count("start"), started + 1, "{client}");
        assert_eq!(opened.tenancy().tenant, 0);
    }
    assert_eq!(parked(&world), 1);
    world.begin("ann", 0, Some(first.id()));
    world.stop();
}

#[test]
fn a_child_with_something_left_in_it_is_not_parked() {
    type Leave = fn(&World, &Session, &Client);
    let leave: [(&str, Leave); 6] = [
        ("a request in flight", |_, session, client| {
            client.post(session, &request("1", "tools/call", "{}"));
        }),
        ("a question", |world, session, _| {
            let question = r#"{"jsonrpc":"2.0","id":"q","method":"roots/list"}"#;
            world.child(session.id()).say(question);
        }),
        ("a log level", |world, session, client| {
            client.post(session, &request("1", "logging/setLevel", "{}"));
            let answer = r#"{"jsonrpc":"2.0","id":"1","result":{}}"#;
            world.child(session.id()).say(answer);
        }),
        ("a subscription", |world, session, client| {
            let uri = r#"{"uri":"x:1"}"#;
            client.post(session, &request("1", "resources/subscribe", uri));
            let answer = r#"{"jsonrpc":"2.0","id":"1","result":{}}"#;
            world.child(session.id()).say(answer);
        }),
        (
            "more questions than are remembered",
            |world, session, client| {
                let message =
                    |n: usize, rest: &str| format!(r#"{{"jsonrpc":"2.0","id":{n},{rest}}}"#);
                let question = |n| message(n, r#""method":"roots/list""#);
                (0..300).for_each(|n| world.child(session.id()).say(&question(n)));
                (0..256).for_each(|n| client.post(session, &message(n, r#""result":{}"#)));
            },
        ),
        ("a line that waits to be written", |_, session, client| {
            let large = format!(r#"{{"x":"{}"}}"#, "x".repeat(2000));
            client.post(session, &request("1", "notifications/x", &large));
        }),
    ];
    for (what, leave) in leave {
        let world = world(UNLIMITED);
        let (session, client) = world.begin("ann", 0, None);
        leave(&world, &session, &client);
        close(&world, session.id());
        assert_eq!(parked(&world), 0, "{what}");
        wait_until(what, || world.fakes.count("stop") == 1);
        world.stop();
    }
}

#[test]
fn a_child_that_was_not_told_that_it_is_initialized_is_not_parked() {
    let world = world(UNLIMITED);
    let (session, client) = (world.open("ann", 0).unwrap(), Client::default());
    close(&world, session.id());
    assert_eq!(parked(&world), 0, "not asked");
    let session = world.open("ann", 0).unwrap();
    client.post(&session, &request("init", "initialize", CLIENT));
    let answer = format!(r#"{{"jsonrpc":"2.0","id":"init","result":{RESULT}}}"#);
    world.child(session.id()).say(&answer);
    close(&world, session.id());
    assert_eq!(parked(&world), 0, "not told");
    wait_until("the end", || world.fakes.count("stop") == 2);
    world.stop();
}

/// A child that was taken over and has not greeted yet is as new, but its client waits for it.
#[test]
fn a_session_that_ends_before_its_initialize_comes_hands_nothing_on() {
    let world = world(UNLIMITED);
    let (first, _) = world.begin("ann", 0, None);
    close(&world, first.id());
    let second = world.open("ann", 0).unwrap();
    assert_eq!(world.fakes.count("start"), 1);
    close(&world, second.id());
    let client = Client::default();
    client.post(&second, &request("init", "initialize", CLIENT));
    assert_eq!(client.heard(), [r#"refused "init" EndedEarly"#]);
    world.begin("ann", 0, None);
    world.stop();
}

#[test]
fn nothing_of_the_old_session_is_in_the_new_one() {
    let world = world(UNLIMITED);
    let (old, client) = world.begin("ann", 0, None);
    let child = world.child(old.id());
    child.say(&notification(1)); // waits for a stream
    client.listen(&old);
    assert_eq!(
        client.heard(),
        ["stream", &format!("event {}", notification(1))]
    );
    let others = Client::default();
    child.say(&notification(2));
    client.heard();
    close(&world, old.id());
    assert_eq!(client.heard(), ["end"]);
    child.say(&notification(3));
    child.say(r#"{"jsonrpc":"2.0","id":"1","result":{}}"#);
    child
        .say(r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1}}"#);
    let (new, client) = world.begin("ann", 0, Some(old.id()));
    // Whoever still holds the old one.
    others.post(&old, &request("1", "tools/call", "{}"));
    others.post(&old, &request("init", "initialize", CLIENT));
    others.post(&old, INITIALIZED);
    others.listen(&old);
    let refused =
        ["\"1\"", "\"init\"", "null", "null"].map(|id| format!("refused {id} SessionEnded"));
    assert_eq!(others.heard(), refused);
    assert_eq!(child.take_lines(), [""; 0]);
    assert_eq!(new.in_flight(), 0);
    client.listen(&new);
    assert_eq!(client.heard(), ["stream"]);
    child.say(&notification(4));
    assert_eq!(client.heard(), [format!("event {}", notification(4))]);
    world.stop();
}

#[test]
fn what_waited_in_the_queue_when_the_child_changed_hands_is_refused() {
    let world = world(UNLIMITED);
    let (old, _) = world.begin("ann", 0, None);
    close(&world, old.id());
    let late = Client::default();
    let large = format!(r#"{{"x":"{}"}}"#, "x".repeat(2000));
    late.post(&old, &request("1", "tools/call", &large));
    let (new, client) = (world.open("ann", 0).unwrap(), Client::default());
    // What comes now waits behind it.
    client.post(&new, &request("init", "initialize", CLIENT));
    client.post(&new, INITIALIZED);
    client.post(&new, &request("2", "tools/call", &large));
    let line = world.child(old.id()).next();
    assert!(line[0].contains(r#""id":"2""#), "{line:?}");
    assert_eq!(late.heard(), ["refused \"1\" SessionEnded"]);
    let heard = client.heard();
    assert!(heard[0].contains(new.id()), "{heard:?}");
    assert_eq!(heard[1..], ["accepted"]);
    world.stop();
}

#[test]
fn a_child_that_asks_something_between_two_sessions_ends() {
    let world = world(UNLIMITED);
    let (session, _) = world.begin("ann", 0, None);
    close(&world, session.id());
    let question = r#"{"jsonrpc":"2.0","id":"q","method":"roots/list"}"#;
    world.child(session.id()).say(question);
    assert_eq!(parked(&world), 0);
    world.begin("ann", 0, None);
    world.stop();
}

/// Its client has gone to have another one, and would get the same again.
#[test]
fn a_child_that_hangs_is_not_handed_on() {
    let world = world(UNLIMITED);
    let (hung, _) = world.begin("ann", 0, None);
    world.child(hung.id()).hangs.store(true, SeqCst);
    close(&world, hung.id());
    assert_eq!(parked(&world), 1);
    let (next, client) = world.begin("ann", 0, None);
    client.post(&next, &request("1", "tools/list", "{}"));
    assert_eq!(world.child(next.id()).take_lines().len(), 1);
    assert_eq!(world.child(hung.id()).take_lines(), [""; 0]);
    world.registry.tick(world.at(4));
    assert_eq!((parked(&world), world.fakes.count("stop")), (1, 0));
    world.registry.tick(world.at(5));
    assert_eq!(parked(&world), 0);
    wait_until("the end", || world.fakes.count("stop") == 1);
    world.stop();
}

#[test]
fn one_that_has_been_proved_is_taken_before_one_that_has_not() {
    let times = (0..5).map(|_| {
        let world = world(UNLIMITED);
        let (hung, _) = world.begin("ann", 0, None);
        let (fine, _) = world.begin("ann", 0, None);
        world.child(hung.id()).hangs.store(true, SeqCst);
        close(&world, hung.id());
        close(&world, fine.id());
        let begun = Instant::now();
        world.begin("ann", 0, Some(fine.id()));
        let time = begun.elapsed();
        world.stop();
        time
    });
    assert!(times.min() < Some(PARKING_TIMEOUT), "it has waited");
}

#[test]
fn a_parked_child_ends_after_its_time() {
    let world = world(UNLIMITED);
    let (session, _) = world.begin("ann", 0, None);
    close(&world, session.id());
    world.registry.tick(world.at(59));
    assert_eq!(parked(&world), 1);
    world.registry.tick(world.at(60));
    assert_eq!(parked(&world), 0);
    wait_until("the end", || world.fakes.count("stop") == 1);
    world.stop();
}

#[test]
fn a_parked_child_ends_with_its_user_and_when_it_dies() {
    let world = world(UNLIMITED);
    let (ann, _) = world.begin("ann", 0, None);
    let (bob, _) = world.begin("bob", 0, None);
    close(&world, ann.id());
    close(&world, bob.id());
    assert_eq!(parked(&world), 2);
    world
        .registry
        .close_principals(&[principal("ann")], world.start);
    assert_eq!(parked(&world), 1);
    world.child(bob.id()).exit();
    assert_eq!(parked(&world), 0);
    world.begin("bob", 0, None);
    let (eve, _) = world.begin("eve", 0, None);
    close(&world, eve.id());
    world.stop(); // counts what was stopped
    assert_eq!(parked(&world), 0);
}

#[test]
fn idle_and_revoked_sessions_and_those_of_a_broker_that_stops_park_nothing() {
    let world = world(Options {
        idle_timeout: Some(IDLE),
        max_age: Some(IDLE * 2),
        ..UNLIMITED
    });
    world.begin("ann", 0, None);
    world.registry.tick(world.at(1800));
    assert_eq!((world.registry.active(), parked(&world)), (0, 0));
    let (old, _) = world.begin("ann", 0, None);
    old.touch(world.at(3600));
    world.registry.tick(world.at(3600));
    assert_eq!((world.registry.active(), parked(&world)), (0, 0));
    let (session, _) = world.begin("ann", 0, None);
    world.registry.drain();
    close(&world, session.id());
    assert_eq!(parked(&world), 0);
    world.stop();
}

#[test]
fn parked_children_give_way_before_any_session_does() {
    static FREE: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1000);
    for (what, options, next) in [
        (
            "the cap of all",
            Options {
                max_sessions: 2,
                ..UNLIMITED
            },
            "eve",
        ),
        (
            "the cap of a user",
            Options {
                max_sessions_per_user: 2,
                ..UNLIMITED
            },
            "ann",
        ),
        (
            "memory",
            Options {
                min_free_memory: 500,
                free_memory: || Some(FREE.load(SeqCst)),
                ..UNLIMITED
            },
            "eve",
        ),
    ] {
        let stopping = |_: &str| FREE.store(1000, SeqCst);
        let hooks = Hooks {
            serves: true,
            stopping: Some(Box::new(stopping)),
            ..Hooks::default()
        };
        let world = World::with(options, hooks, PARKING, None);
        let (stays, _) = world.begin("ann", 0, None);
        let (goes, _) = world.begin("ann", 0, None);
        close(&world, goes.id());
        assert_eq!(parked(&world), 1, "{what}");
        FREE.store(100, SeqCst);
        let other = CLIENT.replace(r#""c""#, r#""d""#);
        let opened = world
            .registry
            .open(&principal(next), &server("a"), &other, world.start);
        // Memory is free again only when the process has gone; the client comes again then.
        assert!(
            matches!(&opened, Ok(_) | Err(OpenError::LowMemory)),
            "{what}: {opened:?}"
        );
        assert_eq!(parked(&world), 0, "{what}");
        assert!(world.last_active(stays.id()).is_some(), "{what}");
        FREE.store(1000, SeqCst);
        world.stop();
    }
}

#[test]
fn a_parked_child_takes_no_further_place_when_it_is_taken_over() {
    let world = world(Options {
        max_sessions: 1,
        max_sessions_per_user: 1,
        ..UNLIMITED
    });
    let (first, _) = world.begin("ann", 0, None);
    close(&world, first.id());
    world.begin("ann", 0, Some(first.id()));
    // And the one that has to make room hands its child on at once.
    let next = world.begin("ann", 1, Some(first.id())).0;
    assert_eq!(world.registry.active(), 1);
    assert!(world.last_active(next.id()).is_some());
    assert_eq!(world.fakes.count("start"), 1);
    world.stop();
}

#[test]
fn a_parked_child_is_killed_with_all_others() {
    let world = world(UNLIMITED);
    let (session, _) = world.begin("ann", 0, None);
    close(&world, session.id());
    world.registry.kill_all();
    assert_eq!(world.fakes.count("kill"), 1);
    world.stop();
}

/// Runs two things to the same parked child at once, many times over, and looks at what is left.
fn race(
    against: impl Fn(&Registry, &Faces) + Send + Sync + 'static,
    check: impl Fn(&World, &Arc<Session>, &Faces),
) {
    let world = world(UNLIMITED);
    let (barrier, against) = (Arc::new(Barrier::new(2)), Arc::new(against));
    for _ in 0..ROUNDS {
        let (first, _) = world.begin("ann", 0, None);
        let faces = world.child(first.id());
        close(&world, first.id());
        assert_eq!(parked(&world), 1);
        let (registry, its_faces) = (Arc::clone(&world.registry), Arc::clone(&faces));
        let (its_barrier, its_against) = (Arc::clone(&barrier), Arc::clone(&against));
        let other = thread::spawn("against", move || {
            its_barrier.wait();
            its_against(&registry, &its_faces);
        });
        barrier.wait();
        let session = world.open("ann", 0).unwrap();
        other.unwrap().join().expect("no panic");
        check(&world, &session, &faces);
        assert_eq!(parked(&world), 0);
        world.registry.close(session.id(), Cause::Idle, world.start);
        let key = (principal("ann"), server("a"));
        world.registry.starts.succeeded(&key);
        world.fakes.faces.lock().clear();
    }
    world.stop();
}

#[test]
fn taken_over_or_overdue_but_never_both() {
    let long_after = Instant::now() + PARK * 100;
    race(
        move |registry, _| registry.end_overdue_parked(long_after),
        |world, session, _| {
            // It has a child either way.
            let client = Client::default();
            client.post(session, &request("init", "initialize", CLIENT));
            assert_eq!(
                client.heard().len(),
                usize::from(session.tenancy().tenant == 1)
            );
            assert!(world.last_active(session.id()).is_some());
        },
    );
}

#[test]
fn no_session_stays_with_a_child_that_died_while_it_was_taken_over() {
    race(
        |_, faces| faces.exit(),
        |world, session, _| {
            if session.tenancy().tenant == 1 {
                assert_eq!(world.last_active(session.id()), None);
            }
        },
    );
}
