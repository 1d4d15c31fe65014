//! The session that all modern requests of a principal share.

mod races;

use std::sync::Barrier;

use super::*;
use crate::thread;

const META: &str = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
fn modern(id: &str) -> String {
    request(id, "prompts/list", &format!(r#"{{"_meta":{META}}}"#))
}

/// A world whose bridges are served as by their reader threads.
fn world(options: Options) -> World {
    let hooks = Hooks {
        serves: true,
        ..Hooks::default()
    };
    World::with_hooks(options, hooks)
}

fn share(world: &World, user: &str, on: &str) -> Result<Arc<Session>, OpenError> {
    world
        .registry
        .share(&principal(user), &server(on), world.start)
}

/// Does what `http` does with a request: finds the session or opens it, and goes in.
fn bring(registry: &Registry, user: &str, now: Instant, client: &Client, id: &str) -> Arc<Session> {
    let (principal, server) = (principal(user), server("a"));
    loop {
        let found = registry.find_shared(&principal, &server);
        let session = match found {
            Some(session) => session,
            None => registry.share(&principal, &server, now).expect("room"),
        };
        let is_in = session.visit(now).is_some_and(|visit| {
            client.post(&session, &modern(id));
            drop(visit);
            true
        });
        if is_in {
            return session;
        }
    }
}

/// The child answers the one request that it has got.
fn answer(world: &World, id: &str) {
    let child = world.child(id);
    let lines = child.take_lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let message = crate::jsonrpc::parse(&lines[0]).unwrap();
    let no = message.id_text;
    child.say(&format!(
        r#"{{"jsonrpc":"2.0","id":{no},"result":{{"prompts":[]}}}}"#
    ));
}

fn answered(id: &str) -> String {
    format!(r#"answered {{"jsonrpc":"2.0","id":"{id}","result":{{"prompts":[]}}}}"#)
}

/// Runs `f` on so many threads at once.
fn at_once<T: Send + 'static>(
    count: usize,
    f: impl Fn(usize) -> T + Send + Sync + 'static,
) -> Vec<T> {
    let (barrier, f) = (Arc::new(Barrier::new(count)), Arc::new(f));
    let run = |n| {
        let (barrier, f) = (Arc::clone(&barrier), Arc::clone(&f));
        thread::spawn(format!("at once {n}"), move || {
            barrier.wait();
            f(n)
        })
        .unwrap()
    };
    let threads: Vec<_> = (0..count).map(run).collect();
    let results = threads.into_iter().map(|thread| thread.join());
    results.map(|it| it.expect("no panic")).collect()
}

#[test]
fn many_first_requests_start_one_child() {
    let world = world(Options {
        max_sessions: 1,
        ..UNLIMITED
    });
    let (registry, now) = (Arc::clone(&world.registry), world.start);
    let seen = at_once(32, move |n| {
        let client = Client::default();
        let session = bring(&registry, "ann", now, &client, &n.to_string());
        (session.id().to_owned(), client)
    });
    assert_eq!(world.fakes.count("start"), 1);
    assert_eq!(world.registry.active(), 1);
    let (id, _) = &seen[0];
    assert!(seen.iter().all(|(other, _)| other == id));
    // The eight that fit are in flight, and each gets its own answer.
    let child = world.child(id);
    let queued = Arc::clone(&child);
    let writer = thread::spawn_brief("w", move || queued.write_queued()).unwrap();
    let refused = || seen.iter().filter(|it| it.1.is_told()).count();
    wait_until("all requests are taken or refused", || {
        child.lines.lock().len() + refused() == 32
    });
    let lines = child.take_lines();
    assert_eq!(lines.len(), 8);
    for line in &lines {
        let no = crate::jsonrpc::parse(line).unwrap().id_text;
        child.say(&format!(
            r#"{{"jsonrpc":"2.0","id":{no},"result":{{"prompts":[]}}}}"#
        ));
    }
    let heard = seen.iter().enumerate().map(|(n, (_, client))| {
        let heard = client.heard();
        let is_refused = heard == [format!("refused \"{n}\" TooManyInFlight")];
        (heard == [answered(&n.to_string())], is_refused)
    });
    let heard: Vec<_> = heard.collect();
    assert_eq!(heard.iter().filter(|it| it.0).count(), 8, "{heard:?}");
    assert_eq!(heard.iter().filter(|it| it.1).count(), 24, "{heard:?}");
    world.stop();
    drop(writer);
}

#[test]
fn those_who_come_while_it_starts_wait_for_the_same_child() {
    let (starting, is_starting) = crossbeam_channel::bounded(1);
    let (go, may_go) = crossbeam_channel::bounded::<()>(0);
    let world = World::with_hooks(
        UNLIMITED,
        Hooks {
            serves: true,
            spawning: Some(Box::new(move |_| {
                let _ = starting.send(()); // once somebody waits for it
                let _ = may_go.recv_timeout(DEADLINE);
            })),
            ..Hooks::default()
        },
    );
    let (registry, now) = (Arc::clone(&world.registry), world.start);
    let first = thread::spawn("first", move || {
        let client = Client::default();
        bring(&registry, "ann", now, &client, "1");
        client
    })
    .unwrap();
    is_starting.recv_timeout(DEADLINE).unwrap();
    let client = Client::default();
    let session = bring(&world.registry, "ann", world.start, &client, "2");
    assert_eq!(client.heard(), [""; 0]);
    go.send_timeout((), DEADLINE).unwrap();
    let first = first.join().unwrap();
    let child = world.child(session.id());
    wait_until("both are in flight", || session.in_flight() == 2);
    let lines = child.take_lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    for line in &lines {
        let no = crate::jsonrpc::parse(line).unwrap().id_text;
        child.say(&format!(
            r#"{{"jsonrpc":"2.0","id":{no},"result":{{"prompts":[]}}}}"#
        ));
    }
    assert_eq!(first.heard(), [answered("1")]);
    assert_eq!(client.heard(), [answered("2")]);
    assert_eq!(world.fakes.count("start"), 1);
    world.stop();
}

#[test]
fn when_the_start_fails_all_are_told_and_the_place_is_free() {
    let world = world(Options {
        max_sessions: 1,
        ..UNLIMITED
    });
    world.fakes.spawn_fails.store(true, SeqCst);
    for _ in 0..3 {
        let why = OpenError::Spawn("no such program".to_owned());
        assert_eq!(share(&world, "ann", "a").unwrap_err(), why);
        assert_eq!(world.registry.active(), 0);
        assert!(world.registry.find_shared(&principal("ann"), "a").is_none());
    }
    world.fakes.spawn_fails.store(false, SeqCst);
    share(&world, "ann", "a").unwrap();
    assert_eq!(share(&world, "bob", "a").unwrap_err(), OpenError::Full);
    let registry = Arc::clone(&world.registry);
    within_deadline("stop", move || registry.stop()); // no spawn is taken to be under way
}

#[test]
fn principals_and_servers_never_share() {
    let world = world(UNLIMITED);
    let sessions = [("ann", "a"), ("ann", "b"), ("bob", "a"), ("bob", "b")]
        .map(|(user, on)| share(&world, user, on).unwrap());
    let ids: std::collections::HashSet<&str> = sessions.iter().map(|it| it.id()).collect();
    assert_eq!(ids.len(), 4);
    assert_eq!(world.fakes.count("start"), 4);
    // Again, they are found.
    let again = share(&world, "bob", "a").unwrap();
    assert!(Arc::ptr_eq(&again, &sessions[2]));
    // Also somebody who was given the name of another does not find that one's.
    let mut namesake = principal("ann");
    namesake.subject = "somebody else".into();
    assert!(world.registry.find_shared(&namesake, "a").is_none());
    world.stop();
}

#[test]
fn its_id_is_unknown_to_everybody() {
    let world = world(UNLIMITED);
    let session = share(&world, "ann", "a").unwrap();
    for user in ["ann", "bob"] {
        let find = |on| world.registry.find(session.id(), &principal(user), on);
        assert_eq!(find("a").map(drop).unwrap_err(), FindError::Unknown);
        assert_eq!(find("b").map(drop).unwrap_err(), FindError::Unknown);
        let revived = world.registry.revive(
            session.id(),
            &principal(user),
            &server("a"),
            true,
            world.start,
        );
        assert_eq!(revived.map(drop).unwrap_err(), OpenError::Ended);
    }
    assert!(world.registry.find_shared(&principal("ann"), "a").is_some());
    world.stop();
}

#[test]
fn it_is_neither_kept_nor_parked() {
    let state = TempDir::new();
    let policy = Policy {
        park: Some(Duration::from_secs(60)),
        revive: Some(Duration::from_secs(600)),
        keeps_old_token: false,
    };
    let options = Options {
        idle_timeout: Some(IDLE),
        ..UNLIMITED
    };
    let hooks = Hooks {
        serves: true,
        ..Hooks::default()
    };
    let world = World::with(options, hooks, policy, Some(state.path()));
    let client = Client::default();
    let session = bring(&world.registry, "ann", world.start, &client, "1");
    answer(&world, session.id());
    world.registry.tick(world.start + IDLE);
    assert_eq!(world.registry.active(), 0);
    wait_until("its child stops", || world.fakes.count("stop") == 1);
    assert_eq!(state.records(), [""; 0]);
    world.stop();
}

#[test]
fn it_counts_under_the_caps_and_makes_room() {
    let world = world(Options {
        max_sessions: 3,
        max_sessions_per_user: 2,
        ..UNLIMITED
    });
    let client = Client::default();
    let shared = bring(&world.registry, "ann", world.start, &client, "1");
    answer(&world, shared.id());
    assert_eq!(client.heard(), [answered("1")]);
    let (own, _) = world.begin("ann", 10, None);
    let (other, _) = world.begin("bob", 10, None);
    assert_eq!(share(&world, "cid", "a").unwrap_err(), OpenError::Full);
    // The stalest makes room, whatever it is.
    let newer = world.begin("ann", 20, None).0;
    let all = [
        ("shared", &shared),
        ("own", &own),
        ("other", &other),
        ("newer", &newer),
    ];
    assert_eq!(world.left(&all), ["own", "other", "newer"]);
    let again = bring(&world.registry, "ann", world.at(30), &client, "1");
    assert_eq!(world.left(&all), ["shared", "other", "newer"]);
    assert_eq!(again.id(), shared.id());
    // One with a request in flight is spared.
    newer.touch(world.at(90));
    world.open("ann", 100).unwrap();
    assert_eq!(world.left(&[("newer", &newer)]), [""; 0]);
    assert_eq!(client.heard(), [""; 0]);
    answer(&world, again.id());
    assert_eq!(client.heard(), [answered("1")]);
    world.stop();
}

#[test]
fn who_waits_when_it_is_evicted_is_told() {
    let world = world(Options {
        max_sessions_per_user: 1,
        ..UNLIMITED
    });
    let client = Client::default();
    bring(&world.registry, "ann", world.start, &client, "1");
    world.open("ann", 1).unwrap();
    let heard = client.heard();
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert!(heard[0].contains("-32603"), "{heard:?}");
    world.stop();
}

#[test]
fn without_use_it_ends_and_the_next_request_opens_another() {
    let world = world(Options {
        idle_timeout: Some(IDLE),
        ..UNLIMITED
    });
    let client = Client::default();
    let session = bring(&world.registry, "ann", world.start, &client, "1");
    // In use for as long as somebody waits.
    world.registry.tick(world.start + IDLE * 2);
    assert_eq!(world.registry.active(), 1);
    answer(&world, session.id());
    world.registry.tick(world.start + IDLE * 2);
    assert_eq!(world.registry.active(), 1, "it was used a moment ago");
    world.registry.tick(world.start + IDLE * 3);
    assert_eq!(world.registry.active(), 0);
    assert!(session.visit(world.start).is_none());
    let next = bring(&world.registry, "ann", world.start + IDLE * 3, &client, "2");
    assert!(!Arc::ptr_eq(&session, &next));
    answer(&world, next.id());
    assert_eq!(client.heard(), [answered("1"), answered("2")]);
    assert_eq!(world.fakes.count("start"), 2);
    world.stop();
}

#[test]
fn an_open_subscription_is_use() {
    let world = world(Options {
        idle_timeout: Some(IDLE),
        ..UNLIMITED
    });
    let session = share(&world, "ann", "a").unwrap();
    let client = Client::default();
    let params = format!(r#"{{"notifications":{{}},"_meta":{META}}}"#);
    client.post(&session, &request("l", "subscriptions/listen", &params));
    assert_eq!(session.in_flight(), 0);
    world.registry.tick(world.start + IDLE * 2);
    assert_eq!(world.registry.active(), 1);
    session.gone(Client::CONNECTION);
    world.registry.tick(world.start + IDLE * 4);
    assert_eq!(world.registry.active(), 0);
    world.stop();
}

#[test]
fn it_ends_with_its_user_and_nobody_elses_does() {
    let world = world(UNLIMITED);
    let ours = share(&world, "ann", "a").unwrap();
    let (other, own) = (
        share(&world, "bob", "a").unwrap(),
        world.open("bob", 0).unwrap(),
    );
    let client = Client::default();
    bring(&world.registry, "ann", world.start, &client, "1");
    world
        .registry
        .close_principals(&[principal("ann")], world.start);
    let all = [("ours", &ours), ("other", &other), ("own", &own)];
    assert_eq!(world.left(&all), ["other", "own"]);
    assert!(world.registry.find_shared(&principal("ann"), "a").is_none());
    let heard = client.heard();
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert!(heard[0].contains("was stopped"), "{heard:?}");
    // Somebody with the same token again is somebody new.
    let again = share(&world, "ann", "a").unwrap();
    assert_ne!(again.id(), ours.id());
    world.stop();
}

#[test]
fn when_its_child_ends_the_next_request_starts_another() {
    let world = world(UNLIMITED);
    let client = Client::default();
    let session = bring(&world.registry, "ann", world.start, &client, "1");
    world.child(session.id()).exit();
    let heard = client.heard();
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert!(heard[0].contains("exit status 1"), "{heard:?}");
    let next = bring(&world.registry, "ann", world.start, &client, "2");
    assert!(!Arc::ptr_eq(&session, &next));
    answer(&world, next.id());
    assert_eq!(client.heard(), [answered("2")]);
    world.stop();
}

#[test]
fn one_whose_child_keeps_dying_is_not_opened_again_and_again() {
    let world = world(UNLIMITED);
    for _ in 0..3 {
        let session = share(&world, "ann", "a").unwrap();
        world.child(session.id()).exit();
    }
    let now = Instant::now();
    let refused = world.registry.share(&principal("ann"), &server("a"), now);
    assert!(
        matches!(refused, Err(OpenError::Pause { .. })),
        "{refused:?}"
    );
    assert_eq!(world.fakes.count("start"), 3);
    share(&world, "ann", "b").unwrap();
    share(&world, "bob", "a").unwrap();
    world.stop();
}

#[test]
fn a_draining_registry_shares_what_is_there_and_opens_nothing() {
    let world = world(UNLIMITED);
    share(&world, "ann", "a").unwrap();
    world.registry.drain();
    assert!(share(&world, "ann", "a").is_ok());
    assert_eq!(share(&world, "bob", "a").unwrap_err(), OpenError::Draining);
    let client = Client::default();
    bring(&world.registry, "ann", world.start, &client, "1");
    assert_eq!(client.heard(), ["refused \"1\" Draining"]);
    world.stop();
}
