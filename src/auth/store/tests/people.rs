//! Clients, logins and users: kept, bounded, forgotten, taken away.

use super::super::clients::MAX_CLIENTS;
use super::*;

fn client(id: &str, name: &str) -> Client {
    Client {
        id: id.to_owned(),
        name: name.to_owned(),
        redirect_uris: vec!["http://127.0.0.1/callback".to_owned(), "x.y:/z".to_owned()],
        auth: ClientAuth::Secret(hash("client-secret")),
        kind: ClientKind::Registered,
    }
}

fn login(state: &str) -> Login {
    Login {
        request: super::request("client-one", Some(state)),
        browser: hash("cookie"),
        verifier: "the-verifier".to_owned(),
        nonce: "the-nonce".to_owned(),
    }
}

/// Fills a table quickly: `sql` inserts `i` of `1..=rows`.
fn fill(store: &Store, rows: usize, sql: &str) {
    let numbers = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) {sql}"
    );
    let inserted = store.write(|tx| tx.execute(&numbers, []));
    assert_eq!(inserted.unwrap(), rows);
}

fn too_many<T>(result: Result<T, StoreError>) -> &'static str {
    match result {
        Err(StoreError::TooMany { what, .. }) => what,
        Err(error) => panic!("{error}"),
        Ok(_) => "",
    }
}

/// S5.
#[test]
fn a_client_is_kept_as_it_registered() {
    let dir = TempDir::new("store-client");
    let store = open(dir.path());
    store.add_client(&client("a", "A"), at(0)).unwrap();
    let public = Client {
        auth: ClientAuth::None,
        ..client("b", "B")
    };
    store.add_client(&public, at(0)).unwrap();
    assert!(store.add_client(&client("a", "again"), at(1)).is_err());
    drop(store);
    let store = open(dir.path());
    let found = store.client("a").unwrap().unwrap();
    assert_eq!((&*found.id, &*found.name), ("a", "A"));
    assert_eq!(found.redirect_uris, client("a", "A").redirect_uris);
    assert!(matches!(found.auth, ClientAuth::Secret(it) if it == hash("client-secret")));
    assert_eq!(found.kind, ClientKind::Registered);
    let found = store.client("b").unwrap().unwrap();
    assert!(matches!(found.auth, ClientAuth::None));
    assert!(store.client("c").unwrap().is_none());
}

/// Issue 5, 9: stored rows are bounded; what was never used makes room, the oldest first.
#[test]
fn there_are_only_so_many_clients() {
    let dir = TempDir::new("store-clients");
    let store = open(dir.path());
    let sql = format!(
        "INSERT INTO clients SELECT 'id' || i, 'n', '[]', NULL, {START} - (i = 1), NULL FROM n"
    );
    fill(&store, MAX_CLIENTS - 1, &sql);
    store
        .add_client(&client("client-one", "One"), at(1))
        .unwrap();
    sign_in(&store, "1", "0");
    store.add_client(&client("a", "A"), at(2)).unwrap();
    assert_eq!(rows(&store, "clients"), MAX_CLIENTS);
    assert!(store.client("id1").unwrap().is_none(), "the oldest");
    assert!(store.client("id2").unwrap().is_some());
    store.add_client(&client("b", "B"), at(DAY)).unwrap();
    assert_eq!(rows(&store, "clients"), 3);
    assert!(
        store.client("client-one").unwrap().is_some(),
        "it is in use"
    );
}

#[test]
fn a_login_is_taken_once_and_in_time() {
    let dir = TempDir::new("store-login");
    let store = open(dir.path());
    for (ends, is_there) in [(0, true), (599, true), (600, false), (601, false)] {
        let state = hash(&format!("state-{ends}"));
        store.add_login(&state, &login("s"), at(0)).unwrap();
        assert!(store.take_login(&hash("other"), at(0)).unwrap().is_none());
        let taken = store.take_login(&state, at(ends)).unwrap();
        assert_eq!(taken.is_some(), is_there, "{ends}");
        if let Some(taken) = taken {
            assert_eq!(taken.request.client_id, "client-one");
            assert_eq!(taken.request.state.as_deref(), Some("s"));
            assert_eq!(taken.browser, hash("cookie"));
            assert_eq!(
                (&*taken.verifier, &*taken.nonce),
                ("the-verifier", "the-nonce")
            );
        }
        assert!(store.take_login(&state, at(0)).unwrap().is_none(), "twice");
    }
}

#[test]
fn there_are_only_so_many_logins_users_and_grants() {
    let dir = TempDir::new("store-caps");
    let store = open(dir.path());
    let later = START + 600;
    fill(
        &store,
        1000,
        &format!("INSERT INTO logins SELECT CAST(i AS BLOB), x'00', {later} FROM n"),
    );
    let add = |state, second| store.add_login(&hash(state), &login("s"), at(second));
    add("a", 1).unwrap();
    add("b", 599).unwrap();
    assert_eq!(rows(&store, "logins"), 1000, "the oldest made room");
    let take = |state: &str| store.take_login(&hash(state), at(599)).unwrap();
    assert!(take("a").is_some() && take("b").is_some());
    add("c", 600).unwrap();
    assert_eq!(rows(&store, "logins"), 1, "the others had expired");

    let sql = "INSERT INTO users SELECT 'i', 's' || i, 'n', NULL, 0, ";
    fill(&store, 10_000, &format!("{sql} {START}, NULL, NULL FROM n"));
    let save = |second| store.save_user(&user("1", "a"), &upstream("1"), at(second));
    assert_eq!(too_many(save(DAY - 1)), "users");
    save(DAY).unwrap();
    save(DAY).unwrap();
    assert_eq!(rows(&store, "users"), 1);

    let sql = format!(
        "INSERT INTO grants SELECT 'g' || i, 'i', 's' || i, 'c', 'c', 'r', 's', 'mcp', 'u', 'c',
            0, 0, {}, 1 FROM n",
        START + 2 * DAY
    );
    fill(
        &store,
        10_000,
        "INSERT INTO users SELECT 'i', 's' || i, 'n', NULL, 0, 0, NULL, NULL FROM n",
    );
    fill(&store, 10_000, &sql);
    let add = |second| store.add_code(&hash("c"), &new_grant("mine", "1"), at(second));
    assert_eq!(too_many(add(2 * DAY - 1)), "grants");
    add(2 * DAY).unwrap();
    assert_eq!(rows(&store, "grants"), 1, "the others were over");
}

#[test]
fn a_user_cannot_use_up_the_grants_of_all() {
    let dir = TempDir::new("store-user-grants");
    let store = open(dir.path());
    sign_in(&store, "2", "other");
    sign_in(&store, "1", "first");
    for no in 0..63 {
        sign_in(&store, "1", &format!("g{no}"));
    }
    assert_eq!(rotate(&store, "first", "first-2", at(10)), "issued");
    let add = |grant: &str| store.add_code(&hash(grant), &new_grant(grant, "1"), at(11));
    let dropped = add("one-more").unwrap();
    assert_eq!(dropped.len(), 1);
    assert_ne!(dropped, ["first"], "it was used last");
    assert_eq!(
        live(&store, &["other", "first-2"], at(11)),
        ["other", "first-2"]
    );
    assert_eq!(rows(&store, "grants"), 65);
}

/// R17, S19: one record a user, sealed; the newest counts.
#[test]
fn a_user_has_one_record_of_upstream_tokens() {
    let dir = TempDir::new("store-user");
    let store = open(dir.path());
    let alice = user("1", "alice");
    assert!(store.user(ISSUER, "1").unwrap().is_none());
    store.save_user(&alice, &upstream("1"), at(0)).unwrap();
    assert_eq!(
        store.user(ISSUER, "1").unwrap(),
        Some((alice.clone(), Some(upstream("1"))))
    );
    let renamed = user("1", "alicia");
    store.save_user(&renamed, &upstream("2"), at(5)).unwrap();
    let bare = UpstreamTokens {
        refresh: None,
        expires: None,
        lifetime: None,
        scope: None,
        ..upstream("3")
    };
    store.save_tokens(ISSUER, "1", &bare).unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(
        store.user(ISSUER, "1").unwrap(),
        Some((renamed, Some(bare)))
    );
    let listed = &store.users(at(7)).unwrap()[0];
    assert_eq!((listed.created, listed.seen), (at(0), at(5)));
    assert!(
        store
            .user("https://elsewhere.example", "1")
            .unwrap()
            .is_none()
    );
}

#[test]
fn whoever_must_sign_in_again_loses_grants_and_tokens_but_nobody_else_does() {
    let dir = TempDir::new("store-forget");
    let store = open(dir.path());
    sign_in(&store, "1", "a");
    sign_in(&store, "1", "b");
    sign_in(&store, "2", "other");
    assert_eq!(store.forget_tokens(ISSUER, "1").unwrap(), 2);
    assert_eq!(live(&store, &["a", "b", "other"], at(1)), ["other"]);
    assert_eq!(rotate(&store, "a", "x", at(1)), "invalid_grant");
    assert_eq!(
        store.user(ISSUER, "1").unwrap(),
        Some((user("1", "1"), None))
    );
    let late = store.save_tokens(ISSUER, "1", &upstream("late"));
    assert!(matches!(late, Err(StoreError::NoUser)));
    sign_in(&store, "1", "c");
    assert_eq!(live(&store, &["c"], at(1)), ["c"]);
    store.revoke_user("1").unwrap();
    let late = store.add_code(&hash("late"), &new_grant("late", "1"), at(1));
    assert!(matches!(late, Err(StoreError::NoUser)));
    let late = store.save_tokens(ISSUER, "1", &upstream("late"));
    assert!(matches!(late, Err(StoreError::NoUser)));
}

/// Issue 5, 7: exactly the one who is meant.
#[test]
fn users_are_revoked_by_name_subject_or_both() {
    let dir = TempDir::new("store-revoke-user");
    let store = open(dir.path());
    for (subject, name) in [
        ("1", "alice"),
        ("2", "bob"),
        ("3", "bob"),
        ("4", "1"),
        ("5", "eve"),
    ] {
        sign_in(&store, subject, subject);
        store
            .save_user(&user(subject, name), &upstream(subject), at(1))
            .unwrap();
    }
    let full = |subject: &str| format!("{ISSUER}#{subject}");
    type Case<'a> = (&'a str, Result<usize, Vec<String>>, &'a [&'a str]);
    let cases: &[Case<'_>] = &[
        ("nobody", Err(vec![]), &["1", "2", "3", "4", "5"]),
        ("ALICE", Err(vec![]), &["1", "2", "3", "4", "5"]),
        (
            "bob",
            Err(vec![full("2"), full("3")]),
            &["1", "2", "3", "4", "5"],
        ),
        (
            "1",
            Err(vec![full("1"), full("4")]),
            &["1", "2", "3", "4", "5"],
        ),
        (&full("1"), Ok(1), &["2", "3", "4", "5"]),
        ("2", Ok(1), &["3", "4", "5"]),
        ("bob", Ok(1), &["4", "5"]),
        ("eve", Ok(1), &["4"]),
        ("eve", Err(vec![]), &["4"]),
    ];
    for (name, expected, left) in cases {
        let done = store.revoke_user(name).map_err(|error| match error {
            StoreError::Ambiguous { ids, .. } => ids,
            StoreError::Unknown { .. } => Vec::new(),
            error => panic!("{error}"),
        });
        assert_eq!(&done, expected, "{name}");
        assert_eq!(
            live(&store, &["1", "2", "3", "4", "5"], at(2)),
            *left,
            "{name}"
        );
        let users = store.users(at(2)).unwrap();
        assert_eq!(users.len(), left.len(), "{name}");
        assert!(users.iter().all(|user| user.grants == 1), "{name}");
    }
}

#[test]
fn clients_are_revoked_by_id_or_name() {
    let dir = TempDir::new("store-revoke-client");
    let store = open(dir.path());
    store
        .save_user(&user("1", "a"), &upstream("1"), at(0))
        .unwrap();
    for (id, name) in [
        ("reg-1", "One"),
        ("reg-2", "Twice"),
        ("reg-3", "Twice"),
        ("bad", "reg-1"),
    ] {
        store.add_client(&client(id, name), at(0)).unwrap();
    }
    for id in ["reg-1", "reg-2", "https://doc.example/c"] {
        let grant = NewGrant {
            client_id: id.to_owned(),
            client_name: "Doc".to_owned(),
            ..new_grant(id, "1")
        };
        store.add_code(&hash(id), &grant, at(3)).unwrap();
        let new = new_tokens(id, at(4));
        store.redeem_code(&hash(id), &fits, &new, at(4)).unwrap();
    }
    let list = |store: &Store| -> Vec<(String, String, ClientKind, usize, Option<SystemTime>)> {
        let row = |it: ClientRow| (it.id, it.name, it.kind, it.grants, it.used);
        store.clients(at(5)).unwrap().into_iter().map(row).collect()
    };
    let row = |id: &str, name: &str, kind, grants, used| {
        (id.to_owned(), name.to_owned(), kind, grants, used)
    };
    use ClientKind::{Document, Registered};
    assert_eq!(
        list(&store),
        [
            row("https://doc.example/c", "Doc", Document, 1, Some(at(4))),
            row("reg-1", "One", Registered, 1, Some(at(4))),
            row("reg-2", "Twice", Registered, 1, Some(at(4))),
            row("reg-3", "Twice", Registered, 0, None),
            row("bad", "reg-1", Registered, 0, None),
        ]
    );
    let twice = store.revoke_client("Twice").unwrap_err();
    assert!(matches!(twice, StoreError::Ambiguous { ids, .. } if ids.len() == 2));
    let unknown = store.revoke_client("nobody");
    assert!(matches!(unknown, Err(StoreError::Unknown { .. })));
    assert_eq!(store.revoke_client("reg-1").unwrap(), 1);
    assert!(
        store.client("bad").unwrap().is_some(),
        "an id goes before a name"
    );
    assert_eq!(store.revoke_client("https://doc.example/c").unwrap(), 1);
    assert_eq!(
        live(&store, &["reg-1", "reg-2", "https://doc.example/c"], at(5)),
        ["reg-2"]
    );
    assert_eq!(list(&store).len(), 3);
}

/// Each line: after so many seconds, how many clients, users, grants, codes and access tokens are
/// left of one that was used, one that never was, and one whose code was never redeemed.
#[test]
fn what_is_over_is_deleted_at_most_hourly() {
    let dir = TempDir::new("store-purge");
    let store = open(dir.path());
    for id in ["client-one", "never-used"] {
        store.add_client(&client(id, id), at(0)).unwrap();
    }
    sign_in(&store, "1", "g");
    store
        .save_user(&user("2", "b"), &upstream("2"), at(0))
        .unwrap();
    store
        .add_code(&hash("c"), &new_grant("never-redeemed", "2"), at(0))
        .unwrap();
    store.add_login(&hash("l"), &login("l"), at(0)).unwrap();
    let tables = [
        "logins", "clients", "users", "grants", "codes", "access", "refresh",
    ];
    let table = [
        (59, [1, 2, 2, 2, 2, 1, 1]),
        (3600, [1, 2, 2, 2, 2, 1, 1]), // an hour after the last, less a minute
        (3659, [0, 2, 2, 1, 0, 0, 1]),
        (DAY - 1, [0, 2, 2, 1, 0, 0, 1]),
        (DAY + 3600, [0, 1, 1, 1, 0, 0, 1]),
        (GRANT - 1, [0, 1, 1, 1, 0, 0, 1]),
        (GRANT + 3600, [0, 1, 0, 0, 0, 0, 0]),
        (90 * DAY - 1, [0, 1, 0, 0, 0, 0, 0]),
        (90 * DAY + 3600, [0, 0, 0, 0, 0, 0, 0]),
    ];
    for (second, expected) in table {
        store.purge(at(second)).unwrap();
        assert_eq!(
            tables.map(|table| rows(&store, table)),
            expected,
            "{second}"
        );
    }
}

/// Issue 5, 7: `mcp-broker user revoke` is another process.
#[test]
fn changes_by_others_are_seen_once_and_own_ones_never() {
    let dir = TempDir::new("store-others");
    let (server, command) = (open(dir.path()), open(dir.path()));
    sign_in(&server, "1", "0");
    assert_eq!(rotate(&server, "0", "1", at(1)), "issued");
    assert!(!server.changed_by_others().unwrap());
    command.users(at(1)).unwrap();
    assert!(!server.changed_by_others().unwrap(), "it only read");
    command.revoke_user("1").unwrap();
    assert!(server.changed_by_others().unwrap());
    assert!(!server.changed_by_others().unwrap());
    assert!(server.live_access(at(1)).unwrap().is_empty());
    command.add_client(&client("a", "A"), at(1)).unwrap();
    sign_in(&server, "2", "g");
    assert!(
        server.changed_by_others().unwrap(),
        "also after a transaction of its own"
    );
    drop(command);
    assert!(
        !server.changed_by_others().unwrap(),
        "closing changes nothing"
    );
}
