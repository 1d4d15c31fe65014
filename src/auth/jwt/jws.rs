//! A signed token taken apart (RFC 7515, section 7.1: the compact form). Nothing that it says is
//! believed here, and nothing in its header can name a key of its own: `jwk`, `jku`, `x5c` and
//! `x5u` are not looked at.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::strict;

/// The longest token that is looked at.
const MAX_TOKEN_BYTES: usize = 8 << 10;
pub(super) const MAX_KEY_ID_BYTES: usize = 256;

/// A token whose signature is still to be checked.
pub(super) struct Signed<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<String>,
    pub(super) claims: Map<String, Value>,
    /// What is signed.
    pub(super) message: &'a [u8],
    pub(super) signature: Vec<u8>,
}

/// Takes a token apart; the error says what is wrong with it.
pub(super) fn read(token: &str) -> Result<Signed<'_>, &'static str> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err("it is too long");
    }
    let (message, signature) = token.rsplit_once('.').ok_or("it is no JWT")?;
    let (header, claims) = message.split_once('.').ok_or("it is no JWT")?;
    if claims.contains('.') {
        return Err("it has more than three parts");
    }
    let object = |part: &str| decode(part).and_then(|bytes| strict::object(&bytes));
    let header = object(header).ok_or("its header is not a plain JSON object")?;
    let (algorithm, key_id) = read_header(&header)?;
    Ok(Signed {
        algorithm,
        key_id,
        claims: object(claims).ok_or("its claims are not a plain JSON object")?,
        message: message.as_bytes(),
        signature: decode(signature).ok_or("its signature is not base64url")?,
    })
}

/// Base64url in its one form: no padding, no bits left over.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

fn read_header(header: &Map<String, Value>) -> Result<(Algorithm, Option<String>), &'static str> {
    let algorithm = header.get("alg").and_then(Value::as_str);
    let algorithm = algorithm.and_then(Algorithm::parse);
    let algorithm = algorithm.ok_or("its algorithm is not one that could be configured")?;
    // RFC 7515, section 4.1.11: what it names must be understood, and nothing of it is.
    if header.contains_key("crit") {
        return Err("its header has extensions that must be understood");
    }
    match header.get("typ") {
        None => {}
        Some(Value::String(kind)) if is_access_token(kind) => {}
        Some(_) => return Err("its typ is neither JWT nor at+jwt"),
    }
    let key_id = match header.get("kid") {
        None => None,
        Some(Value::String(id)) if id.len() <= MAX_KEY_ID_BYTES => Some(id.clone()),
        Some(_) => return Err("its kid is not a short string"),
    };
    Ok((algorithm, key_id))
}

/// RFC 9068, section 2.1; RFC 7515, section 4.1.9: a media type, with or without `application/`.
fn is_access_token(kind: &str) -> bool {
    let kind = kind.to_ascii_lowercase();
    matches!(
        kind.strip_prefix("application/").unwrap_or(&kind),
        "jwt" | "at+jwt"
    )
}
