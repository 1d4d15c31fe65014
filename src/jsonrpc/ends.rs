//! A message of which only both ends are known, because it is too long to be taken: which request
//! it answers. Servers write the id before the result or after it. Pure.

use std::fmt;

use serde_core::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Id, member, text};

/// The id of the request that is answered by a message with this beginning and this end; `None` if
/// it is no answer, or that cannot be told.
pub(crate) fn answered_by(head: &[u8], tail: &[u8]) -> Option<Id> {
    let mut seen = Seen::default();
    // It ends in the middle, so this comes to no good end.
    let _ = serde_json::Deserializer::from_str(beginning(head)).deserialize_map(&mut seen);
    if !seen.is_response {
        return None;
    }
    let id = seen.id.map(str::to_owned);
    Id::parse(&id.or_else(|| last_id(&String::from_utf8_lossy(tail)))?)
}

/// What is text of it: it may end in the middle of a character.
fn beginning(head: &[u8]) -> &str {
    head.utf8_chunks().next().map_or("", |chunk| chunk.valid())
}

/// The text of `id`, if it is one of the last members of the object that ends here.
fn last_id(tail: &str) -> Option<String> {
    tail.match_indices("\"id\"").find_map(|(at, _)| {
        // Behind a comma a quote begins a string: if it ended one, what follows were no JSON. And
        // if all from here on is members and one brace, that brace is the message's own.
        let (before, members) = (&tail[..at], format!("{{{}", &tail[at..]));
        let is_end = before.trim_end().ends_with(',')
            && serde_json::from_str::<IgnoredAny>(&members).is_ok();
        member(&members, "id").filter(|_| is_end).map(str::to_owned)
    })
}

/// What the beginning of a message shows.
#[derive(Default)]
struct Seen<'a> {
    is_response: bool,
    /// Only when another member follows: it may be cut, too.
    id: Option<&'a str>,
}

impl<'de> Visitor<'de> for &mut Seen<'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut id = None;
        while let Some(key) = map.next_key::<&RawValue>()? {
            self.id = self.id.or(id.take());
            match text(key.get()).as_deref() {
                Some("id") => id = Some(map.next_value::<&RawValue>()?.get()),
                Some("method") => {
                    self.is_response = false;
                    return Ok(());
                }
                name => {
                    self.is_response |= matches!(name, Some("result" | "error"));
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cuts this message at each `|`: what is before the first is known, and behind the last.
    #[track_caller]
    fn check(message: &str, expected: Option<Id>) {
        let (head, rest) = message.split_once('|').expect("a cut");
        let tail = rest.rsplit('|').next().expect("the end");
        let found = answered_by(head.as_bytes(), tail.as_bytes());
        assert_eq!(found, expected, "{message}");
    }

    fn text(id: &str) -> Id {
        Id::String(id.into())
    }

    #[test]
    fn finds_the_id_before_or_after_the_result() {
        check(
            r#"{"jsonrpc":"2.0","id":17,"result":{"x":"aa|a"}}"#,
            Some(Id::Integer(17)),
        );
        check(
            r#" {"id": "a\u0062" , "error":{"code":1,|}}"#,
            Some(text("ab")),
        );
        check(
            r#"{"result":{"x":"a|a"},"jsonrpc":"2.0","id":17}"#,
            Some(Id::Integer(17)),
        );
        check(
            r#"{"result":{"x":"a|a"} , "id" : "17" , "jsonrpc":"2.0"} "#,
            Some(text("17")),
        );
        check(
            r#"{"jsonrpc":"2.0","result":[|1],"id":"a\"id\"b"}"#,
            Some(text("a\"id\"b")),
        );
        check(
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"\u{e9}|\"}",
            Some(Id::Integer(1)),
        );
    }

    #[test]
    fn takes_no_other_id_for_it() {
        // Of a member, or in a string.
        check(r#"{"result":[|{"a":1,"id":17}],"jsonrpc":"2.0"}"#, None);
        check(r#"{"result":[|{"a":1,"id":17}]}"#, None);
        check(r#"{"result":{"x":"|,\"id\":17}"}"#, None);
        check(r#"{"result":{"x":"|","id":17}}"#, None);
        check(r#"{"result":{"id":17,"x":"|"},"jsonrpc":"2.0"}"#, None);
        // It may go on.
        check(r#"{"result":{},"id":17|"#, None);
        check(r#"{"result":{},"id":"17|"#, None);
    }

    #[test]
    fn what_is_no_answer_answers_nothing() {
        check(
            r#"{"jsonrpc":"2.0","id":17,"method":"m","params":{"x":"|"}}"#,
            None,
        );
        check(
            r#"{"method":"m","params":{"x":"|"},"jsonrpc":"2.0","id":17}"#,
            None,
        );
        check(r#"{"jsonrpc":"2.0","x":"|","id":17,"result":{}}"#, None);
        check(r#"[{"jsonrpc":"2.0","id":17,"result":|{}}]"#, None);
        check(r#"xxx|,"id":17}"#, None);
        check("|", None);
    }
}
