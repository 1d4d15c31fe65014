//! Codes and refresh tokens: who gets tokens for what, and whose are taken away.

use std::sync::Barrier;

use super::*;

/// S1, S6: one code, one attempt.
#[test]
fn a_code_is_good_for_one_attempt_within_a_minute() {
    type Step = (u64, bool, &'static str);
    let cases: &[(&str, &[Step], &[&str])] = &[
        ("in time", &[(59_999, true, "issued")], &["0"]),
        ("too late", &[(60_000, true, "invalid_grant")], &[]),
        (
            "too late, early",
            &[(60_000, true, "invalid_grant"), (1, true, "invalid_grant")],
            &[],
        ),
        (
            "used twice",
            &[(1, true, "issued"), (2, true, "replayed")],
            &[],
        ),
        (
            "used twice, late",
            &[(1, true, "issued"), (90_000, true, "replayed")],
            &[],
        ),
        (
            "used twice, wrongly",
            &[(1, true, "issued"), (2, false, "replayed")],
            &[],
        ),
        (
            "thrice",
            &[
                (1, true, "issued"),
                (2, true, "replayed"),
                (3, true, "invalid_grant"),
            ],
            &[],
        ),
        (
            "burnt",
            &[(1, false, "invalid_target"), (2, true, "invalid_grant")],
            &[],
        ),
    ];
    let dir = TempDir::new("store-code");
    let store = open(dir.path());
    for (name, steps, left) in cases {
        let user = user("1", "alice");
        store.save_user(&user, &upstream("1"), at(0)).unwrap();
        let code = hash(name);
        store.add_code(&code, &new_grant(name, "1"), at(0)).unwrap();
        for (no, (ms, fit, expected)) in steps.iter().enumerate() {
            let check = if *fit { fits } else { does_not_fit };
            let new = new_tokens(&no.to_string(), at(0));
            let result = store.redeem_code(&code, &check, &new, at_ms(*ms));
            assert_eq!(outcome(&result), *expected, "{name}, step {no}");
        }
        assert_eq!(live(&store, &["0", "1", "2"], at(0)), *left, "{name}");
        let refresh = rotate(&store, "0", "next", at(1));
        assert_eq!(refresh == "issued", !left.is_empty(), "{name}");
        store.revoke_user("1").unwrap();
    }
    let unknown = store.redeem_code(&hash("?"), &fits, &new_tokens("?", at(0)), at(0));
    assert_eq!(outcome(&unknown), "invalid_grant");
}

#[test]
fn a_code_brings_back_what_was_agreed_to() {
    let dir = TempDir::new("store-code-row");
    let store = open(dir.path());
    let alice = user("1", "alice");
    store.save_user(&alice, &upstream("1"), at(0)).unwrap();
    let code = hash("code");
    store.add_code(&code, &new_grant("g", "1"), at(0)).unwrap();
    assert_eq!(store.users(at(0)).unwrap()[0].grants, 0, "not redeemed yet");
    let check = |row: &CodeRow| {
        assert_eq!(row.redirect_uri, "http://127.0.0.1/callback");
        assert_eq!(row.challenge, "challenge");
        assert_eq!(&*row.grant.client_id, "client-one");
        assert_eq!(row.grant.expires, at(GRANT));
        Ok(())
    };
    let issued = store.redeem_code(&code, &check, &new_tokens("0", at(5)), at(5));
    let issued = issued.unwrap();
    assert!(issued.dropped.is_empty());
    let found = store.live_access(at(5)).unwrap();
    for live in [&issued.live, &found[0]] {
        assert_eq!(live.hash, hash("access-0"));
        assert_eq!(
            (&*live.grant, &*live.issuer, &*live.subject),
            ("g", ISSUER, "1")
        );
        assert_eq!(&*live.name, "alice");
        assert_eq!(live.email.as_deref(), Some("alice@example.org"));
        assert_eq!(&*live.scope, "mcp");
        assert_eq!(live.resource.uri, "https://mcp.example.org/mcp/forge");
        assert_eq!(&*live.resource.server, "forge");
        assert_eq!(live.expires, at(3605));
        assert_eq!(live.grant_expires, at(GRANT));
    }
    assert_eq!(found.len(), 1);
    assert!(store.live_access(at(3605)).unwrap().is_empty());
}

/// S14, S13: rotation, its grace and its end. Each step: at which millisecond which token becomes
/// which, and whether it does.
#[test]
fn refresh_tokens_rotate_and_tell_of_theft() {
    let cases = [
        ("a chain", "1 0>1 yes, 2 1>2 yes, 3 2>3 yes"),
        ("a lost answer", "1 0>1 yes, 30001 0>b yes, 99000 b>2 yes"),
        ("a found answer", "1 0>1 yes, 30001 0>b yes, 99000 1>2 yes"),
        (
            "after the grace",
            "1 0>1 yes, 30002 0>b end, 30003 1>2 no, 30004 0>3 no",
        ),
        (
            "successor used",
            "1 0>1 yes, 2 1>2 yes, 3 0>b end, 4 2>3 no",
        ),
        (
            "both successors",
            "1 0>1 yes, 2 0>b yes, 3 1>2 yes, 4 b>3 end, 5 2>4 no",
        ),
        (
            "again after both",
            "1 0>1 yes, 2 0>b yes, 3 b>2 yes, 4 0>3 end",
        ),
        (
            "grace of the next",
            "1 0>1 yes, 2 1>2 yes, 3 1>b yes, 4 b>3 yes",
        ),
        (
            "clock set back",
            "50000 0>1 yes, 10 0>b yes, 20 b>2 yes, 30 0>3 end",
        ),
        ("unknown", "1 ?>1 no, 2 0>1 yes"),
        ("nearly over", "2591999999 0>1 yes, 2592000000 1>2 no"),
        (
            "too often",
            "1 0>1 yes, 2 0>2 yes, 3 0>3 yes, 4 0>4 yes, 5 0>5 yes, 6 0>6 yes, 7 0>7 yes, \
             8 0>8 yes, 9 0>9 end",
        ),
    ];
    let dir = TempDir::new("store-rotate");
    let store = open(dir.path());
    for (name, steps) in cases {
        sign_in(&store, "1", "0");
        sign_in(&store, "2", "other");
        for step in steps.split(", ") {
            let (ms, rest) = step.split_once(' ').unwrap();
            let (tokens, expected) = rest.split_once(' ').unwrap();
            let (old, new) = tokens.split_once('>').unwrap();
            let done = match rotate(&store, old, new, at_ms(ms.parse().unwrap())) {
                "issued" => "yes",
                "invalid_grant" => "no",
                "replayed" => "end",
                other => other,
            };
            assert_eq!(done, expected, "{name}: {step}");
            if done == "end" {
                let left = live(&store, &["0", "1", "b", "other"], at(1));
                assert_eq!(left, ["other"], "{name}: {step}");
            }
        }
        assert_eq!(
            rotate(&store, "other", "other-2", at(60)),
            "issued",
            "{name}"
        );
        store.revoke_user("1").unwrap();
        store.revoke_user("2").unwrap();
    }
}

/// S14: a stolen token in the hands of another client changes nothing.
#[test]
fn a_foreign_client_can_neither_rotate_nor_revoke() {
    let dir = TempDir::new("store-foreign");
    let store = open(dir.path());
    sign_in(&store, "1", "0");
    assert_eq!(rotate(&store, "0", "1", at(1)), "issued");
    for stolen in ["0", "1"] {
        let token = hash(&format!("refresh-{stolen}"));
        for second in [2, 100] {
            let new = new_tokens("thief", at(second));
            let result = store.rotate(&token, &does_not_fit, &new, at(second));
            assert_eq!(outcome(&result), "invalid_target");
        }
        assert!(!store.revoke_token(&token, "client-two").unwrap());
    }
    let access = hash("access-1");
    assert!(!store.revoke_token(&access, "client-two").unwrap());
    assert_eq!(live(&store, &["0", "1", "thief"], at(3)), ["0", "1"]);
    assert_eq!(rotate(&store, "1", "2", at(101)), "issued");
}

/// RFC 7009, section 2.1.
#[test]
fn a_client_revokes_its_own_tokens() {
    let cases: &[(&str, bool, &[&str], &str)] = &[
        ("access-0", true, &["1"], "issued"),
        ("access-1", true, &["0"], "issued"),
        ("refresh-1", true, &[], "invalid_grant"),
        ("refresh-0", true, &[], "invalid_grant"),
        ("unknown", false, &["0", "1"], "issued"),
    ];
    let dir = TempDir::new("store-revoke");
    let store = open(dir.path());
    for (token, revoked, left, refresh) in cases {
        sign_in(&store, "1", "0");
        sign_in(&store, "2", "other");
        assert_eq!(rotate(&store, "0", "1", at(1)), "issued");
        let done = store.revoke_token(&hash(token), "client-one");
        assert_eq!(done.unwrap(), *revoked, "{token}");
        assert_eq!(live(&store, &["0", "1"], at(3)), *left, "{token}");
        assert_eq!(rotate(&store, "1", "2", at(3)), *refresh, "{token}");
        assert_eq!(live(&store, &["other"], at(3)), ["other"], "{token}");
        store.revoke_user("1").unwrap();
        store.revoke_user("2").unwrap();
    }
}

/// S13: no token outlives its grant, and old ones make room.
#[test]
fn access_tokens_are_few_and_end_with_their_grant() {
    let dir = TempDir::new("store-access");
    let store = open(dir.path());
    sign_in(&store, "1", "0");
    let tags = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"];
    for (no, pair) in tags.windows(2).enumerate() {
        let now = at(no as u64 + 1);
        let old = hash(&format!("refresh-{}", pair[0]));
        let issued = store.rotate(&old, &fits, &new_tokens(pair[1], now), now);
        let dropped = issued.unwrap().dropped;
        let expected: &[Hash] = match no {
            8 => &[hash("access-0")],
            9 => &[hash("access-1")],
            _ => &[],
        };
        assert_eq!(dropped, expected, "{no}");
    }
    assert_eq!(live(&store, &tags, at(11)), tags[2..]);
    let late = at(GRANT - 10);
    let issued = store.rotate(&hash("refresh-10"), &fits, &new_tokens("11", late), late);
    let issued = issued.unwrap();
    assert_eq!(issued.live.expires, at(GRANT));
    assert_eq!(issued.dropped.len(), 9, "they had expired");
}

#[test]
fn a_grant_remembers_a_bounded_number_of_refresh_tokens() {
    let dir = TempDir::new("store-history");
    let store = open(dir.path());
    sign_in(&store, "1", "0");
    let end = 120;
    for no in 0..end {
        let (old, new) = (no.to_string(), (no + 1).to_string());
        assert_eq!(rotate(&store, &old, &new, at(no)), "issued");
    }
    assert_eq!(rows(&store, "refresh"), 100);
    assert_eq!(rows(&store, "access"), 9);
    assert_eq!(
        rotate(&store, "5", "x", at(end)),
        "invalid_grant",
        "forgotten"
    );
    assert_eq!(rotate(&store, &end.to_string(), "y", at(end)), "issued");
    assert_eq!(rotate(&store, "30", "z", at(end)), "replayed");
    assert_eq!(rows(&store, "refresh"), 0);
}

/// Two processes at once, as far as SQLite is concerned: two connections.
#[test]
fn of_two_who_redeem_a_code_at_once_one_wins_and_then_loses() {
    let dir = TempDir::new("store-race-code");
    let (one, two) = (open(dir.path()), open(dir.path()));
    let alice = user("1", "alice");
    for round in 0..200 {
        one.save_user(&alice, &upstream("1"), at(0)).unwrap();
        let code = hash(&format!("code-{round}"));
        let grant = format!("grant-{round}");
        one.add_code(&code, &new_grant(&grant, "1"), at(0)).unwrap();
        let mut done = at_once(&one, &two, |store, tag| {
            let new = new_tokens(&format!("{round}-{tag}"), at(1));
            outcome(&store.redeem_code(&code, &fits, &new, at(1)))
        });
        done.sort_unstable();
        assert_eq!(done, ["issued", "replayed"], "round {round}");
        assert!(one.live_access(at(1)).unwrap().is_empty(), "round {round}");
    }
}

#[test]
fn of_two_who_rotate_a_token_at_once_both_get_their_own() {
    let dir = TempDir::new("store-race-rotate");
    let (one, two) = (open(dir.path()), open(dir.path()));
    sign_in(&one, "1", "0");
    let mut token = "0".to_owned();
    for round in 0..200 {
        let done = at_once(&one, &two, |store, tag| {
            rotate(store, &token, &format!("{round}-{tag}"), at(round))
        });
        assert_eq!(done, ["issued", "issued"], "round {round}");
        let tags = [format!("{round}-a"), format!("{round}-b")];
        let both = live(&one, &[&tags[0], &tags[1]], at(round));
        assert_eq!(both.len(), 2, "round {round}");
        token = tags[(round % 2) as usize].clone();
    }
    assert_eq!(rotate(&one, "199-a", "end", at(500)), "issued");
    assert_eq!(rotate(&two, "199-b", "thief", at(501)), "replayed");
}

/// Runs `f` on two threads at once, each with a store of its own.
fn at_once<T: Send>(one: &Store, two: &Store, f: impl Fn(&Store, &str) -> T + Sync) -> [T; 2] {
    let barrier = Barrier::new(2);
    let run = |store, tag| {
        barrier.wait();
        f(store, tag)
    };
    std::thread::scope(|scope| {
        let second = scope.spawn(|| run(two, "b"));
        [run(one, "a"), second.join().unwrap()]
    })
}
