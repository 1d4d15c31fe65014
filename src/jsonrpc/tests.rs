//! Messages as they come, well-formed and not.

use super::*;

fn kind(text: &str) -> Result<Kind, ParseError> {
    parse(text).map(|message| message.kind)
}

#[test]
fn tells_messages_by_their_members() {
    let check = |text, expected| assert_eq!(kind(text), Ok(expected), "{text}");
    check(r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#, Kind::Request);
    check(
        r#" {"method":"m","jsonrpc":"2.0","id":"x","params":[]} "#,
        Kind::Request,
    );
    check(r#"{"jsonrpc":"2.0","method":"m"}"#, Kind::Notification);
    check(r#"{"jsonrpc":"2.0","id":1,"result":null}"#, Kind::Response);
    check(
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":""}}"#,
        Kind::Response,
    );
    check(
        r#"{"json\u0072pc":"2.0","\u0069d":1,"method":"m"}"#,
        Kind::Request,
    );
    check(
        r#"{"jsonrpc":"2.0","id":1,"method":"m","extra":{"id":2,"method":"n"}}"#,
        Kind::Request,
    );
}

#[test]
fn refuses_what_is_not_json() {
    let check = |text| assert_eq!(kind(text), Err(ParseError::NotJson), "{text}");
    check("");
    check("{");
    check("hello");
    check(r#"{"jsonrpc":"2.0","id":1,"method":"m"} x"#);
    check(r#"{"jsonrpc":"2.0","id":1,"method":"m",}"#);
    check(r#"{"jsonrpc":"2.0","id":01,"method":"m"}"#);
    check("{\"jsonrpc\":\"2.0\",\"method\":\"a\nb\"}");
    check(r#"{"jsonrpc":"2.0","method":"m","params":{"a":[1,2}}"#);
    check(r#"{"jsonrpc":"2.0","method":"\ud800"}"#.replace("\\ud800", "\\x").as_str());
}

#[test]
fn refuses_json_that_is_no_message() {
    let check = |text: &str| {
        assert!(
            matches!(kind(text), Err(ParseError::NotMessage(_))),
            "{text}: {:?}",
            kind(text)
        );
    };
    check("[]");
    check("1");
    check("null");
    check("{}");
    check(r#"{"id":1,"method":"m"}"#);
    check(r#"{"jsonrpc":"1.0","id":1,"method":"m"}"#);
    check(r#"{"jsonrpc":2.0,"id":1,"method":"m"}"#);
    check(r#"{"jsonrpc":"2.0","id":{},"method":"m"}"#);
    check(r#"{"jsonrpc":"2.0","id":null,"method":"m"}"#);
    check(r#"{"jsonrpc":"2.0","id":1,"method":7}"#);
    check(r#"{"jsonrpc":"2.0","id":1,"method":"m","result":1}"#);
    check(r#"{"jsonrpc":"2.0","id":1,"result":1,"error":{}}"#);
    check(r#"{"jsonrpc":"2.0","result":1}"#);
    check(r#"{"jsonrpc":"2.0","id":1,"method":"m","method":"n"}"#);
    check(r#"{"jsonrpc":"2.0","id":1,"\u0069d":2,"method":"m"}"#);
}

#[test]
fn compares_ids_by_value() {
    let same = |a, b| assert_eq!(Id::parse(a), Id::parse(b), "{a} {b}");
    same("1", "1.0");
    same("1", "1e0");
    same("-0", "0");
    same(r#""a\u0062""#, r#""ab""#);
    same(r#""\/""#, r#""/""#);
    same(
        "1234567890123456789012345678901234567890",
        "1.2345678901234568e39",
    );
    let differ = |a, b| assert_ne!(Id::parse(a), Id::parse(b), "{a} {b}");
    differ("1", r#""1""#);
    differ("9007199254740992", "9007199254740993");
    differ("0.5", "0.25");
    assert_eq!(Id::parse("null"), Some(Id::Null));
    for other in ["{}", "[]", "true", ""] {
        assert_eq!(Id::parse(other), None, "{other}");
    }
}

#[test]
fn borrows_members_as_they_stand() {
    let text = r#"{"jsonrpc":"2.0","id":1,"method":"m","params": {"a": 1.50, "_meta":{"t":12}} }"#;
    let message = parse(text).unwrap();
    assert_eq!(message.params, Some(r#"{"a": 1.50, "_meta":{"t":12}}"#));
    assert_eq!(member(message.params.unwrap(), "a"), Some("1.50"));
    let meta = member(message.params.unwrap(), "_meta").unwrap();
    assert_eq!(member(meta, "t"), Some("12"));
    assert_eq!(member(meta, "u"), None);
    assert_eq!(member("[1]", "t"), None);
    assert_eq!(member(r#"{"\u0074":1}"#, "t"), Some("1"));
}

#[test]
fn splits_batches() {
    assert!(is_batch(" [1]"));
    assert!(!is_batch(" {}"));
    assert_eq!(
        split_batch(r#"[ {"a":1} , 2 ]"#),
        Ok(vec![r#"{"a":1}"#, "2"])
    );
    assert!(matches!(split_batch("[]"), Err(ParseError::NotMessage(_))));
    assert_eq!(split_batch("[1,]"), Err(ParseError::NotJson));
}

#[test]
fn error_responses_escape_their_message() {
    let text = error_response("\"x\"", code::SERVER_ERROR, "said \"no\"\n");
    assert_eq!(
        text,
        r#"{"jsonrpc":"2.0","id":"x","error":{"code":-32000,"message":"said \"no\"\n"}}"#
    );
    assert_eq!(parse(&text).unwrap().kind, Kind::Response);
}

#[test]
fn several_members_are_picked_in_one_reading() {
    let object = r#"{"a":1,"b":{"c":2},"\u0063":[3],"a":4}"#;
    assert_eq!(
        pick(object, ["c", "a", "d"]),
        [Some("[3]"), Some("4"), None]
    );
    assert_eq!(pick("[1]", ["a", "b"]), [None; 2]);
    assert_eq!(pick(r#"{"a":1,}"#, ["a"]), [None]);
}
