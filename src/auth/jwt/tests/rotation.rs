//! Keys that come and go, and a server of them that does not answer.

use std::sync::Barrier;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;
use crate::thread;

const DAY: u64 = 86_400;

fn slowly(door: &JwtDoor, token: &str, seconds: u64) -> Result<(), AuthError> {
    door.check_slowly(token, &resource(), at(NOW + seconds))
        .map(drop)
}

fn quickly(door: &JwtDoor, token: &str, seconds: u64) -> Result<(), AuthError> {
    door.check(token, &resource(), at(NOW + seconds)).map(drop)
}

/// A token that outlives the test.
fn lasting(signer: &Signer) -> String {
    signer.sign(&claims_with(json!({"exp": NOW + 30 * DAY})))
}

#[test]
fn an_unknown_key_is_asked_for_once_in_a_while() {
    let (old, new) = (
        Signer::named(Algorithm::EdDsa, "1"),
        Signer::named(Algorithm::EdDsa, "2"),
    );
    let (first, second) = (lasting(&old), lasting(&new));
    let server = Fake::new(&[&old]);
    let door = JwtDoor::new(options(), Box::new(server.clone()));
    // Nothing is fetched before there is a reason, nor for what is wrong anyway.
    assert_eq!(quickly(&door, &first, 0), Err(AuthError::Later));
    let expired = old.sign(&claims_with(json!({"exp": NOW})));
    assert_eq!(slowly(&door, &expired, 0), Err(AuthError::Invalid));
    assert_eq!(server.asked(), 0);
    assert_eq!(slowly(&door, &first, 0), Ok(()));
    assert_eq!(slowly(&door, &first, 1), Ok(()));
    assert_eq!(server.asked(), 1);
    server.say(&[&old, &new], None);
    for _ in 0..9 {
        assert_eq!(slowly(&door, &second, 29), Err(AuthError::Invalid));
    }
    assert_eq!(server.asked(), 1);
    assert_eq!(quickly(&door, &second, 30), Err(AuthError::Later));
    assert_eq!(slowly(&door, &second, 30), Ok(()));
    assert_eq!(quickly(&door, &second, 30), Ok(()));
    assert_eq!(quickly(&door, &first, 30), Ok(()));
    assert_eq!(server.asked(), 2);
    // A key that is withdrawn takes with it what it has signed, seen or not.
    server.say(&[&new], None);
    door.tick(at(NOW + 30 + 3600));
    assert_eq!(server.asked(), 3);
    assert_eq!(quickly(&door, &first, 3631), Err(AuthError::Invalid));
    assert_eq!(quickly(&door, &second, 3631), Ok(()));
}

#[test]
fn keys_are_fresh_for_as_long_as_their_server_says_within_bounds() {
    let signer = Signer::new(Algorithm::EdDsa);
    for (said, fresh) in [
        (None, 3600),
        (Some(0), 300),
        (Some(299), 300),
        (Some(1000), 1000),
        (Some(999 * DAY), DAY),
    ] {
        let server = Fake::new(&[]);
        server.say(&[&signer], said.map(Duration::from_secs));
        let door = JwtDoor::new(options(), Box::new(server.clone()));
        assert!(door.keys.is_due(at(NOW)));
        door.tick(at(NOW));
        for (seconds, due) in [(0, false), (fresh - 1, false), (fresh, true)] {
            assert_eq!(
                door.keys.is_due(at(NOW + seconds)),
                due,
                "{said:?} {seconds}"
            );
        }
        door.tick(at(NOW + fresh - 1));
        assert_eq!(server.asked(), 1);
        door.tick(at(NOW + fresh));
        door.tick(at(NOW + fresh + 1));
        assert_eq!(server.asked(), 2);
    }
}

#[test]
fn keys_stay_in_force_for_a_day_when_their_server_is_down() {
    let signer = Signer::new(Algorithm::Es256);
    let stranger = Signer::named(Algorithm::Es256, "2");
    let (token, unknown) = (lasting(&signer), lasting(&stranger));
    let server = Fake::new(&[&signer]);
    let door = JwtDoor::new(options(), Box::new(server.clone()));
    door.tick(at(NOW));
    server.fail();
    door.tick(at(NOW + 3600));
    assert_eq!(server.asked(), 2);
    assert_eq!(quickly(&door, &token, 3600), Ok(()));
    // It may be a new one: nobody can say.
    assert_eq!(slowly(&door, &unknown, 3601), Err(AuthError::Later));
    assert_eq!(server.asked(), 2);
    door.tick(at(NOW + 3630));
    assert_eq!(server.asked(), 3);
    let end = 3600 + DAY;
    assert_eq!(quickly(&door, &token, end - 1), Ok(()));
    assert_eq!(quickly(&door, &token, end), Err(AuthError::Later));
    assert_eq!(slowly(&door, &token, end), Err(AuthError::Later));
    assert_eq!(server.asked(), 4);
    server.say(&[&signer], None);
    assert_eq!(slowly(&door, &token, end + 30), Ok(()));
    // What is no key set is as good as no answer; an empty one is an answer.
    *server.answer.lock() = Ok(("<html>".to_owned(), None));
    door.tick(at(NOW + end + 4000));
    assert_eq!(quickly(&door, &token, end + 4000), Ok(()));
    server.say(&[], None);
    door.tick(at(NOW + end + 4030));
    assert_eq!(quickly(&door, &token, end + 4030), Err(AuthError::Invalid));
}

#[test]
fn a_clock_that_is_set_back_leads_to_one_fetch() {
    let signer = Signer::new(Algorithm::EdDsa);
    let server = Fake::new(&[&signer]);
    let door = JwtDoor::new(options(), Box::new(server.clone()));
    door.tick(at(NOW + 9 * DAY));
    for _ in 0..3 {
        door.tick(at(NOW));
    }
    assert_eq!(server.asked(), 2);
    assert_eq!(quickly(&door, &signer.sign(&claims()), 0), Ok(()));
}

/// A server that answers when it is let.
struct Gated {
    server: Arc<Fake>,
    asked: Mutex<Sender<()>>,
    answer: Mutex<Receiver<()>>,
}

impl KeySource for Gated {
    fn fetch(&self) -> Result<Fetched, String> {
        self.asked.lock().send(()).unwrap();
        let wait = Duration::from_secs(20);
        self.answer.lock().recv_timeout(wait).expect("to be let");
        self.server.fetch()
    }
}

#[test]
fn many_threads_fetch_once_and_who_must_not_wait_does_not() {
    let signer = Signer::new(Algorithm::EdDsa);
    let token = signer.sign(&claims());
    let server = Fake::new(&[&signer]);
    let ((asked, is_asked), (may_answer, answer)) = (channel(), channel());
    let source = Gated {
        server: server.clone(),
        asked: Mutex::new(asked),
        answer: Mutex::new(answer),
    };
    let door = Arc::new(JwtDoor::new(options(), Box::new(source)));
    let barrier = Arc::new(Barrier::new(16));
    let threads: Vec<_> = (0..16)
        .map(|_| {
            let (door, barrier, token) = (door.clone(), barrier.clone(), token.clone());
            thread::spawn("check", move || {
                barrier.wait();
                slowly(&door, &token, 0)
            })
            .unwrap()
        })
        .collect();
    is_asked.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(quickly(&door, &token, 0), Err(AuthError::Later));
    assert!(!door.keys.is_due(at(NOW)));
    may_answer.send(()).unwrap();
    for thread in threads {
        assert_eq!(thread.join(), Some(Ok(())));
    }
    assert_eq!(server.asked(), 1);
    assert_eq!(quickly(&door, &token, 0), Ok(()));
}

/// A server whose answer breaks the one who asks.
struct Broken;

impl KeySource for Broken {
    fn fetch(&self) -> Result<Fetched, String> {
        panic!("as it is meant to");
    }
}

#[test]
fn a_fetch_that_panics_blocks_nobody() {
    let token = Signer::new(Algorithm::EdDsa).sign(&claims());
    let door = Arc::new(JwtDoor::new(options(), Box::new(Broken)));
    let (door2, token2) = (door.clone(), token.clone());
    let panics = thread::spawn("panics", move || slowly(&door2, &token2, 0)).unwrap();
    assert_eq!(panics.join(), None);
    assert_eq!(slowly(&door, &token, 1), Err(AuthError::Later));
    assert!(door.keys.is_due(at(NOW + 30)));
}
