//! Sessions whose user has a newer token: they get a new child while they go on.

mod races;

use super::ending::gate;
use super::revival::USE;
use super::*;
use crate::auth::LeaseState;
use crate::jsonrpc;
use crate::session::succession::RETRY;

const KEEPING: Policy = Policy {
    revive: None,
    park: None,
    keeps_old_token: true,
};
const MODERN_LISTEN: &str = r#"{"jsonrpc":"2.0","id":"listen","method":"subscriptions/listen","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}},"notifications":{"toolsListChanged":true}}}"#;

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

    /// Opens a session as far as a client of this sign-in would.
    fn open_by(&self, principal: &Principal) -> Arc<Session> {
        let opened = self
            .registry
            .open(principal, &server("a"), CLIENT, self.start);
        opened.unwrap()
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
    assert_eq!(
        (world.fakes.count("start"), world.fakes.count("stop")),
        (2, 1)
    );
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
        assert_eq!(world.fakes.count("stop"), usize::try_from(n).unwrap());
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
    old.say(&note(1)); // nobody listens yet
    for n in [2, 3] {
        world.refresh_and_settle(n.into());
        wait_until("rest", || session.bridge().unwrap().may_leave());
        if n == 2 {
            client.listen(&session);
            assert_eq!(client.heard()[..2], ["stream", "event "]);
        }
        world.child(session.id()).say(&note(n));
    }
    let events: Vec<String> = [2, 3].map(|n| format!("event {}", note(n))).to_vec();
    assert_eq!(client.heard(), events);
    assert_eq!(world.fakes.count("start"), 3);
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
    assert_eq!(world.fakes.count("stop"), 1);
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
    assert_eq!(
        (world.fakes.count("start"), world.fakes.count("stop")),
        (2, 1)
    );
    assert_eq!(session.bridge().unwrap().handshake().children, 0);
    go_on.send(()).unwrap();
    world.registry.tick(world.at(1) + RETRY);
    world.settle();
    assert_eq!(session.bridge().unwrap().handshake().children, 1);
    let told = world.child(session.id()).take_lines();
    assert!(told.iter().any(|line| line.contains("x:1")), "{told:?}");
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
fn a_server_may_want_its_children_kept() {
    let world = world_with(Hooks::default(), KEEPING);
    world.begin("ann", 0, None);
    world
        .registry
        .share(&principal("ann"), &server("a"), world.start)
        .unwrap();
    world.refresh_and_settle(1);
    assert_eq!(
        (world.fakes.count("start"), world.fakes.count("stop")),
        (2, 0)
    );
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

#[test]
fn a_parked_child_with_an_old_token_is_for_nobody() {
    let policy = Policy {
        park: Some(Duration::from_secs(60)),
        ..Policy::default()
    };
    let world = world_with(Hooks::default(), policy);
    let parked = |world: &World| world.registry.counts().parked;
    let (session, _) = world.begin("ann", 0, None);
    close(&world, session.id());
    assert_eq!(parked(&world), 1);
    world.refresh();
    let (session, _) = world.begin("ann", 1, None);
    assert_eq!((parked(&world), world.fakes.count("start")), (1, 2));
    world.registry.tick(world.at(1));
    assert_eq!(parked(&world), 0);
    world.refresh();
    close(&world, session.id());
    assert_eq!(parked(&world), 0);
    world.stop();
}

#[test]
fn a_shared_session_ends_when_only_subscriptions_are_open() {
    let world = world();
    let (ann, a) = (principal("ann"), server("a"));
    let share = || world.registry.share(&ann, &a, world.start).unwrap();
    let (session, client) = (share(), Client::default());
    client.post(&session, MODERN_LISTEN);
    client.post(
        &session,
        &MODERN_LISTEN.replace("subscriptions/listen", "tools/list"),
    );
    assert_eq!(client.heard(), [""; 0]);
    world.refresh_and_settle(1);
    assert!(world.registry.find_shared(&ann, "a").is_some());
    world
        .child(session.id())
        .say(r#"{"jsonrpc":"2.0","id":2,"result":{}}"#);
    client.heard();
    let visit = session.visit(world.start).unwrap();
    world.registry.tick(world.at(2));
    assert!(world.registry.find_shared(&ann, "a").is_some());
    drop(visit);
    world.registry.tick(world.at(3));
    assert!(world.registry.find_shared(&ann, "a").is_none());
    // The client is told, and comes again.
    assert!(client.is_told());
    assert!(!Arc::ptr_eq(&share(), &session));
    assert_eq!(world.fakes.count("start"), 2);
    world.stop();
}

/// A name is what people are called; they are who they are.
#[test]
fn another_name_or_email_ends_nothing() {
    let world = world();
    let (ann, a) = (principal("ann"), server("a"));
    let session = world.registry.share(&ann, &a, world.start).unwrap();
    let renamed = Principal {
        name: "anna".into(),
        email: Some("anna@example.org".into()),
        ..ann
    };
    let shared = world.registry.share(&renamed, &a, world.start).unwrap();
    assert!(Arc::ptr_eq(&session, &shared) && session.is_for(&renamed));
    world.stop();
}

#[test]
fn one_sign_in_takes_its_own_sessions_along_and_no_others() {
    for (revoked, left) in [
        (world_grant("ann", Some("g1")), ["-", "y", "y", "y"]),
        (world_grant("ann", Some("g2")), ["y", "-", "y", "y"]),
        (world_grant("ann", None), ["-", "-", "-", "y"]),
        (world_grant("ann", Some("g3")), ["y"; 4]),
        (world_grant("bob", None), ["y", "y", "y", "-"]),
    ] {
        let world = world();
        let all = [
            ("ann", Some("g1")),
            ("ann", Some("g2")),
            ("ann", None),
            ("bob", Some("g1")),
        ];
        let all = all.map(|(user, grant)| world_grant(user, grant));
        let one = |it: &Principal| {
            let shared = world.registry.share(it, &server("a"), world.start).unwrap();
            (world.open_by(it), shared)
        };
        let sessions = all.each_ref().map(one);
        assert_eq!(world.registry.active(), 8);
        world
            .registry
            .close_principals(std::slice::from_ref(&revoked), world.at(1));
        let is_left = |(own, shared): &(Arc<Session>, Arc<Session>)| {
            let is_there = |it: &Arc<Session>| world.last_active(it.id()).is_some();
            assert_eq!(is_there(own), is_there(shared));
            if is_there(own) { "y" } else { "-" }
        };
        assert_eq!(
            sessions.each_ref().map(is_left),
            left,
            "{:?}",
            revoked.grant
        );
        world.stop();
    }
}

fn world_grant(user: &str, grant: Option<&str>) -> Principal {
    Principal {
        grant: grant.map(Into::into),
        ..principal(user)
    }
}
