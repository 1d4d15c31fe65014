//! What nobody sends on purpose: pieces of addresses and of requests in any order, from a seed.

use std::collections::BTreeSet;

use super::super::client::{is_document_id, read_document, read_registration};
use super::super::redirect::{host_for_people, is_allowed, is_loopback, matches};
use super::super::token::{pkce_matches, read_revocation, read_token_request};
use super::*;

const ROUNDS: u32 = 5_000;

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn text(&mut self, of: &[&str], longest: usize) -> String {
        (0..self.below(longest)).map(|_| self.pick(of)).collect()
    }

    /// The text with a piece put in, or a character taken out.
    fn mutated(&mut self, text: &str, pieces: &[&str]) -> String {
        let mut chars: Vec<String> = text.chars().map(String::from).collect();
        let at = self.below(chars.len() + 1);
        match self.below(3) {
            0 if at < chars.len() => drop(chars.remove(at)),
            1 if at < chars.len() => chars[at] = self.pick(pieces).to_owned(),
            _ => chars.insert(at, self.pick(pieces).to_owned()),
        }
        chars.concat()
    }
}

#[rustfmt::skip]
const PIECES: &[&str] = &[
    "http", "https", "cursor", "javascript", "com.app", ":", "//", "://", "/", "\\", "@", "#", "?",
    "&", "=", "%", "%2f", "%2e", "%00", "%41", ".", "..", "[", "]", "::1", "[::1]", "localhost",
    "127.0.0.1", "a.example", "evil.com", "0x7f.1",
    ":80", ":443", ":0", ":65536", ":5000", "cb", "callback",
    " ", "\t", "\n", "\0", "é", "\u{202e}", "\u{3002}", "a", "1", "+", "-", ";", "*",
];

#[rustfmt::skip]
const REGISTERED: &[&str] = &[
    "https://a.example/cb", "https://a.example:8443/cb?x=1", "http://localhost/callback",
    "http://127.0.0.1/", "http://[::1]/cb", "cursor://a.cursor/cb", "com.app:/cb",
    "https://localhost/cb", "https://[2001:db8::1]/",
];

/// The host as a lenient reader finds it, which takes a backslash for a slash and looks for the
/// last `@`.
fn lenient_host(uri: &str) -> String {
    let (_, rest) = uri.split_once(':').unwrap_or(("", uri));
    let rest = rest.trim_start_matches(['/', '\\']);
    let authority = rest.split(['/', '\\', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    match host.rfind(']') {
        Some(end) => host[..=end].to_owned(),
        None => host.split(':').next().unwrap_or_default().to_owned(),
    }
}

/// S9, S10: whatever is asked for, what matches goes to the registered host.
#[test]
fn what_matches_has_the_registered_host() {
    let mut dice = Dice(7636);
    let mut matched = BTreeSet::new();
    for _ in 0..ROUNDS {
        let registered = match dice.below(4) {
            0 => dice.text(PIECES, 8),
            _ => dice.pick(REGISTERED).to_owned(),
        };
        let mut asked = registered.clone();
        if dice.below(2) == 0 {
            let host = lenient_host(&registered);
            let with_port = format!("{host}:{}", dice.below(70_000));
            asked = asked.replacen(&host, &with_port, 1);
        }
        for _ in 0..dice.below(4) {
            asked = dice.mutated(&asked, PIECES);
        }
        if dice.below(8) == 0 {
            asked = dice.text(PIECES, 8);
        }
        let _ = (host_for_people(&asked), is_document_id(&asked));
        if !matches(&registered, &asked) {
            continue;
        }
        assert!(is_allowed(&asked).is_ok(), "{registered:?} {asked:?}");
        let both_loopback = is_loopback(&registered) && is_loopback(&asked);
        let same = lenient_host(&registered) == lenient_host(&asked);
        assert!(same, "{registered:?} {asked:?}");
        assert!(
            registered == asked || both_loopback,
            "{registered:?} {asked:?}"
        );
        let safe = asked
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'\\');
        assert!(safe && !asked.contains('#'), "{asked:?}");
        matched.insert(asked);
    }
    assert!(
        matched.len() > 50,
        "only {} addresses matched",
        matched.len()
    );
}

#[rustfmt::skip]
const WORDS: &[&str] = &[
    "client_id=abc&", "client_id=", "redirect_uri=https%3A%2F%2Fa.example%2Fcb&", "redirect_uri=",
    "http://127.0.0.1:5/", "response_type=code&", "state=", "code_challenge_method=S256&",
    "code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&", "resource=", "scope=mcp&",
    "https://mcp.example.org/mcp&", "prompt=none&", "request=x&", "grant_type=authorization_code&",
    "grant_type=refresh_token&", "refresh_token=mcpr_x&", "code=mcpc_x&", "code_verifier=",
    "token=x&", "client_secret=s&", "&", "=", "%", "%0d%0a", "%ff", "+", "é", "\n", "a", "é%",
];

#[rustfmt::skip]
const JSON: &[&str] = &[
    "{", "}", "[", "]", ",", ":", "\"", "\"client_id\":", "\"abc\"", "\"redirect_uris\":", "null",
    "[\"https://a.example/\"]", "\"client_name\":", "1", "\"grant_types\":", "[\"code\"]",
    "\\u0000",
    "{\"client_id\":\"abc\",\"client_name\":\"x\",\"redirect_uris\":[\"https://a.example/\"]", "é",
];

/// Beginnings that get a query further.
const WHO: &str = "client_id=abc&redirect_uri=https%3A%2F%2Fa.example%2Fcb&";
const WHAT: &str = "response_type=code&code_challenge_method=S256&\
    code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&";

const FIELDS: &[&str] = &[
    "Basic", "basic ", " ", "YWJjOnM=", "YWJj", "=", "é", "Bearer ", "Og==",
];

/// S15: nothing panics, and whoever is sent back is sent to the client, with the issuer.
#[test]
fn nothing_panics() {
    let (mut dice, resources) = (Dice(6749), resources(&["forge"]));
    let client = client("abc", &["https://a.example/cb", "http://127.0.0.1/"]);
    let mut outcomes = [0; 3];
    for _ in 0..ROUNDS {
        let (who, what) = (dice.pick(&["", WHO]), dice.pick(&["", WHAT]));
        let text = format!("{who}{what}{}", dice.text(WORDS, 8));
        match ask(&text, &client, &resources) {
            Ok(request) => {
                outcomes[0] += 1;
                assert_eq!(Request::from_json(&request.to_json()), Some(request));
            }
            Err(Refusal::Page(_)) => outcomes[1] += 1,
            Err(Refusal::Redirect(location)) => {
                outcomes[2] += 1;
                let (address, answer) = parts(&location);
                let is_known = |uri: &String| matches(uri, &address);
                assert!(client.redirect_uris.iter().any(is_known), "{location}");
                assert_eq!(answer["iss"], ISSUER);
                assert!(
                    location.bytes().all(|byte| byte.is_ascii_graphic()),
                    "{location}"
                );
            }
        }
        let field = dice.text(FIELDS, 5);
        for field in [None, Some(field.as_str())] {
            let _ = read_token_request(&text, field);
            let _ = read_revocation(&text, field);
        }
        let _ = pkce_matches(&text, CHALLENGE);
        let json = dice.text(JSON, 8);
        let _ = (read_document("abc", &json), read_registration(&json));
        let _ = (
            Request::from_json(&json),
            resources.find(&dice.text(PIECES, 6)),
        );
    }
    assert!(outcomes.iter().all(|count| *count > 20), "{outcomes:?}");
}
