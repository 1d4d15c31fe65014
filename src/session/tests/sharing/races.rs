//! Requests that come when the session is just being ended for want of use.

use super::*;

/// How often a race is run.
const ROUNDS: usize = 200;

/// A visit keeps it open between being found and being given the request.
#[test]
fn nobody_is_shut_out_who_is_in() {
    let world = world(Options {
        idle_timeout: Some(IDLE),
        ..UNLIMITED
    });
    let session = share(&world, "ann", "a").unwrap();
    let visit = session.visit(world.start).unwrap();
    world.registry.tick(world.start + IDLE);
    assert_eq!(world.registry.active(), 1);
    drop(visit);
    world.registry.tick(world.start + IDLE);
    assert_eq!(world.registry.active(), 0);
    world.stop();
}

#[test]
fn a_request_at_the_very_end_is_neither_refused_nor_lost() {
    let world = world(Options {
        // What is not in use at this very moment ends.
        idle_timeout: Some(Duration::ZERO),
        ..UNLIMITED
    });
    let registry = Arc::clone(&world.registry);
    let is_over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (its_over, late) = (Arc::clone(&is_over), world.start + IDLE);
    let reaper = thread::spawn("reaper", move || {
        while !its_over.load(SeqCst) {
            registry.tick(late);
        }
    })
    .unwrap();
    let client = Client::default();
    for n in 0..ROUNDS {
        let id = n.to_string();
        let session = bring(&world.registry, "ann", world.start, &client, &id);
        let child = world.child(session.id());
        let mut lines = Vec::new();
        wait_until("the child has it", || !child.lines.lock().is_empty());
        lines.append(&mut child.take_lines());
        assert_eq!(lines.len(), 1, "{lines:?}");
        let no = crate::jsonrpc::parse(&lines[0]).unwrap().id_text;
        child.say(&format!(
            r#"{{"jsonrpc":"2.0","id":{no},"result":{{"prompts":[]}}}}"#
        ));
        assert_eq!(client.heard(), [answered(&id)]);
        // Sometimes the reaper comes first, sometimes the next request.
        if n % 2 == 0 {
            let is_there = || world.registry.active() > 0;
            wait_until("it ends", || !is_there());
        }
    }
    is_over.store(true, SeqCst);
    reaper.join().unwrap();
    assert!(world.fakes.count("start") > ROUNDS / 2);
    world.stop();
}

#[test]
fn many_requests_at_the_very_end_find_one_child() {
    for _ in 0..ROUNDS {
        let world = world(Options {
            idle_timeout: Some(IDLE),
            max_sessions: 1,
            ..UNLIMITED
        });
        share(&world, "ann", "a").unwrap();
        let (registry, now) = (Arc::clone(&world.registry), world.start);
        let seen = at_once(4, move |n| {
            let client = Client::default();
            if n == 0 {
                registry.tick(now + IDLE);
            } else {
                bring(&registry, "ann", now, &client, &n.to_string());
            }
            client
        });
        let refused: Vec<_> = seen.iter().flat_map(Client::heard).collect();
        assert_eq!(refused, [""; 0]);
        let session = world.registry.find_shared(&principal("ann"), "a").unwrap();
        // One that has been entered and is not written yet counts twice.
        let in_flight = session.in_flight();
        assert!((3..=6).contains(&in_flight), "{in_flight}");
        assert!(world.fakes.count("start") <= 2);
        world.stop();
    }
}
