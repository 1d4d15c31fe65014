//! Children that nobody wants any more by the time they could start, or have started.

use super::*;

/// A world that does `then` to its registry at the hook that `at` sets, the first time.
fn world(
    hooks: Hooks,
    at: impl Fn(&mut Hooks, Hook),
    then: impl Fn(&Registry) + Send + Sync + 'static,
) -> World {
    let registry: Arc<OnceLock<Weak<Registry>>> = Arc::default();
    let its = Arc::clone(&registry);
    let mut hooks = hooks;
    let is_first = AtomicBool::new(true);
    at(
        &mut hooks,
        Box::new(move |_| {
            let registry = its.get().and_then(Weak::upgrade);
            if let Some(registry) = registry.filter(|_| is_first.swap(false, SeqCst)) {
                then(&registry);
            }
        }),
    );
    let world = World::with_hooks(UNLIMITED, hooks);
    let _ = registry.set(Arc::downgrade(&world.registry)); // it was empty
    world
}

/// Somebody's request waits for the child, and then they are revoked.
fn ask_and_revoke(client: &Arc<Client>) -> impl Fn(&Registry) + Send + Sync + 'static {
    let client = Arc::clone(client);
    move |registry| {
        let session = registry.find_shared(&principal("ann"), "a").unwrap();
        client.post(&session, &request("early", "prompts/list", "{}"));
        registry.close_principals(&[principal("ann")], Instant::now());
    }
}

fn share(world: &World) -> Result<Arc<Session>, OpenError> {
    let (principal, server) = (principal("ann"), server("a"));
    world.registry.share(&principal, &server, world.start)
}

#[test]
fn a_child_whose_user_was_revoked_while_it_started_is_told_nothing() {
    let client = Arc::new(Client::default());
    let at = |hooks: &mut Hooks, hook| hooks.spawned = Some(hook);
    let world = world(Hooks::default(), at, ask_and_revoke(&client));
    let session = share(&world).unwrap();
    assert_eq!(client.heard(), ["refused \"early\" EndedEarly"]);
    assert_eq!(world.child(session.id()).take_lines(), [""; 0]);
    client.post(&session, &request("late", "prompts/list", "{}"));
    assert_eq!(client.heard(), ["refused \"late\" EndedEarly"]);
    world.stop();
}

/// The same of a session of one client: `initialize` comes to it only afterwards, and is told to
/// come again, as there is no session that its client could have lost.
#[test]
fn an_initialize_whose_session_ended_while_it_started_may_come_again() {
    let ends: [fn(&Registry); 2] = [
        |registry| registry.close_principals(&[principal("ann")], Instant::now()),
        |registry| registry.drain(),
    ];
    for end in ends {
        let end_all = move |registry: &Registry| {
            end(registry);
            for session in registry.all() {
                registry.close_session(&session, &Cause::Shutdown, Instant::now());
            }
        };
        let at = |hooks: &mut Hooks, hook| hooks.spawned = Some(hook);
        let world = world(Hooks::default(), at, end_all);
        let session = world.open("ann", 0).unwrap();
        let client = Client::default();
        client.post(&session, &request("1", "initialize", CLIENT));
        assert_eq!(client.heard(), ["refused \"1\" EndedEarly"]);
        client.post(&session, &request("2", "tools/list", "{}"));
        assert_eq!(client.heard(), ["refused \"2\" SessionEnded"]);
        world.stop();
    }
}

#[test]
fn a_child_whose_user_was_revoked_before_is_not_started() {
    let client = Arc::new(Client::default());
    let at = |hooks: &mut Hooks, hook| hooks.spawning = Some(hook);
    let hooks = Hooks {
        asks: true,
        ..Hooks::default()
    };
    let world = world(hooks, at, ask_and_revoke(&client));
    assert_eq!(share(&world).unwrap_err(), OpenError::Lost);
    assert_eq!(client.heard(), ["refused \"early\" EndedEarly"]);
    assert!(world.fakes.faces.lock().is_empty());
    // That is nobody's fault.
    let registry = &world.registry;
    let again = registry.open(&principal("ann"), &server("a"), CLIENT, world.start);
    registry.close(again.unwrap().id(), Cause::Deleted, world.start);
    let registry = Arc::clone(&world.registry);
    within_deadline("stop", move || registry.stop());
}

#[test]
fn a_child_is_not_started_into_a_shutdown_or_for_want_of_memory() {
    static FREE: AtomicUsize = AtomicUsize::new(0);
    let check = |then: fn(&Registry), expected: OpenError| {
        FREE.store(100, SeqCst);
        let registry: Arc<OnceLock<Weak<Registry>>> = Arc::default();
        let its = Arc::clone(&registry);
        let hooks = Hooks {
            asks: true,
            spawning: Some(Box::new(move |_| {
                then(&its.get().and_then(Weak::upgrade).unwrap());
            })),
            ..Hooks::default()
        };
        let options = Options {
            min_free_memory: 100,
            free_memory: || Some(FREE.load(SeqCst) as u64),
            ..UNLIMITED
        };
        let world = World::with_hooks(options, hooks);
        let _ = registry.set(Arc::downgrade(&world.registry)); // it was empty
        assert_eq!(share(&world).unwrap_err(), expected);
        assert!(world.fakes.faces.lock().is_empty());
        assert_eq!(world.registry.active(), 0);
    };
    check(Registry::drain, OpenError::Draining);
    check(|_| FREE.store(99, SeqCst), OpenError::LowMemory);
}

#[test]
fn a_child_with_credentials_of_yesterday_serves_nobody() {
    let world = World::new(UNLIMITED);
    let with = |value: &str| {
        let env = BTreeMap::from([("KEY".to_owned(), value.to_owned())]);
        let env = Arc::new(env);
        Principal {
            email: None,
            env,
            grant: None,
            ..principal("ann")
        }
    };
    let (old, new) = (with("old"), with("new"));
    let share = |principal| {
        let shared = world.registry.share(principal, &server("a"), world.start);
        shared.unwrap()
    };
    let before = share(&old);
    assert!(Arc::ptr_eq(&share(&old), &before));
    assert!(world.registry.find_shared(&new, "a").is_none());
    let after = share(&new);
    assert!(!Arc::ptr_eq(&after, &before));
    assert_eq!(world.registry.active(), 1);
    wait_until("its child stops", || world.fakes.count("stop") == 1);
    let found = world.registry.find_shared(&new, "a").unwrap();
    assert!(Arc::ptr_eq(&found, &after));
    assert!(world.registry.find_shared(&old, "a").is_none());
    // Nor does anybody remember them.
    let sessions = world.registry.sessions.lock();
    let keys: Vec<_> = sessions.shared.keys().map(|key| key.env.clone()).collect();
    assert_eq!(keys, [new.env]);
    drop(sessions);
    world.stop();
}

/// Who ends a session that has ended already does not end the one that has its id now.
#[test]
fn an_id_that_is_used_again_is_no_way_to_end_the_wrong_session() {
    let world = World::new(UNLIMITED);
    let before = share(&world).unwrap();
    let close = |session| {
        let registry = &world.registry;
        registry.close_session(session, &Cause::Revoked, world.start);
    };
    close(&before);
    let after = share(&world).unwrap();
    assert_eq!(after.id(), before.id());
    close(&before);
    assert_eq!(world.left(&[("after", &after)]), ["after"]);
    after.touch(world.at(5));
    after.touch(world.at(3));
    assert_eq!(after.last_asked(), world.at(5));
    world.stop();
}
