//! Sessions without a child: who can have them back, what a new child is told, and what ends them
//! for good.

mod races;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::ending::gate;
use super::*;

const REVIVING: Policy = Policy {
    revive: Some(Duration::from_hours(24)),
    park: None,
    keeps_old_token: false,
};
pub(super) const USE: bool = true;
const LISTENING: bool = false;

fn world(options: Options, dir: &TempDir) -> World {
    world_with(options, Hooks::default(), dir)
}

fn world_with(options: Options, hooks: Hooks, dir: &TempDir) -> World {
    let hooks = Hooks {
        serves: true,
        ..hooks
    };
    World::with(options, hooks, REVIVING, Some(dir.path()))
}

impl World {
    fn revive(&self, id: &str, is_use: bool, seconds: u64) -> Result<Arc<Session>, OpenError> {
        let now = self.at(seconds);
        self.registry
            .revive(id, &principal("ann"), &server("a"), is_use, now)
    }

    /// Does as a child does that is told what the one before it knew; gives what it was told.
    pub(super) fn play(&self, id: &str) -> Vec<String> {
        let child = self.child(id);
        let first = child.next();
        let no = first[0].split('"').nth(7).unwrap();
        let answer = format!(r#"{{"jsonrpc":"2.0","id":"{no}","result":{RESULT}}}"#);
        child.say(&answer);
        [first, child.next()].concat()
    }

    fn is_resting(&self, id: &str) -> bool {
        matches!(
            self.registry.find(id, &principal("ann"), "a"),
            Ok(Found::Resting)
        )
    }
}

/// Answers `id` in the child of this session.
fn answer(world: &World, session: &Session, id: &str) {
    let answer = format!(r#"{{"jsonrpc":"2.0","id":"{id}","result":{{}}}}"#);
    world.child(session.id()).say(&answer);
}

#[test]
fn a_request_that_is_just_too_late_shall_come_again() {
    let dir = TempDir::new();
    let world = world(UNLIMITED, &dir);
    for (cause, why) in [(Cause::Idle, "Resting"), (Cause::Deleted, "SessionEnded")] {
        let (session, client) = world.begin("ann", 0, None);
        client.heard();
        world.registry.close(session.id(), cause, world.at(1));
        // It had found the session just before.
        client.post(&session, &request("1", "ping", "{}"));
        assert_eq!(client.heard(), [format!("refused \"1\" {why}")]);
    }
    world.stop();
}

#[test]
fn a_new_child_is_told_what_the_old_one_knew() {
    let dir = TempDir::new();
    let world = world(
        Options {
            idle_timeout: Some(IDLE),
            ..UNLIMITED
        },
        &dir,
    );
    let (session, client) = world.begin("ann", 0, None);
    let id = session.id();
    for (no, method, params) in [
        ("1", "logging/setLevel", r#"{"level":"debug"}"#),
        ("2", "resources/subscribe", r#"{"uri":"x:1"}"#),
        ("3", "resources/subscribe", r#"{"uri":"x:2"}"#),
        ("4", "resources/unsubscribe", r#"{"uri":"x:1"}"#),
    ] {
        client.post(&session, &request(no, method, params));
        answer(&world, &session, no);
    }
    client.heard();
    world.registry.tick(world.at(1800));
    assert!(world.is_resting(id));
    let revived = world.revive(id, USE, 4000).unwrap();
    assert_eq!((revived.id(), revived.last_active()), (id, world.at(4000)));
    client.post(&revived, &request("5", "tools/list", "{}"));
    client.post(&revived, &request("6", "tools/list", "{}"));
    let label = session.label();
    assert_eq!(
        world.play(id),
        [
            request(
                &format!("mcp-broker/{label}/initialize"),
                "initialize",
                CLIENT
            ),
            INITIALIZED.to_owned(),
            request(
                &format!("mcp-broker/{label}/0"),
                "logging/setLevel",
                r#"{"level":"debug"}"#
            ),
            request(
                &format!("mcp-broker/{label}/1"),
                "resources/subscribe",
                r#"{"uri":"x:2"}"#
            ),
        ]
    );
    let child = world.child(id);
    assert_eq!(child.next(), [request("5", "tools/list", "{}")]);
    assert_eq!(child.next(), [request("6", "tools/list", "{}")]);
    answer(&world, &revived, "5");
    assert_eq!(
        client.heard(),
        [r#"json - {"jsonrpc":"2.0","id":"5","result":{}}"#]
    );
    assert_eq!(world.fakes.count("start"), 2);
    world.stop();
    assert_eq!(dir.records().len(), 1);
}

#[test]
fn a_session_outlives_its_broker() {
    let dir = TempDir::new();
    let first = world(UNLIMITED, &dir);
    let (session, _) = first.begin("ann", 0, None);
    let id = session.id().to_owned();
    drop(first); // as by SIGKILL: nothing is said or done
    let next = world(UNLIMITED, &dir);
    assert!(next.is_resting(&id));
    let find = |user: &str, on: &str| next.registry.find(&id, &principal(user), on).map(drop);
    assert_eq!(find("bob", "a"), Err(FindError::Foreign));
    assert_eq!(find("bob", "b"), Err(FindError::Foreign));
    assert_eq!(find("ann", "b"), Err(FindError::Unknown));
    assert_eq!(next.fakes.count("start"), 0);
    next.revive(&id, USE, 0).unwrap();
    assert_eq!(next.play(&id).len(), 2);
    next.stop();
    let last = world(UNLIMITED, &dir);
    assert!(last.is_resting(&id));
}

/// What a client was told, it can rely on: first it is written, then it is said.
#[test]
fn the_record_is_there_before_the_client_knows_its_session() {
    let dir = TempDir::new();
    let world = world(UNLIMITED, &dir);
    let (session, client) = (world.open("ann", 0).unwrap(), Client::default());
    let path = dir.path().join("sessions");
    client.watch(move || std::fs::read_dir(&path).unwrap().count());
    client.post(&session, &request("init", "initialize", CLIENT));
    let answer = format!(r#"{{"jsonrpc":"2.0","id":"init","result":{RESULT}}}"#);
    world.child(session.id()).say(&answer);
    assert_eq!(client.seen(), [1]);
    world.stop();
}

#[test]
fn a_get_wakes_no_idle_session_and_makes_none_younger() {
    let dir = TempDir::new();
    let options = Options {
        idle_timeout: Some(IDLE),
        ..UNLIMITED
    };
    let (spawning, is_spawning, go_on) = gate();
    let world = world_with(
        options,
        Hooks {
            respawning: Some(spawning),
            ..Hooks::default()
        },
        &dir,
    );
    let (session, client) = world.begin("ann", 0, None);
    let id = session.id();
    world.child(id).exit();
    let revived = std::thread::scope(|scope| {
        let reviving = scope.spawn(|| world.revive(id, LISTENING, 1000));
        is_spawning.recv_timeout(DEADLINE).unwrap();
        world.registry.tick(world.at(1100)); // a client that listens is none that waits
        go_on.send(()).unwrap();
        reviving.join().unwrap().unwrap()
    });
    client.listen(&revived);
    world.registry.tick(world.at(1200));
    world.play(id);
    world.registry.tick(world.at(1300));
    assert_eq!(revived.last_active(), world.at(0));
    // Nor does what was written down meanwhile.
    let (_, noted) = world.registry.records.as_ref().unwrap().find(id).unwrap();
    assert_eq!(noted, world.registry.calendar.wall(world.at(0)));
    world.registry.tick(world.at(1800));
    assert_eq!(world.registry.active(), 0);
    assert_eq!(
        world.revive(id, LISTENING, 1801).unwrap_err(),
        OpenError::Asleep
    );
    go_on.send(()).unwrap();
    assert!(world.revive(id, USE, 9000).is_ok());
    world.stop();
}

#[test]
fn what_comes_while_the_child_starts_is_served_in_order() {
    let dir = TempDir::new();
    let (spawning, is_spawning, go_on) = gate();
    let hooks = Hooks {
        respawning: Some(spawning),
        ..Hooks::default()
    };
    let world = world_with(UNLIMITED, hooks, &dir);
    let (session, client) = world.begin("ann", 0, None);
    let id = session.id();
    world.registry.close(id, Cause::Idle, world.at(0));
    let gone = Client::default();
    std::thread::scope(|scope| {
        let reviving = scope.spawn(|| world.revive(id, USE, 0));
        is_spawning.recv_timeout(DEADLINE).unwrap();
        let early = world.revive(id, USE, 0).unwrap();
        (0..31).for_each(|n| client.post(&early, &request(&n.to_string(), "m", "{}")));
        gone.post_from(8, &early, &request("gone", "m", "{}"));
        early.gone(8);
        assert_eq!(gone.heard(), ["dropped"]);
        client.post(&early, &request("31", "m", "{}"));
        client.post(&early, &request("32", "m", "{}"));
        assert_eq!(client.heard(), [r#"refused "32" TooManyInFlight"#]);
        go_on.send(()).unwrap();
        reviving.join().unwrap().unwrap();
    });
    world.play(id);
    for n in 0..8 {
        assert_eq!(world.child(id).next(), [request(&n.to_string(), "m", "{}")]);
    }
    world.stop();
}

/// What waits goes to the bridge just when more comes.
#[test]
fn what_comes_when_the_child_has_started_overtakes_nothing() {
    let dir = TempDir::new();
    let posted = Arc::new(AtomicUsize::new(0));
    let some_posted = Arc::clone(&posted);
    let spawning = move |_: &str| {
        wait_until("posts", || some_posted.load(SeqCst) >= 8);
    };
    let hooks = Hooks {
        respawning: Some(Box::new(spawning)),
        ..Hooks::default()
    };
    let world = world_with(UNLIMITED, hooks, &dir);
    let (session, client) = world.begin("ann", 0, None);
    let id = session.id();
    let line = |n: usize| format!(r#"{{"jsonrpc":"2.0","method":"m","params":{{"n":{n}}}}}"#);
    for _ in 0..100 {
        world.registry.close(id, Cause::Idle, world.at(0));
        posted.store(0, SeqCst);
        std::thread::scope(|scope| {
            scope.spawn(|| world.revive(id, USE, 0).unwrap());
            let early = loop {
                if let Ok(Found::Running(early)) = world.registry.find(id, &principal("ann"), "a") {
                    break early;
                }
            };
            for n in 0..24 {
                client.post(&early, &line(n));
                posted.store(n, SeqCst);
            }
        });
        world.play(id);
        (0..24).for_each(|n| assert_eq!(world.child(id).next(), [line(n)]));
        assert_eq!(client.heard(), ["accepted"; 24]);
    }
    world.stop();
}

#[test]
fn a_child_that_cannot_be_started_leaves_the_session_at_rest() {
    let dir = TempDir::new();
    let (spawning, is_spawning, go_on) = gate();
    let hooks = Hooks {
        respawning: Some(spawning),
        ..Hooks::default()
    };
    let world = world_with(UNLIMITED, hooks, &dir);
    let (session, client) = world.begin("ann", 0, None);
    let id = session.id();
    world.registry.close(id, Cause::Idle, world.at(0));
    world.fakes.spawn_fails.store(true, SeqCst);
    let why = OpenError::Spawn("no such program".to_owned());
    std::thread::scope(|scope| {
        let reviving = scope.spawn(|| world.revive(id, USE, 0));
        is_spawning.recv_timeout(DEADLINE).unwrap();
        let early = world.revive(id, USE, 0).unwrap();
        client.post(&early, &request("1", "m", "{}"));
        go_on.send(()).unwrap();
        assert_eq!(reviving.join().unwrap().unwrap_err(), why);
        client.post(&early, &request("2", "m", "{}"));
    });
    let refused = |id| format!("refused \"{id}\" StartFailed(\"no such program\")");
    assert_eq!(client.heard(), [refused(1), refused(2)]);
    assert!(world.is_resting(id));
    world.fakes.spawn_fails.store(false, SeqCst);
    go_on.send(()).unwrap();
    assert!(world.revive(id, USE, 0).is_ok());
    assert_eq!(world.registry.active(), 1);
    let registry = Arc::clone(&world.registry);
    within_deadline("stop", move || registry.stop());
}

#[test]
fn a_child_that_is_another_leaves_the_session_at_rest() {
    let dir = TempDir::new();
    let world = world(UNLIMITED, &dir);
    let (session, client) = world.begin("ann", 0, None);
    let id = session.id();
    let other = r#""result":{"protocolVersion":"2024-11-05"}"#;
    for answer in [other, r#""error":{"code":-1,"message":"no"}"#] {
        world.registry.close(id, Cause::Idle, world.at(0));
        let revived = world.revive(id, USE, 0).unwrap();
        client.post(&revived, &request("1", "m", "{}"));
        let child = world.child(id);
        child.next();
        let no = format!("mcp-broker/{}/initialize", session.label());
        child.say(&format!(r#"{{"jsonrpc":"2.0","id":"{no}",{answer}}}"#));
        assert!(child.outbound.lock().next().is_none());
        let heard = client.heard();
        assert!(
            heard[0].starts_with("refused \"1\" StartFailed"),
            "{heard:?}"
        );
        assert!(world.is_resting(id), "{answer}");
        assert_eq!(world.registry.active(), 0);
    }
    world.revive(id, USE, 0).unwrap();
    assert_eq!(world.play(id).len(), 2);
    world.stop();
}

#[test]
fn what_ends_for_good_is_gone_from_the_disk() {
    let dir = TempDir::new();
    let world = world(
        Options {
            max_age: Some(Duration::from_secs(100)),
            ..UNLIMITED
        },
        &dir,
    );
    type End = fn(&World, &str);
    let ways: [(&str, End); 3] = [
        ("deleted", |world, id| close(world, id)),
        ("revoked", |world, _| {
            let revoked = [principal("ann")];
            world.registry.close_principals(&revoked, world.at(1));
        }),
        ("too old", |world, id| {
            world.registry.tick(world.at(100));
            let revived = world.revive(id, USE, 100);
            assert_eq!(revived.unwrap_err(), OpenError::Ended);
        }),
    ];
    for (what, end) in ways {
        for rests in [false, true] {
            let (session, _) = world.begin("ann", 0, None);
            if rests {
                world.registry.close(session.id(), Cause::Idle, world.at(0));
                assert!(world.is_resting(session.id()));
            }
            end(&world, session.id());
            let found = world.find(session.id(), "ann", 0);
            assert_eq!(found, Err(FindError::Unknown), "{what}, {rests}");
            assert_eq!(dir.records(), [""; 0], "{what}, {rests}");
            let revived = world.revive(session.id(), USE, 0).unwrap_err();
            assert_eq!(revived, OpenError::Ended);
        }
    }
    world.stop();
}

#[test]
fn a_client_that_goes_before_it_knows_its_session_leaves_nothing() {
    let dir = TempDir::new();
    let world = world(UNLIMITED, &dir);
    let (session, client) = (world.open("ann", 0).unwrap(), Client::default());
    client.post(&session, &request("init", "initialize", CLIENT));
    session.gone(Client::CONNECTION);
    assert_eq!(world.registry.active(), 0);
    let answer = format!(r#"{{"jsonrpc":"2.0","id":"init","result":{RESULT}}}"#);
    world.child(session.id()).say(&answer);
    assert_eq!(dir.records(), [""; 0]);
    world.stop();
}

/// The old child speaks although the session has a new one.
#[test]
fn only_the_child_of_a_session_has_a_say_in_its_record() {
    let dir = TempDir::new();
    let world = world(UNLIMITED, &dir);
    let (session, _) = world.begin("ann", 0, None);
    let id = session.id();
    let old = world.child(id);
    world.registry.close(id, Cause::Idle, world.at(0));
    world.revive(id, USE, 0).unwrap();
    world.play(id);
    let mut stale = session.bridge().unwrap().handshake();
    stale.log_level = Some("{}".into());
    old.host.changed(id, &stale);
    let records = world.registry.records.as_ref().unwrap();
    let record = records.read(id).unwrap().unwrap();
    assert_eq!(
        (record.handshake.log_level, record.handshake.children),
        (None, 1)
    );
    world.stop();
}

#[test]
fn a_server_that_is_revived_no_more_forgets_its_sessions() {
    let dir = TempDir::new();
    let first = world(UNLIMITED, &dir);
    let (session, _) = first.begin("ann", 0, None);
    first.stop();
    let next = World::with(
        UNLIMITED,
        Hooks::default(),
        Policy::default(),
        Some(dir.path()),
    );
    assert_eq!(next.find(session.id(), "ann", 0), Err(FindError::Unknown));
    next.registry.tick(next.at(0));
    assert_eq!(dir.records(), [""; 0]);
}

/// An `initialize` that takes long becomes a stream, whose head has the id in it.
#[test]
fn an_id_that_is_told_before_the_answer_is_on_disk_before_that() {
    let dir = Arc::new(TempDir::new());
    let begin = || {
        let world = world(UNLIMITED, &dir);
        let (session, client) = (world.open("ann", 0).unwrap(), Client::default());
        let its = Arc::clone(&dir);
        client.watch(move || its.records().len());
        client.post(&session, &request("init", "initialize", CLIENT));
        assert!(dir.records().is_empty());
        let child = world.child(session.id());
        child.inbound.lock().service(world.at(11));
        assert_eq!(client.heard(), ["stream"]);
        assert_eq!(client.seen()[..1], [1]);
        (world, session, client)
    };
    // The broker is killed there and then.
    let (killed, session, _client) = begin();
    let next = world(UNLIMITED, &dir);
    let revived = next.revive(session.id(), USE, 12).unwrap();
    let told = next.play(revived.id());
    assert!(told[0].contains(CLIENT), "{told:?}");
    assert!(revived.speaks("2025-11-25"));
    next.registry
        .close(revived.id(), Cause::Deleted, next.at(13));
    next.stop();
    killed.stop();
    // A child that does not start leaves nothing of its session.
    let (world, session, client) = begin();
    world.child(session.id()).exit();
    assert!(
        client
            .heard()
            .iter()
            .any(|it| it.contains("before it answered"))
    );
    assert!(dir.records().is_empty());
    assert_eq!(world.find(session.id(), "ann", 12), Err(FindError::Unknown));
    world.stop();
}
