//! Bounds that take many messages to reach.

use super::*;

/// Of one child.
const MAX_LISTENS: usize = 64;
const MAX_SUSPENDED: usize = 64;

fn text_of(number: usize) -> String {
    number.to_string()
}

#[test]
fn a_child_has_only_so_many_subscriptions() {
    let mut rig = Rig::new();
    for n in 0..MAX_LISTENS {
        let client = text_of(n);
        rig.perform(&format!("ask {client} 1 subscriptions/listen"));
    }
    assert_eq!(rig.take_seen().len(), MAX_LISTENS);
    rig.perform("ask more 1 subscriptions/listen");
    assert_eq!(rig.take_seen(), ["more refused id=1 TooManyInFlight"]);
    // They stand in nobody's way, and one that ends makes room.
    rig.perform("ask other 1 prompts/get \"name\":\"p\"");
    assert_eq!(rig.take_seen().len(), 1);
    rig.perform("gone 7");
    rig.take_seen();
    rig.perform("ask more 1 subscriptions/listen");
    assert!(rig.take_seen()[0].starts_with("child "));
}

/// Each keeps something open in the child, and none of them counts as a request in flight.
#[test]
fn a_child_has_only_so_many_suspended_calls() {
    let mut rig = Rig::legacy();
    let ask = |rig: &mut Rig, n: usize| {
        rig.perform(&format!("ask {n} 1 prompts/get \"name\":\"p\""));
        rig.perform(&format!(
            r#"child {{"jsonrpc":"2.0","id":"q{n}","method":"elicitation/create","params":{{"message":"m","requestedSchema":{{"type":"object","properties":{{}}}}}}}}"#
        ));
        rig.perform("wait 0.25");
        rig.take_seen()
    };
    for n in 1..=MAX_SUSPENDED {
        assert_eq!(ask(&mut rig, n).len(), 2, "{n}");
    }
    let seen = ask(&mut rig, MAX_SUSPENDED + 1);
    let of_the_first: Vec<&String> = seen.iter().filter(|it| it.contains("too many")).collect();
    assert_eq!(of_the_first.len(), 2, "{seen:?}");
    assert!(of_the_first[0].contains(r#""id":"q1","error""#), "{seen:?}");
    assert!(of_the_first[1].contains(r#""requestId":1,"#), "{seen:?}");
    // The newest is good.
    rig.perform(r#"ask z 9 prompts/get "name":"p","requestState":"STATE","inputResponses":{"q65":{"action":"decline"}}"#);
    let seen = rig.take_seen();
    assert!(
        seen[0].starts_with(r#"child {"jsonrpc":"2.0","id":"q65","result""#),
        "{seen:?}"
    );
}

/// Requests that are still on their way when their clients have gone are known by their
/// connections, and more of those are remembered than can be under way.
#[test]
fn those_who_left_early_are_remembered() {
    let mut rig = Rig::new();
    for n in 0..50 {
        let client = text_of(n);
        rig.perform(&format!("gone {client}"));
    }
    for n in 0..50 {
        let client = text_of(n);
        rig.perform(&format!("ask {client} 1 prompts/get \"name\":\"p\""));
        assert_eq!(
            rig.take_seen(),
            [format!("{client} refused id=1 ClientGone")]
        );
    }
}

/// 2026-07-28, subscriptions, "Graceful Closure": the child may end as soon as its stdin closes,
/// and then it must be known that this end is ours.
#[test]
fn the_end_is_known_before_the_child_can_see_it() {
    for rig in [Rig::new(), Rig::legacy()] {
        let mut rig = rig;
        rig.perform("ask l 7 subscriptions/listen \"notifications\":{}");
        rig.take_seen();
        rig.bridge.close();
        assert!(rig.bell.was_in_time.load(Ordering::Relaxed));
        assert!(!rig.bridge.lane.is_open());
        rig.service();
        rig.perform("exit status 0");
        let seen = rig.take_seen();
        let result = r#""id":7,"result":{"resultType":"complete""#;
        assert!(seen.iter().any(|it| it.contains(result)), "{seen:?}");
    }
}

#[test]
fn everybody_is_answered_once_at_the_end() {
    for end in ["close", "exit signal 9"] {
        let mut rig = Rig::new();
        for n in 0..MAX_IN_FLIGHT {
            rig.perform(&format!("ask {n} {n} prompts/get \"name\":\"p\""));
        }
        rig.perform("ask l 1 subscriptions/listen");
        rig.take_seen();
        rig.perform(end);
        rig.perform("close");
        rig.perform("wait 30");
        let seen = rig.take_seen();
        for n in 0..MAX_IN_FLIGHT {
            let is_its = |line: &&String| line.starts_with(&format!("{n} answer"));
            assert_eq!(seen.iter().filter(is_its).count(), 1, "{seen:?}");
        }
        assert_eq!(rig.bridge.in_flight(), 0);
        assert!(!rig.bridge.has_clients());
    }
}
