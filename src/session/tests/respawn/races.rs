//! Two things at once: a new child takes over, and something else happens.

use super::*;

/// Requests come without a break while one token follows another: each is answered once, by one
/// child, and none is refused.
#[test]
fn no_request_is_lost_or_answered_twice() {
    const EACH: usize = 60;
    let world = world();
    let (session, client) = world.begin("ann", 0, None);
    client.heard();
    let is_done = AtomicBool::new(false);
    let calls = AtomicUsize::new(0);
    let ask = |who: usize| {
        let client = Client::default();
        for n in 0..EACH {
            let id = format!("{who}-{n}");
            client.post_from(100, &session, &request(&id, "m", "{}"));
            wait_until("an answer", || client.is_told());
            let answer = format!(r#"json - {{"jsonrpc":"2.0","id":"{id}","result":{{}}}}"#);
            assert_eq!(client.heard(), [answer]);
            calls.fetch_add(1, SeqCst);
        }
    };
    std::thread::scope(|scope| {
        let asking = [1, 2].map(|who| scope.spawn(move || ask(who)));
        scope.spawn(|| serve_all(&world, &is_done));
        scope.spawn(|| {
            for n in 1.. {
                if is_done.load(SeqCst) {
                    return;
                }
                world.refresh();
                world.registry.tick(world.at(n * 60));
                world.settle();
            }
        });
        let asked = asking.map(|it| it.join());
        is_done.store(true, SeqCst);
        asked.into_iter().for_each(|it| it.unwrap());
    });
    assert_eq!(calls.load(SeqCst), 2 * EACH);
    world.settle();
    world.stop();
}

/// All children answer whatever they are asked.
fn serve_all(world: &World, is_done: &AtomicBool) {
    while !is_done.load(SeqCst) {
        let all = world.fakes.all_faces.lock().clone();
        for child in all {
            for line in child.take_lines() {
                let message = jsonrpc::parse(&line).unwrap();
                if message.method == "m" {
                    child.say(&jsonrpc::result_response(message.id_text, "{}"));
                }
            }
        }
        std::thread::yield_now();
    }
}

/// Whoever was revoked while their new child started has neither it nor the old one.
#[test]
fn who_is_revoked_meanwhile_has_no_child_at_all() {
    let (spawning, is_spawning, go_on) = gate();
    let hooks = Hooks {
        respawning: Some(spawning),
        ..Hooks::default()
    };
    let world = world_with(hooks, Policy::default());
    let (session, client) = world.begin("ann", 0, None);
    client.heard();
    world.refresh();
    world.registry.tick(world.at(1));
    is_spawning.recv_timeout(DEADLINE).unwrap();
    world
        .registry
        .close_principals(&[principal("ann")], world.at(1));
    go_on.send(()).unwrap();
    world.settle();
    assert_eq!(world.find(session.id(), "ann", 1), Err(FindError::Unknown));
    client.post(&session, &request("1", "m", "{}"));
    assert_eq!(client.heard(), [r#"refused "1" SessionEnded"#]);
    world.stop();
}

/// At whatever moment: nothing of it is left, and whoever asks is told.
#[test]
fn an_end_at_any_moment_leaves_nothing() {
    type End = fn(&World, &str);
    let ends: [End; 4] = [
        |world, id| close(world, id),
        |world, _| {
            let revoked = [principal("ann")];
            world.registry.close_principals(&revoked, world.start);
        },
        |world, id| world.fakes.end_child(id),
        |world, _| world.registry.drain(),
    ];
    for (n, end) in ends.iter().enumerate() {
        for round in 0..50_u32 {
            let world = world();
            let (session, client) = world.begin("ann", 0, None);
            client.listen(&session);
            world.refresh();
            world.registry.tick(world.at(1));
            for _ in 0..round * 40 {
                std::hint::spin_loop();
            }
            if round % 3 == 0 {
                wait_until("a new child", || world.fakes.count("start") == 2);
            }
            end(&world, session.id());
            client.heard();
            client.post_from(8, &session, &request("1", "m", "{}"));
            world.settle();
            world.stop();
            assert!(client.is_told(), "{n}");
            assert!(world.registry.sessions.lock().respawns.len() <= 1);
        }
    }
}

/// The broker stops while a new child is being started.
#[test]
fn a_stop_waits_for_the_new_child_and_ends_it() {
    for round in 0..100_u32 {
        let world = world();
        let _sessions = [0, 1, 2].map(|_| world.begin("ann", 0, None));
        world.refresh();
        world.registry.tick(world.at(1));
        for _ in 0..round * 20 {
            std::hint::spin_loop();
        }
        world.stop();
    }
}
