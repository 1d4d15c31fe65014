//! Changes to the text of a message that leave the rest of it as it came, byte for byte.

use std::fmt;
use std::ops::Range;

use serde_core::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::text;

/// One member of an object, as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member<'a> {
    /// With its quotes.
    pub(crate) key: &'a str,
    pub(crate) value: &'a str,
}

impl Member<'_> {
    /// Whether the key, read as text, is this one.
    pub(crate) fn is(&self, name: &str) -> bool {
        text(self.key).is_some_and(|key| key == name)
    }
}

/// The members of an object in their order; empty if the text is no object.
pub(crate) fn members(object: &str) -> Vec<Member<'_>> {
    struct All;
    impl<'de> Visitor<'de> for All {
        type Value = Vec<Member<'de>>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = Vec::new();
            while let Some(key) = map.next_key::<&RawValue>()? {
                let value = map.next_value::<&RawValue>()?.get();
                let key = key.get();
                found.push(Member { key, value });
            }
            Ok(found)
        }
    }
    serde_json::Deserializer::from_str(object)
        .deserialize_map(All)
        .unwrap_or_default()
}

/// Changes to one text, made all at once. The parts that are named must be borrowed from that very
/// text and must not overlap.
pub(crate) struct Edit<'a> {
    text: &'a str,
    changes: Vec<(Range<usize>, String)>,
}

impl<'a> Edit<'a> {
    pub(crate) fn of(text: &'a str) -> Self {
        Self {
            text,
            changes: Vec::new(),
        }
    }

    /// Puts `with` in place of a part of the text.
    pub(crate) fn replace(&mut self, part: &'a str, with: impl Into<String>) -> &mut Self {
        let range = self.range(part);
        self.changes.push((range, with.into()));
        self
    }

    /// Adds members to an object, before all others; each is a key without quotes and escapes, and
    /// the text of a value. To be called once for an object.
    pub(crate) fn put(&mut self, object: &'a str, new: &[(&str, &str)]) -> &mut Self {
        let start = self.range(object).start + 1;
        let is_empty = object[1..].trim_start().starts_with('}');
        let mut added = String::new();
        for (at, (key, value)) in new.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            added.push_str(&format!(r#"{comma}"{key}":{value}"#));
        }
        if !is_empty && !new.is_empty() {
            added.push(',');
        }
        self.changes.push((start..start, added));
        self
    }

    /// Takes members out of an object, by their names.
    pub(crate) fn remove(
        &mut self,
        object: &'a str,
        is_unwanted: impl Fn(&str) -> bool,
    ) -> &mut Self {
        self.remove_of(&members(object), is_unwanted)
    }

    /// Takes some of an object's members out; they are all that it has.
    pub(crate) fn remove_of(
        &mut self,
        members: &[Member<'a>],
        is_unwanted: impl Fn(&str) -> bool,
    ) -> &mut Self {
        let is_unwanted =
            |member: &Member<'_>| text(member.key).is_some_and(|key| is_unwanted(&key));
        let mut some_kept_before = false;
        for (at, member) in members.iter().enumerate() {
            if !is_unwanted(member) {
                some_kept_before = true;
                continue;
            }
            let end = self.range(member.value).end;
            let range = match (some_kept_before, at.checked_sub(1), members.get(at + 1)) {
                (true, Some(before), _) => self.range(members[before].value).end..end,
                (_, _, Some(next)) => self.range(member.key).start..self.range(next.key).start,
                (_, _, None) => self.range(member.key).start..end,
            };
            self.changes.push((range, String::new()));
        }
        self
    }

    /// The text with all changes.
    pub(crate) fn done(&mut self) -> String {
        let mut changes = std::mem::take(&mut self.changes);
        // Stable: what is put at one place stands in the order in which it was put.
        changes.sort_by_key(|(range, _)| (range.start, range.end));
        let added: usize = changes.iter().map(|(_, with)| with.len()).sum();
        let mut done = String::with_capacity(self.text.len() + added);
        let mut at = 0;
        for (range, with) in changes {
            done.push_str(&self.text[at..range.start.max(at)]);
            done.push_str(&with);
            at = at.max(range.end);
        }
        done.push_str(&self.text[at..]);
        done
    }

    /// Where a part stands.
    fn range(&self, part: &str) -> Range<usize> {
        let start = (part.as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize);
        debug_assert!(start + part.len() <= self.text.len(), "a part of the text");
        start..start + part.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::member;
    use super::*;

    #[test]
    fn changes_only_what_is_named() {
        let line =
            r#"{ "id" : 1.50e3, "params":{"_meta":{ },"n":12345678901234567890, "x":"\u0061"} }"#;
        let params = member(line, "params").unwrap();
        let done = Edit::of(line)
            .replace(member(line, "id").unwrap(), "7")
            .put(params, &[("a", "1"), ("b", "{}")])
            .put(member(params, "_meta").unwrap(), &[("c/d", "true")])
            .done();
        assert_eq!(
            done,
            r#"{ "id" : 7, "params":{"a":1,"b":{},"_meta":{"c/d":true },"n":12345678901234567890, "x":"\u0061"} }"#
        );
    }

    #[test]
    fn takes_members_out_wherever_they_stand() {
        let remove = |object: &str, names: &[&str]| {
            Edit::of(object)
                .remove(object, |name| names.contains(&name))
                .done()
        };
        let object = r#"{"a": 1, "b":[2] , "c":{"a":3}}"#;
        assert_eq!(remove(object, &["a"]), r#"{"b":[2] , "c":{"a":3}}"#);
        assert_eq!(remove(object, &["b"]), r#"{"a": 1 , "c":{"a":3}}"#);
        assert_eq!(remove(object, &["c"]), r#"{"a": 1, "b":[2]}"#);
        assert_eq!(remove(object, &["a", "b"]), r#"{"c":{"a":3}}"#);
        assert_eq!(remove(object, &["b", "c"]), r#"{"a": 1}"#);
        assert_eq!(remove(object, &["a", "c"]), r#"{"b":[2]}"#);
        assert_eq!(remove(object, &["a", "b", "c"]), "{}");
        assert_eq!(remove(object, &["d"]), object);
        assert_eq!(remove(r#"{"\u0061":1}"#, &["a"]), "{}");
        assert_eq!(remove("{}", &["a"]), "{}");
    }

    #[test]
    fn lists_members_as_they_stand() {
        let object = r#" {"a" : 1.0 , "\u0062":[ ]}"#;
        let found = members(object);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].key, found[0].value), (r#""a""#, "1.0"));
        assert!(found[1].is("b"));
        assert_eq!(members("[1]"), []);
    }
}
