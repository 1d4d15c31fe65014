//! `requestState`: what a client hands back to resume a suspended call, sealed.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest as _, Sha256};

use crate::jsonrpc::{Edit, members};

use super::request::is_of_a_retry;

/// What a request asks for: equal for a request and its retry.
pub(super) type Digest = [u8; 32];

const FORMAT: u8 = 1;
const PAYLOAD: usize = 1 + 8 + 4 + 8;
const TAG: usize = 32;

/// What a state says. None of it is a secret; it only must not be forged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    /// The suspended call.
    pub(super) call: i64,
    /// The round of questions that the retry is to answer.
    pub(super) round: u32,
    /// In milliseconds since the child began.
    pub(super) expires: u64,
}

/// Makes and opens states (2026-07-28, mrtr, "Server Requirements" 4 and 5): HMAC-SHA-256 under a
/// key of this process, over a context (the principal, the server, the child), what the request
/// asks for, and what the state says. That each is redeemed once is the translator's affair.
pub(crate) struct Sealer {
    /// Has the key and the context already.
    mac: Hmac<Sha256>,
}

impl Sealer {
    /// `context` tells this child from all others that have the same key.
    pub(crate) fn new(key: [u8; 32], context: &str) -> Self {
        // HMAC itself fills a key that is shorter than a block with zeros (RFC 2104 section 2).
        let mut block = [0; 64];
        block[..key.len()].copy_from_slice(&key);
        let mut mac = Hmac::<Sha256>::new(&block.into());
        mac.update(&(context.len() as u64).to_be_bytes());
        mac.update(context.as_bytes());
        Self { mac }
    }

    pub(super) fn seal(&self, digest: &Digest, sealed: Sealed) -> String {
        let payload = sealed.to_bytes();
        let tag = self.mac_of(digest, &payload).finalize().into_bytes();
        hex::encode(payload) + &hex::encode(tag)
    }

    /// `None` if the state was not made by this sealer for this request.
    pub(super) fn open(&self, digest: &Digest, state: &str) -> Option<Sealed> {
        let mut bytes = [0; PAYLOAD + TAG];
        hex::decode_to_slice(state, &mut bytes).ok()?;
        let (payload, tag) = bytes.split_at(PAYLOAD);
        let mac = self.mac_of(digest, payload);
        mac.verify_slice(tag).ok()?; // in constant time
        Sealed::from_bytes(payload)
    }

    fn mac_of(&self, digest: &Digest, payload: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        mac.update(digest);
        mac.update(payload);
        mac
    }
}

impl Sealed {
    fn to_bytes(self) -> [u8; PAYLOAD] {
        let mut bytes = [FORMAT; PAYLOAD];
        bytes[1..9].copy_from_slice(&self.call.to_be_bytes());
        bytes[9..13].copy_from_slice(&self.round.to_be_bytes());
        bytes[13..].copy_from_slice(&self.expires.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (format, bytes) = bytes.split_first()?;
        let (call, bytes) = bytes.split_first_chunk()?;
        let (round, bytes) = bytes.split_first_chunk()?;
        let (expires, _) = bytes.split_first_chunk()?;
        (*format == FORMAT).then(|| Self {
            call: i64::from_be_bytes(*call),
            round: u32::from_be_bytes(*round),
            expires: u64::from_be_bytes(*expires),
        })
    }
}

/// What a call asks for. Its text, as long as nobody wants to know: most calls are never suspended,
/// and a digest costs more than all else that is done to a request.
#[derive(Debug)]
pub(super) enum Asked {
    Text { method: Box<str>, params: Box<str> },
    Digest(Digest),
}

impl Asked {
    /// `room` is how many bytes of text may be kept.
    pub(super) fn new(method: &str, params: &str, room: usize) -> Self {
        match params.len() <= room {
            true => Self::Text {
                method: method.into(),
                params: params.into(),
            },
            false => Self::Digest(digest(method, params)),
        }
    }

    pub(super) fn digest(&mut self) -> Digest {
        let digest = match self {
            Self::Text { method, params } => digest(method, params),
            Self::Digest(digest) => return *digest,
        };
        *self = Self::Digest(digest);
        digest
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Text { params, .. } => params.len(),
            Self::Digest(_) => 0,
        }
    }
}

/// The digest of a request: its method, and its params but for what may differ in a retry.
/// Whitespace, escapes and the order of keys do not matter: a client may print them anew.
pub(super) fn digest(method: &str, params: &str) -> Digest {
    let mut hash = Sha256::new();
    hash.update((method.len() as u64).to_be_bytes());
    hash.update(method);
    hash.update(canonical(params));
    hash.finalize().into()
}

fn canonical(params: &str) -> String {
    let may_differ = |name: &str| name == "_meta" || is_of_a_retry(name);
    if let Ok(serde_json::Value::Object(mut members)) = serde_json::from_str(params) {
        members.retain(|name, _| !may_differ(name));
        return serde_json::Value::from(members).to_string(); // sorted by key
    }
    // Nested too deep for a tree: only the very same text is the same then.
    match members(params).is_empty() {
        true => params.to_owned(),
        false => Edit::of(params).remove(params, may_differ).done(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEALED: Sealed = Sealed {
        call: 7,
        round: 2,
        expires: 1_000,
    };

    fn sealer(context: &str) -> Sealer {
        Sealer::new([3; 32], context)
    }

    #[test]
    fn opens_what_it_made_for_this_request_only() {
        let (mine, other) = (digest("tools/call", "{}"), digest("prompts/get", "{}"));
        let state = sealer("a").seal(&mine, SEALED);
        assert_eq!(sealer("a").open(&mine, &state), Some(SEALED));
        assert_eq!(sealer("a").open(&other, &state), None);
        assert_eq!(sealer("b").open(&mine, &state), None);
        assert_eq!(Sealer::new([4; 32], "a").open(&mine, &state), None);
    }

    #[test]
    fn what_is_asked_for_is_the_same_kept_or_not() {
        let params = r#"{"b" : 1,"a":"\u0061"}"#;
        let wanted = digest("tools/call", params);
        for (room, bytes) in [(params.len(), params.len()), (params.len() - 1, 0)] {
            let mut asked = Asked::new("tools/call", params, room);
            assert_eq!(asked.bytes(), bytes);
            assert_eq!([asked.digest(), asked.digest()], [wanted; 2]);
            assert_eq!(asked.bytes(), 0, "the text is let go");
        }
    }

    #[test]
    fn a_state_with_one_bit_changed_is_forged() {
        let digest = digest("tools/call", "{}");
        let state = sealer("a").seal(&digest, SEALED);
        for at in 0..state.len() {
            for with in ["0", "8", "z", ""] {
                let mut forged = state.clone();
                forged.replace_range(at..=at, with);
                let is_same = forged == state;
                assert_eq!(
                    sealer("a").open(&digest, &forged).is_some(),
                    is_same,
                    "{forged}"
                );
            }
        }
        assert_eq!(sealer("a").open(&digest, &(state + "00")), None);
        assert_eq!(sealer("a").open(&digest, ""), None);
    }

    #[test]
    fn a_context_cannot_reach_into_the_rest() {
        let state = sealer("a").seal(&[b'b'; 32], SEALED);
        assert_eq!(sealer("ab").open(&[b'b'; 32], &state), None);
    }

    #[test]
    fn a_request_is_what_it_asks_for_not_how_it_is_written() {
        let first = r#"{"_meta":{"a":1},"name":"ab","arguments":{"x":[1,2.50],"y":null}}"#;
        let same = |params: &str| {
            assert_eq!(digest("m", params), digest("m", first), "{params}");
        };
        same(r#"{"arguments" : {"y":null, "x":[1,2.5]}, "name":"\u0061b"}"#);
        same(
            r#"{"requestState":"s","name":"ab","arguments":{"x":[1,2.50],"y":null},
               "inputResponses":{"q":{}},"_meta":{}}"#,
        );
        let other = |params: &str| {
            assert_ne!(digest("m", params), digest("m", first), "{params}");
        };
        other(r#"{"name":"ab","arguments":{"x":[2.50,1],"y":null}}"#);
        other(r#"{"name":"ab","arguments":{"x":[1,2.50]}}"#);
        other(r#"{"name":"ab","arguments":{"x":[1,2.50],"y":null,"_meta":{"a":1}}}"#);
        other("{}");
        assert_ne!(digest("n", first), digest("m", first));
        assert_ne!(digest("m", "1e400"), digest("m", "2e400"));
    }

    #[test]
    fn params_too_deep_for_a_tree_are_compared_as_text() {
        let deep = |meta: &str| {
            let (open, close) = ("[".repeat(10_000), "]".repeat(10_000));
            format!(r#"{{{meta}"a":{open}{close}}}"#)
        };
        assert_eq!(digest("m", &deep(r#""_meta":1,"#)), digest("m", &deep("")));
        assert_ne!(digest("m", &deep(r#""b":1,"#)), digest("m", &deep("")));
    }
}
