//! Sessions whose user has a newer token: they get a new child while they go on.

mod others;
mod races;

use super::ending::gate;
use super::revival::USE;
use super::*;
use crate::auth::LeaseState;
use crate::jsonrpc;
use crate::session::succession::RETRY;

fn world() -> World {
    world_with(Hooks::default(), Policy::default())
}

/// Children get a token, and the new ones do as they should.
fn world_with(hooks: Hooks, policy: Policy) -> World {
    let hooks = Hooks {
        serves: true,
        plays: true,
        ..hooks
    };
    lending(World::with(UNLIMITED, hooks, policy, None))
}

fn lending(world: World) -> World {
    *world.fakes.lease.lock() = Some(Arc::default());
    world
}

impl World {
    /// So many children were started and stopped.
    fn has_run(&self, starts: usize, stops: usize) {
        assert_eq!(self.fakes.count("start"), starts);
        wait_until("stops", || self.fakes.count("stop") == stops);
    }

    /// A newer token is in force.
    fn refresh(&self) {
        let newer = Some(Arc::<LeaseState>::default());
        let older = std::mem::replace(&mut *self.fakes.lease.lock(), newer);
        older.unwrap().supersede();
    }

    /// Nothing of the kind is under way any more.
    fn settle(&self) {
        wait_until("the end of it", || {
            self.registry.sessions.lock().unsettled == 0
        });
    }

    fn refresh_and_settle(&self, seconds: u64) {
        self.refresh();
        self.registry.tick(self.at(seconds));
        self.settle();
    }

    /// Waits for the next lines that the child of this session is told, and answers each.
    fn answer_next(&self, id: &str) -> Vec<String> {
        let child = self.child(id);
        wait_until("a line", || !child.lines.lock().is_empty());
        let lines = child.take_lines();
        for line in &lines {
            let id = jsonrpc::parse(line).unwrap().id_text.to_owned();
            child.say(&jsonrpc::result_response(&id, "{}"));
        }
        lines
    }

    /// Ends all, where some starts have come to nothing.
    fn stop_after_failures(&self) {
        let registry = Arc::clone(&self.registry);
        within_deadline("stop", move || registry.stop());
        assert_eq!(self.registry.active(), 0);
    }
}

/// The client sees nothing of it.
#[test]
fn an_idle_session_gets_a_child_that_knows_what_the_old_one_did() {
    let world = world();
    let (session, client) = world.begin("ann", 0, None);
    let id = session.id();
    for (no, method, params) in [
        ("1", "logging/setLevel", r#"{"level":"debug"}"#),
        ("2", "resources/subscribe", r#"{"uri":"x:1"}"#),
    ] {
        client.post(&session, &request(no, method, params));
        world.answer_next(id);
    }
    client.heard();
    world.registry.tick(world.at(1));
    assert_eq!(world.fakes.count("start"), 1);
    world.refresh_and_settle(2);
    world.has_run(2, 1);
    let label = session.label();
    let own =
        |no: &str, method, params| request(&format!("mcp-broker/{label}/{no}"), method, params);
    let told = [
        own("initialize", "initialize", CLIENT),
        INITIALIZED.to_owned(),
        own("0", "logging/setLevel", r#"{"level":"debug"}"#),
        own("1", "resources/subscribe", r#"{"uri":"x:1"}"#),
    ];
    let child = world.child(id);
    wait_until("all of it", || child.lines.lock().len() == told.len());
    assert_eq!(child.take_lines(), told);
    assert_eq!(client.heard(), [""; 0]);
    world.find(id, "ann", 3).unwrap();
    client.post(&session, &request("3", "tools/list", "{}"));
    assert_eq!(world.answer_next(id), [request("3", "tools/list", "{}")]);
    assert_eq!(
        client.heard(),
        [r#"json - {"jsonrpc":"2.0","id":"3","result":{}}"#]
    );
    // One token, one child.
    world.registry.tick(world.at(4));
    world.settle();
    assert_eq!(world.fakes.count("start"), 2);
    world.stop();
}

#[test]
fn it_happens_as_often_as_there_is_a_newer_token() {
    let world = world();
    let (session, client) = world.begin("ann", 0, None);
    client.heard();
    for n in 1..=5 {
        // The writer thread has to say what it was given first.
        wait_until("rest", || session.bridge().unwrap().may_leave());
        world.refresh_and_settle(n);
        let children = usize::try_from(n).unwrap();
        world.has_run(children + 1, children);
        world.child(session.id()).take_lines();
    }
    assert_eq!(session.bridge().unwrap().handshake().children, 5);
    assert_eq!(client.heard(), [""; 0]);
    world.stop();
}

#[test]
fn an_open_stream_goes_along() {
    let world = world();
    let (session, client) = world.begin("ann", 0, None);
    let old = world.child(session.id());
    let note = |n: u32| format!(r#"{{"jsonrpc":"2.0","method":"n","params":{{"n":{n}}}}}"#);
    let event = |n| format!("event {}", note(n));
    old.say(&note(1)); // nobody listens yet
    for n in [2, 3] {
        world.refresh_and_settle(n.into());
        wait_until("rest", || session.bridge().unwrap().may_leave());
        if n == 2 {
            client.listen(&session);
            assert_eq!(client.heard(), ["stream".to_owned(), event(1)]);
        }
        world.child(session.id()).say(&note(n));
    }
    assert_eq!(client.heard(), [2, 3].map(event));
    world.has_run(3, 2);
    session.gone(Client::CONNECTION);
    world.child(session.id()).say(&note(4));
    assert_eq!(client.heard(), [""; 0]);
    world.stop();
}

#[test]
fn a_call_ends_on_the_child_that_has_it() {
    let world = world();
    let (session, client) = world.begin("ann", 0, None);
    client.heard();
    client.post(&session, &request("1", "tools/call", "{}"));
    world.refresh_and_settle(1);
    assert_eq!(world.fakes.count("start"), 1);
    world.answer_next(session.id());
    assert_eq!(
        client.heard(),
        [r#"json - {"jsonrpc":"2.0","id":"1","result":{}}"#]
    );
    world.registry.tick(world.at(2));
    world.settle();
    assert_eq!(world.fakes.count("start"), 2);
    world.stop();
}

#[test]
fn a_question_of_the_child_keeps_it() {
    let world = world();
    let (session, client) = world.begin("ann", 0, None);
    let old = world.child(session.id());
    old.say(r#"{"jsonrpc":"2.0","id":1,"method":"roots/list"}"#);
    world.refresh_and_settle(1);
    assert_eq!(world.fakes.count("start"), 1);
    client.post(&session, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    world.registry.tick(world.at(2));
    world.settle();
    assert_eq!(world.fakes.count("start"), 2);
    world.stop();
}

/// The new child is there, but a call has come meanwhile.
#[test]
fn the_new_child_waits_for_a_moment_at_which_nothing_is_in_flight() {
    let (spawning, is_spawning, go_on) = gate();
    let hooks = Hooks {
        respawning: Some(spawning),
        ..Hooks::default()
    };
    let world = world_with(hooks, Policy::default());
    let (session, client) = world.begin("ann", 0, None);
    client.heard();
    let old = world.child(session.id());
    world.refresh();
    world.registry.tick(world.at(1));
    is_spawning.recv_timeout(DEADLINE).unwrap();
    client.post(&session, &request("1", "tools/call", "{}"));
    go_on.send(()).unwrap();
    wait_until("an heir", || {
        matches!(
            &*session.early.lock(),
            super::super::entry::Waiting::Passed(Some(_))
        )
    });
    client.post(&session, &request("2", "tools/call", "{}"));
    assert_eq!(old.take_lines().len(), 2);
    let answer = |n: u32| format!(r#"{{"jsonrpc":"2.0","id":"{n}","result":{{}}}}"#);
    [1, 2].iter().for_each(|n| old.say(&answer(*n)));
    assert_eq!(
        client.heard(),
        [1, 2].map(|n| format!("json - {}", answer(n)))
    );
    world.settle();
    world.has_run(2, 1);
    world.stop();
}

/// It would not know of a subscription that was made after it was told all others.
#[test]
fn a_new_child_that_does_not_know_all_is_sent_away() {
    let (spawning, is_spawning, go_on) = gate();
    let hooks = Hooks {
        respawning: Some(spawning),
        ..Hooks::default()
    };
    let world = world_with(hooks, Policy::default());
    let (session, client) = world.begin("ann", 0, None);
    let old = world.child(session.id());
    world.refresh();
    world.registry.tick(world.at(1));
    is_spawning.recv_timeout(DEADLINE).unwrap();
    client.post(
        &session,
        &request("1", "resources/subscribe", r#"{"uri":"x:1"}"#),
    );
    old.say(r#"{"jsonrpc":"2.0","id":"1","result":{}}"#);
    go_on.send(()).unwrap();
    world.settle();
    world.has_run(2, 1);
    assert_eq!(session.bridge().unwrap().handshake().children, 0);
    go_on.send(()).unwrap();
    world.registry.tick(world.at(1) + RETRY);
    world.settle();
    assert_eq!(session.bridge().unwrap().handshake().children, 1);
    let child = world.child(session.id());
    wait_until("all of it", || child.lines.lock().len() == 3);
    assert!(child.take_lines()[2].contains("x:1"));
    world.stop();
}

#[test]
fn a_session_whose_new_child_does_not_come_goes_on_with_the_old_one() {
    let world = world();
    let (session, client) = world.begin("ann", 0, None);
    client.heard();
    let unreachable = || OpenError::TryAgain("timeout".to_owned());
    *world.fakes.refuses.lock() = Some(unreachable);
    world.refresh_and_settle(1);
    assert_eq!(world.open("ann", 1).unwrap_err(), unreachable());
    assert_eq!((world.registry.active(), world.fakes.count("stop")), (1, 0));
    client.post(&session, &request("1", "tools/list", "{}"));
    world.answer_next(session.id());
    assert_eq!(
        client.heard(),
        [r#"json - {"jsonrpc":"2.0","id":"1","result":{}}"#]
    );
    *world.fakes.refuses.lock() = None;
    let starts = world.fakes.count("start");
    world.registry.tick(world.at(2)); // not at once
    world.settle();
    assert_eq!(world.fakes.count("start"), starts);
    world.registry.tick(world.at(1) + RETRY);
    world.settle();
    assert_eq!(world.fakes.count("start"), starts + 1);
    assert_eq!(session.bridge().unwrap().handshake().children, 1);
    world.stop_after_failures();
}

#[test]
fn a_new_child_that_is_of_no_use_harms_nobody() {
    for answer in [
        Some(r#""result":{"protocolVersion":"2024-11-05"}"#),
        Some(r#""error":{"code":-1,"message":"no"}"#),
        None, // it ends
    ] {
        let hooks = Hooks {
            serves: true,
            ..Hooks::default()
        };
        let world = lending(World::with(UNLIMITED, hooks, Policy::default(), None));
        let (session, client) = world.begin("ann", 0, None);
        client.heard();
        let old = world.child(session.id());
        world.refresh();
        world.registry.tick(world.at(1));
        wait_until("a new child", || world.fakes.all_faces.lock().len() == 2);
        let heir = Arc::clone(&world.fakes.all_faces.lock()[1]);
        heir.next();
        let no = format!("mcp-broker/{}/initialize", session.label());
        match answer {
            Some(answer) => heir.say(&format!(r#"{{"jsonrpc":"2.0","id":"{no}",{answer}}}"#)),
            None => heir.exit(),
        }
        world.settle();
        client.post(&session, &request("1", "m", "{}"));
        assert_eq!(old.take_lines(), [request("1", "m", "{}")]);
        old.say(r#"{"jsonrpc":"2.0","id":"1","result":{}}"#);
        assert_eq!(
            client.heard(),
            [r#"json - {"jsonrpc":"2.0","id":"1","result":{}}"#]
        );
        world.stop();
    }
}

/// Its user must sign in again, and the client learns that with its next request.
#[test]
fn a_session_whose_user_must_sign_in_again_ends() {
    let world = world();
    let (session, _) = world.begin("ann", 0, None);
    let (other, _) = world.begin("bob", 0, None);
    *world.fakes.refuses.lock() = Some(|| OpenError::SignInAgain);
    let lease = world.fakes.lease.lock().replace(Arc::default());
    other.child.lock().as_mut().unwrap().lease = None;
    lease.unwrap().supersede();
    world.registry.tick(world.at(1));
    world.settle();
    assert_eq!(world.find(session.id(), "ann", 1), Err(FindError::Unknown));
    assert_eq!(world.open("ann", 1).unwrap_err(), OpenError::SignInAgain);
    world.find(other.id(), "bob", 1).unwrap();
    world.registry.tick(world.at(2));
    assert!(world.registry.sessions.lock().respawns.is_empty());
    world.stop_after_failures();
}

#[test]
fn all_sessions_of_a_user_get_new_children() {
    let world = world();
    let (one, two) = (world.begin("ann", 0, None).0, world.begin("ann", 0, None).0);
    let (other, _) = world.begin("bob", 0, None);
    other.child.lock().as_mut().unwrap().lease = None;
    world.refresh_and_settle(1);
    let children = |session: &Session| session.bridge().unwrap().handshake().children;
    assert_eq!([&one, &two, &other].map(|it| children(it)), [1, 1, 0]);
    world.stop();
}

#[test]
fn a_session_can_be_revived_as_its_latest_child_has_it() {
    let dir = TempDir::new();
    let hooks = Hooks {
        serves: true,
        plays: true,
        ..Hooks::default()
    };
    let policy = Policy {
        revive: Some(Duration::from_hours(1)),
        ..Policy::default()
    };
    let world = lending(World::with(UNLIMITED, hooks, policy, Some(dir.path())));
    let (session, _) = world.begin("ann", 0, None);
    world.refresh_and_settle(1);
    world.child(session.id()).exit();
    let (ann, a) = (principal("ann"), server("a"));
    let revived = world
        .registry
        .revive(session.id(), &ann, &a, USE, world.at(2));
    let revived = revived.unwrap();
    assert_eq!(revived.bridge().unwrap().handshake().children, 2);
    world.stop();
}
