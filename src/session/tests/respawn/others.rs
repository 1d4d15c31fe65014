//! What a newer token means beside sessions of one client: shared ones, parked children, servers
//! that want none of it; and what the end of one sign-in means.

use super::*;

const KEEPING: Policy = Policy {
    revive: None,
    park: None,
    keeps_old_token: true,
};
/// A subscription to changes of the tools, which will not come.
fn listen() -> String {
    let client = r#""io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"}"#;
    let version = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28""#;
    let none = r#""io.modelcontextprotocol/clientCapabilities":{}"#;
    let params = format!(
        r#"{{"_meta":{{{version},{client},{none}}},"notifications":{{"toolsListChanged":true}}}}"#
    );
    request("listen", "subscriptions/listen", &params)
}

impl World {
    /// Opens a session as far as a client of this sign-in would.
    fn open_by(&self, principal: &Principal) -> Arc<Session> {
        let opened = self
            .registry
            .open(principal, &server("a"), CLIENT, self.start);
        opened.unwrap()
    }
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
    world.has_run(2, 0);
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
    client.post(&session, &listen());
    client.post(
        &session,
        &listen().replace("subscriptions/listen", "tools/list"),
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
