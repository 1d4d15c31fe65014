//! One thing is taken away at a time.

use super::*;

/// Three sign-ins of two users with two clients, by grant.
fn three(world: &World) -> [(&'static str, Tokens); 3] {
    [
        ("1/a", world.enter("1", APP, "a")),
        ("1/b", world.enter("1", IDE, "b")),
        ("2/c", world.enter("2", APP, "c")),
    ]
}

fn client_of(name: &str) -> &'static str {
    match name {
        "1/b" => IDE,
        _ => APP,
    }
}

/// Issue 5, 7: exactly those who were taken away are named, once, and refused from then on.
#[test]
fn what_the_commands_take_away_is_gone_with_the_next_refresh() {
    type Take = fn(&Store) -> usize;
    let cases: &[(&str, Take, &[&str])] = &[
        (
            "user-one",
            |it| it.revoke_user("1").unwrap(),
            &["1/a", "1/b"],
        ),
        ("user-two", |it| it.revoke_user("user 2").unwrap(), &["2/c"]),
        (
            "client-app",
            |it| it.revoke_client(APP).unwrap(),
            &["1/a", "2/c"],
        ),
        ("client-ide", |it| it.revoke_client(IDE).unwrap(), &["1/b"]),
        ("nothing", |it| it.clients(at(1)).unwrap().len() - 2, &[]),
    ];
    for (name, take, expected) in cases {
        let world = World::new(&format!("ending-{name}"));
        let tokens = TokenStore::open(world.dir.path()).unwrap();
        let token = tokens.add("bob", Default::default(), None, at(0)).unwrap();
        let bob = Tokens {
            access: token,
            refresh: String::new(),
        };
        let all = three(&world);
        assert!(world.gone(at(1)).is_empty(), "{name}");
        assert_eq!(take(&world.others()), expected.len(), "{name}");
        assert_eq!(world.gone(at(2)), *expected, "{name}");
        for (grant, tokens) in &all {
            let stays = !expected.contains(grant);
            assert_eq!(world.lets_in(tokens, at(2)), stays, "{name}: {grant}");
            let renewed = world.renew(client_of(grant), &tokens.refresh, at(3));
            assert_eq!(renewed.is_ok(), stays, "{name}: {grant}");
        }
        assert!(world.lets_in(&bob, at(3)), "{name}");
        assert!(world.gone(at(4)).is_empty(), "{name}: twice");
    }
}

/// RFC 7009, section 2.1: an access token alone ends no session, its client has another one or
/// gets one; a refresh token ends the grant; another client's token is none.
#[test]
fn what_a_client_revokes_is_gone_at_once() {
    /// Of the first tokens and the next, the one to be revoked.
    type Which = fn(&Tokens, &Tokens) -> String;
    /// Name, client, token, who is named, and which of the two access tokens stay.
    type Case<'a> = (&'a str, &'a str, Which, &'a [&'a str], [bool; 2]);
    let cases: &[Case<'_>] = &[
        (
            "access-1",
            APP,
            |old, _| old.access.clone(),
            &[],
            [false, true],
        ),
        (
            "access-2",
            APP,
            |_, new| new.access.clone(),
            &[],
            [true, false],
        ),
        (
            "refresh-1",
            APP,
            |old, _| old.refresh.clone(),
            &["1/a"],
            [false, false],
        ),
        (
            "refresh-2",
            APP,
            |_, new| new.refresh.clone(),
            &["1/a"],
            [false, false],
        ),
        (
            "other-access",
            IDE,
            |_, new| new.access.clone(),
            &[],
            [true, true],
        ),
        (
            "other-refresh",
            IDE,
            |_, new| new.refresh.clone(),
            &[],
            [true, true],
        ),
        (
            "unknown",
            APP,
            |_, _| "mcpr_unknown".to_owned(),
            &[],
            [true, true],
        ),
    ];
    for (name, client, which, expected, left) in cases {
        let world = World::new(&format!("revoking-{name}"));
        let [(_, old), (_, ide), (_, other)] = three(&world);
        let new = world.renew(APP, &old.refresh, at(1)).unwrap();
        world.revoke(client, &which(&old, &new), at(2));
        let lets_in = [&old, &new].map(|it| world.lets_in(it, at(2)));
        assert_eq!(lets_in, *left, "{name}: before any refresh");
        assert_eq!(world.gone(at(3)), *expected, "{name}");
        let renewed = world.renew(APP, &new.refresh, at(4));
        assert_eq!(renewed.is_ok(), expected.is_empty(), "{name}");
        for tokens in [ide, other] {
            assert!(world.lets_in(&tokens, at(4)), "{name}");
        }
        assert!(world.gone(at(5)).is_empty(), "{name}");
    }
}

/// S14: whoever uses a refresh token again, when it is no lost answer, ends that grant and no
/// other.
#[test]
fn a_refresh_token_that_comes_back_ends_its_grant() {
    let world = World::new("ending-reuse");
    let [(_, old), (_, ide), (_, other)] = three(&world);
    let new = world.renew(APP, &old.refresh, at(1)).unwrap();
    let again = world.renew(APP, &old.refresh, at(31)).unwrap();
    assert!(world.gone(at(31)).is_empty(), "an answer may get lost");
    let late = world.renew(APP, &old.refresh, at(32));
    assert_eq!(late.err(), Some("invalid_grant"));
    for tokens in [&old, &new, &again] {
        assert!(!world.lets_in(tokens, at(32)));
    }
    assert_eq!(world.gone(at(32)), ["1/a"]);
    assert!(world.gone(at(33)).is_empty());
    assert!(world.lets_in(&ide, at(33)) && world.lets_in(&other, at(33)));
    let renewed = world.renew(APP, &again.refresh, at(34));
    assert_eq!(renewed.err(), Some("invalid_grant"));
}

/// S14: a code that comes a second time.
#[test]
fn a_code_that_comes_back_ends_its_grant() {
    let world = World::new("ending-code");
    let [(_, first), ..] = three(&world);
    let code = [
        ("grant_type", "authorization_code"),
        ("client_id", APP),
        ("code", "mcpc_a"),
        ("code_verifier", VERIFIER),
    ];
    assert_eq!(world.ask(&code, at(1)).err(), Some("invalid_grant"));
    assert!(!world.lets_in(&first, at(1)));
    assert_eq!(world.gone(at(1)), ["1/a"]);
}

/// A session does not end with an access token, but with the grant, and then at once.
#[test]
fn a_grant_that_is_over_is_named() {
    let world = World::new("ending-expiry");
    let [(_, first), ..] = three(&world);
    assert!(!world.lets_in(&first, at(HOUR)));
    for second in [HOUR, 2 * HOUR, GRANT - 1] {
        assert!(world.gone(at(second)).is_empty(), "{second}");
    }
    let late = world.renew(APP, &first.refresh, at(GRANT - 1)).unwrap();
    assert!(world.lets_in(&late, at(GRANT - 1)));
    assert!(!world.lets_in(&late, at(GRANT)), "no token outlives it");
    assert_eq!(world.gone(at(GRANT)), ["1/a", "1/b", "2/c"]);
    assert!(world.gone(at(GRANT + 1)).is_empty());
}

/// R17: a provider that takes back what it gave a user ends all sign-ins of that user.
#[test]
fn a_user_whom_the_provider_disowns_is_signed_out_everywhere() {
    let world = World::new("ending-upstream");
    let [(_, first), (_, ide), (_, other)] = three(&world);
    let ending = UpstreamTokens {
        refresh: Some("upstream-refresh".to_owned()),
        expires: Some(at(HOUR)),
        lifetime: Some(Duration::from_secs(HOUR)),
        ..lasting()
    };
    world.agree("1", APP, "never-redeemed", &ending);
    assert!(world.gone(at(1)).is_empty());
    let renewed = world.renew(APP, &first.refresh, at(HOUR - 1));
    assert_eq!(renewed.err(), Some("invalid_grant"));
    let lets_in = [&first, &ide, &other].map(|it| world.lets_in(it, at(HOUR - 1)));
    assert_eq!(lets_in, [false, false, true]);
    assert_eq!(world.gone(at(HOUR - 1)), ["1/a", "1/b"]);
}

/// After a restart too, whoever has a token in force is known by it.
#[test]
fn a_restart_forgets_nobody() {
    let world = World::new("ending-restart");
    let all = three(&world);
    let again = open(&world.dir, &world.provider, anyone(), at(1));
    for (grant, tokens) in &all {
        assert!(
            again.check(&tokens.access, SERVER, at(1)).is_ok(),
            "{grant}"
        );
    }
    world.others().revoke_client(IDE).unwrap();
    let gone = again.refresh(at(2));
    assert_eq!(gone.len(), 1);
    assert_eq!(gone[0].grant.as_deref(), Some("b"));
    for (grant, tokens) in &all {
        let lets_in = again.check(&tokens.access, SERVER, at(2)).is_ok();
        assert_eq!(lets_in, *grant != "1/b", "{grant}");
    }
}

/// A list with these on it.
fn list(users: &[&str], groups: &[&str], emails: &[&str]) -> Allow {
    let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
    Allow {
        users: texts(users),
        groups: texts(groups),
        emails: texts(emails),
        anyone: false,
    }
}

/// By what 1 and 2 were let in; of 3 nothing is known.
fn admissions() -> [(&'static str, Admission); 2] {
    let alice = Admission {
        username: Some("alice".to_owned()),
        ..Admission::default()
    };
    let bob = Admission {
        username: Some("bob".to_owned()),
        email: Some("bob@example.org".to_owned()),
        groups: vec!["crew".to_owned()],
    };
    [("1", alice), ("2", bob)]
}

/// Issue 5, 4: whoever is taken off the list is out with the next start; of whom nothing is known,
/// nothing speaks for.
#[test]
fn who_is_no_longer_on_the_list_is_out_after_a_restart() {
    let cases: &[(&str, Allow, &[&str])] = &[
        ("anyone", anyone(), &["1", "2", "3"]),
        ("by-name", list(&["Alice"], &[], &[]), &["1"]),
        ("by-subject", list(&["3"], &[], &[]), &["3"]),
        ("by-group", list(&[], &["crew"], &[]), &["2"]),
        ("by-email", list(&[], &[], &["bob@example.org"]), &["2"]),
        ("nobody", list(&["alic"], &["cre"], &["example.org"]), &[]),
    ];
    for (name, allow, expected) in cases {
        let world = World::new(&format!("list-{name}"));
        let issuer = world.provider.url("");
        let tokens = ["1", "2", "3"].map(|it| (it, world.enter(it, APP, it)));
        for (subject, admission) in admissions() {
            let store = &world.sign_in.store;
            store.save_admission(&issuer, subject, &admission).unwrap();
        }
        let next = open(&world.dir, &world.provider, allow.clone(), at(1));
        let is_in = |it: &&(&str, Tokens)| next.check(&it.1.access, SERVER, at(2)).is_ok();
        let left: Vec<&str> = tokens.iter().filter(is_in).map(|it| it.0).collect();
        assert_eq!(left, *expected, "{name}");
    }
}
