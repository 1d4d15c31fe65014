//! A JSON text whose values know their line, so that a wrong setting can be pointed at. It reads
//! structure lazily, one level at a time, and knows nothing of what the keys mean; `servers.rs` and
//! `settings.rs` do.
//!
//! Each value is a slice of the text (`serde_json::value::RawValue`), and its line is where that
//! slice begins: right by construction, where the position in an error of serde_json is only how
//! far its parser had read.

use std::fmt;

use serde_core::Deserialize;
use serde_core::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::nearest::nearest;

/// What is wrong with a file, and where.
#[derive(Debug)]
pub(super) struct Fault {
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) message: String,
}

/// One value (or key) of a document.
#[derive(Clone, Copy)]
pub(super) struct Node<'a> {
    document: &'a str,
    /// This value's own text, a slice of `document`.
    text: &'a str,
}

/// One key of an object with its value.
pub(super) struct Entry<'a> {
    /// The key, its escapes resolved.
    pub(super) key: String,
    /// The key where it stands.
    pub(super) at: Node<'a>,
    pub(super) value: Node<'a>,
}

impl<'a> Node<'a> {
    /// The outermost value of a document. The whole text is checked to be JSON here, so that later
    /// steps meet wrong types only.
    pub(super) fn parse(document: &'a str) -> Result<Self, Fault> {
        match serde_json::from_str::<&RawValue>(document) {
            Ok(raw) => Ok(Self {
                document,
                text: raw.get(),
            }),
            Err(error) => {
                // Reading values says more ("trailing comma") than stepping over them.
                let error = serde_json::from_str::<Value>(document)
                    .err()
                    .unwrap_or(error);
                Err(Fault {
                    // The end of the text counts as a line of its own after a last newline.
                    line: error.line().min(document.lines().count()).max(1),
                    message: without_position(&error),
                })
            }
        }
    }

    pub(super) fn line(&self) -> usize {
        let start = self.text.as_ptr().addr() - self.document.as_ptr().addr();
        1 + self
            .document
            .bytes()
            .take(start)
            .filter(|byte| *byte == b'\n')
            .count()
    }

    pub(super) fn fault(&self, message: impl Into<String>) -> Fault {
        Fault {
            line: self.line(),
            message: message.into(),
        }
    }

    /// The members of an object, in their order. A key that appears twice is a fault: which one
    /// counts would be a guess.
    pub(super) fn entries(&self) -> Result<Vec<Entry<'a>>, Fault> {
        let Members(members) = self.read("an object")?;
        let mut entries: Vec<Entry<'a>> = Vec::with_capacity(members.len());
        for (key, value) in members {
            let at = self.part(key);
            let key: String = at.read("a string")?;
            if entries.iter().any(|entry| entry.key == key) {
                return Err(at.fault(format!("key {key:?} appears twice")));
            }
            entries.push(Entry {
                key,
                at,
                value: self.part(value),
            });
        }
        Ok(entries)
    }

    /// The elements of a list.
    pub(super) fn items(&self) -> Result<Vec<Node<'a>>, Fault> {
        let items: Vec<&'a RawValue> = self.read("a list")?;
        Ok(items.into_iter().map(|item| self.part(item)).collect())
    }

    pub(super) fn string(&self) -> Result<String, Fault> {
        self.read("a string")
    }

    pub(super) fn boolean(&self) -> Result<bool, Fault> {
        self.read("true or false")
    }

    /// A string, or a number as it is written: `100`, `"100"` and `"4MiB"` are all ways to say how
    /// much.
    pub(super) fn scalar(&self) -> Result<String, Fault> {
        match self.text.as_bytes().first() {
            Some(b'-' | b'0'..=b'9') => Ok(self.text.to_owned()),
            _ => self.read("a string or a number"),
        }
    }

    fn part(&self, raw: &'a RawValue) -> Self {
        Self {
            document: self.document,
            text: raw.get(),
        }
    }

    fn read<T: Deserialize<'a>>(&self, wanted: &str) -> Result<T, Fault> {
        serde_json::from_str(self.text).map_err(|error| match error.is_data() {
            true => self.fault(format!("expected {wanted}, not {}", self.kind())),
            false => self.fault(without_position(&error)),
        })
    }

    fn kind(&self) -> &'static str {
        match self.text.as_bytes().first() {
            Some(b'{') => "an object",
            Some(b'[') => "a list",
            Some(b'"') => "a string",
            Some(b't' | b'f') => "true or false",
            Some(b'n') => "null",
            _ => "a number",
        }
    }
}

impl Entry<'_> {
    /// The fault of a key that nobody knows, with the nearest one that somebody does.
    pub(super) fn unknown<'k>(&self, known: impl IntoIterator<Item = &'k str>) -> Fault {
        let mut message = format!("unknown key {:?}", self.key);
        if let Some(meant) = nearest(&self.key, known) {
            message.push_str(&format!(", did you mean {meant:?}?"));
        }
        self.at.fault(message)
    }
}

fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&position).unwrap_or(&text).to_owned()
}

/// The members of an object as they stand, keys included.
struct Members<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor).map(Members)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Vec<(&'de RawValue, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}
