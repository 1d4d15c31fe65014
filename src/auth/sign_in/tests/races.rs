//! Things that happen at the same time, and a store that cannot be read for a while.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::auth::store::NewTokens;
use crate::auth::store::tests::blind;

/// What another process changed is said once: if the store cannot be read just then, it is read
/// with the next refresh.
#[test]
fn a_revocation_is_not_lost_with_a_reading_that_fails() {
    let world = World::new("race-blind");
    let first = world.enter("1", APP, "a");
    let other = world.enter("2", APP, "b");
    world.others().revoke_user("1").unwrap();
    blind(&world.sign_in.store, true);
    for second in 1..3 {
        assert!(world.gone(at(second)).is_empty());
        assert!(world.lets_in(&other, at(second)), "it stays in force");
    }
    blind(&world.sign_in.store, false);
    assert_eq!(world.gone(at(3)), ["1/a"]);
    assert!(!world.lets_in(&first, at(3)) && world.lets_in(&other, at(3)));
}

/// The same of a client's own revocation, which is on the disk whatever comes after.
#[test]
fn a_clients_revocation_is_not_lost_either() {
    let world = World::new("race-blind-client");
    let tokens = world.enter("1", APP, "a");
    blind(&world.sign_in.store, true);
    let form = encoded(&[("client_id", APP), ("token", &tokens.refresh)]);
    let answer = world.sign_in.revoke(&form, None, at(1));
    assert_eq!(answer.unwrap_err().code, "temporarily_unavailable");
    blind(&world.sign_in.store, false);
    assert_eq!(world.gone(at(2)), ["1/a"]);
    assert!(!world.lets_in(&tokens, at(2)));
}

/// A grant is revoked, and found revoked, between the disk and the memory of the thread that
/// issues its first tokens.
#[test]
fn tokens_that_are_revoked_while_they_are_issued_do_not_last() {
    let world = World::new("race-entered");
    let sign_in = &world.sign_in;
    let code = world.agree("1", APP, "a", &lasting());
    let other = world.enter("2", APP, "b");
    let tokens = Tokens {
        access: "mcpa_a".to_owned(),
        refresh: "mcpr_a".to_owned(),
    };
    let new = NewTokens {
        access: oauth::hash(&tokens.access),
        access_expires: at(HOUR),
        refresh: oauth::hash(&tokens.refresh),
    };
    let readings = sign_in.readings();
    let issued = sign_in
        .store
        .redeem_code(&oauth::hash(&code), &|_| Ok(()), &new, at(0))
        .unwrap();
    world.others().revoke_user("1").unwrap();
    assert!(world.gone(at(1)).is_empty(), "nobody has come in yet");
    sign_in.entered(&issued, readings);
    assert_eq!(world.gone(at(2)), ["1/a"]);
    assert!(!world.lets_in(&tokens, at(2)) && world.lets_in(&other, at(2)));
}

/// What was read before the last change is not taken over: it would shut out a new token, and let
/// a revoked one in again.
#[test]
fn what_was_read_before_a_change_is_not_taken_over() {
    let world = World::new("race-reading");
    let first = world.enter("1", APP, "a");
    let reading = world.sign_in.read(at(1)).unwrap();
    let next = world.renew(APP, &first.refresh, at(1)).unwrap();
    assert!(!world.sign_in.take_over(&reading, at(1)));
    assert!(world.lets_in(&first, at(1)) && world.lets_in(&next, at(1)));
    let reading = world.sign_in.read(at(2)).unwrap();
    world.revoke(APP, &first.access, at(2));
    assert!(!world.sign_in.take_over(&reading, at(2)));
    assert!(!world.lets_in(&first, at(2)) && world.lets_in(&next, at(2)));
    let reading = world.sign_in.read(at(3)).unwrap();
    assert!(world.sign_in.take_over(&reading, at(3)), "nothing changed");
    assert!(world.gone(at(3)).is_empty());
}

/// Two clients renew their tokens as fast as they can, while the store is read again and again: of
/// the newest four of each none is refused at any time, and nobody is named.
#[test]
fn no_token_in_force_is_refused_while_the_store_is_read() {
    const READINGS: usize = 200;
    let world = World::new("race-reload");
    let first = [world.enter("1", APP, "a"), world.enter("2", IDE, "b")];
    for no in 0..100 {
        // So that reading takes a while.
        world.enter(&format!("many {}", no % 4), APP, &format!("many {no}"));
    }
    let (is_over, issued) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for (client, tokens) in [APP, IDE].into_iter().zip(&first) {
            let (world, is_over, issued) = (&world, &is_over, &issued);
            scope.spawn(move || {
                let mut newest = VecDeque::from([tokens.clone()]);
                while !is_over.load(Ordering::SeqCst) {
                    let last = newest.back().unwrap().refresh.clone();
                    newest.push_back(world.renew(client, &last, at(1)).unwrap());
                    if newest.len() > 4 {
                        newest.pop_front();
                    }
                    issued.fetch_add(1, Ordering::SeqCst);
                    for tokens in &newest {
                        assert!(world.lets_in(tokens, at(1)));
                    }
                }
            });
        }
        // The threads must hear of it whatever happens.
        let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..READINGS {
                world.sign_in.reload(at(1)).unwrap();
            }
        }));
        is_over.store(true, Ordering::SeqCst);
        read.unwrap();
    });
    assert!(issued.load(Ordering::SeqCst) > 1);
    assert!(world.gone(at(2)).is_empty());
}
