//! Bounds that take many messages to reach.

use super::*;

fn log_message(n: usize) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"n":{n}}}}}"#)
}

/// The numbers of the messages among these lines, for this client.
fn numbers(lines: &[String], client: &str) -> Vec<usize> {
    let is_event = format!("{client} event ");
    let events = lines.iter().filter(|line| line.starts_with(&is_event));
    let number = |line: &String| {
        let (_, tail) = line.rsplit_once("\"n\":").unwrap();
        let digits = tail.split(['}', ',']).next().unwrap();
        digits.parse().unwrap()
    };
    events.map(number).collect()
}

#[test]
fn the_oldest_of_too_many_waiting_messages_are_dropped() {
    let mut rig = Rig::initialized("2025-11-25");
    let dropped = crate::metrics::DROPPED_MESSAGES.get();
    (0..300).for_each(|n| rig.child(&log_message(n)));
    assert!(crate::metrics::DROPPED_MESSAGES.get() >= dropped + 44);
    rig.get("g", None);
    let expected: Vec<usize> = (44..300).collect();
    assert_eq!(numbers(&rig.log.take(), "g"), expected);
    rig.get("h", None);
    assert_eq!(numbers(&rig.log.take(), "h"), [0; 0]);
}

#[test]
fn the_oldest_of_too_large_waiting_messages_are_dropped() {
    let mut rig = Rig::initialized("2025-11-25");
    let large = |n: usize| {
        let text = "x".repeat(300_000);
        format!(r#"{{"jsonrpc":"2.0","method":"m","params":{{"text":"{text}","n":{n}}}}}"#)
    };
    (0..5).for_each(|n| rig.child(&large(n)));
    rig.get("g", None);
    assert_eq!(numbers(&rig.log.take(), "g"), [2, 3, 4]);
    // The bytes are not counted on.
    rig.perform("gone g");
    (5..8).for_each(|n| rig.child(&large(n)));
    rig.get("h", None);
    assert_eq!(numbers(&rig.log.take(), "h"), [5, 6, 7]);
}

#[test]
fn one_waiting_message_may_be_larger_than_all_may_be_together() {
    let mut rig = Rig::initialized("2025-11-25");
    let text = "x".repeat(3_000_000);
    rig.child(&log_message(0));
    rig.child(&format!(
        r#"{{"jsonrpc":"2.0","method":"m","params":{{"text":"{text}","n":1}}}}"#
    ));
    rig.get("g", None);
    assert_eq!(numbers(&rig.log.take(), "g"), [1]);
}

#[test]
fn a_stream_replays_its_last_256_messages() {
    let mut rig = Rig::initialized("2025-11-25");
    rig.get("g", None);
    (0..300).for_each(|n| rig.child(&log_message(n)));
    rig.log.take();
    rig.get("h", Some("0-0"));
    let expected: Vec<usize> = (44..300).collect();
    assert_eq!(numbers(&rig.log.take(), "h"), expected);
}

#[test]
fn a_stream_replays_its_last_megabyte() {
    let mut rig = Rig::initialized("2025-11-25");
    rig.get("g", None);
    let text = "x".repeat(300_000);
    for n in 0..5 {
        rig.child(&format!(
            r#"{{"jsonrpc":"2.0","method":"m","params":{{"text":"{text}","n":{n}}}}}"#
        ));
    }
    rig.log.take();
    rig.get("h", Some("0-0"));
    assert_eq!(numbers(&rig.log.take(), "h"), [2, 3, 4]);
}

#[test]
fn the_last_8_ended_streams_can_be_resumed() {
    let mut rig = Rig::initialized("2025-11-25");
    for n in 1..=10 {
        let name = format!("c{n}");
        rig.post(
            &name,
            &format!(r#"{{"jsonrpc":"2.0","id":{n},"method":"m"}}"#),
        );
        rig.child(&log_message(n));
        rig.child(&format!(
            r#"{{"jsonrpc":"2.0","id":{n},"result":{{"n":{n}}}}}"#
        ));
    }
    rig.log.take();
    // `init` was the first post, so these are the posts 2 to 11.
    let mut resumed = Vec::new();
    for post in 2..=11 {
        rig.get("g", Some(&format!("{post}-0")));
        resumed.push(numbers(&rig.log.take(), "g"));
    }
    let expected: Vec<Vec<usize>> = (1..=10)
        .map(|n| if n <= 2 { vec![] } else { vec![n, n] })
        .collect();
    assert_eq!(resumed, expected);
}

/// Else those who wait would learn that the child has ended, which is not why.
#[test]
fn the_end_of_a_session_is_known_before_the_child_can_see_it() {
    let mut rig = Rig::initialized("2025-11-25");
    rig.post("a", r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#);
    rig.log.take();
    rig.bridge.close();
    assert!(rig.bell.was_in_time.load(Ordering::Relaxed));
    assert!(!rig.bridge.lane.is_open());
    rig.service();
    rig.perform("exit status 0");
    let seen = rig.log.take();
    assert!(seen[0].contains("the session has ended"), "{seen:?}");
}

#[test]
fn the_end_of_a_session_answers_everybody_once() {
    let mut rig = Rig::initialized("2025-11-25");
    for n in 1..=MAX_IN_FLIGHT {
        rig.post(
            &format!("c{n}"),
            &format!(r#"{{"jsonrpc":"2.0","id":{n},"method":"m"}}"#),
        );
    }
    rig.log.take();
    rig.bridge.close();
    rig.service();
    let mut answered = rig.log.take();
    answered.sort();
    let expected: Vec<String> = (1..=MAX_IN_FLIGHT)
        .map(|n| {
            let error = r#"{"code":-32000,"message":"the session has ended"}"#;
            format!(r#"c{n} json {{"jsonrpc":"2.0","id":{n},"error":{error}}}"#)
        })
        .collect();
    assert_eq!(answered, expected);
}
