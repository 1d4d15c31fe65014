//! A JSON Web Key Set (RFC 7517) made a list of public keys. Keys of unknown kinds, for other uses,
//! or with parameters that make no sense are left out, as section 5 wants it.

use serde_json::{Map, Value};

use super::algorithm::{Algorithm, Material};
use super::jws::{MAX_KEY_ID_BYTES, decode};
use super::strict;

const MAX_KEYS: usize = 64;
const MAX_SET_BYTES: usize = 256 << 10;
/// Of RSA: what `ring` verifies with.
const MODULUS_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A public key of the outside server.
#[derive(Clone, PartialEq)]
pub(super) struct Key {
    id: Option<String>,
    /// The only algorithm that it may be used with; `None`: any for its kind.
    algorithm: Option<Algorithm>,
    material: Material,
}

/// What a set has for a token.
pub(super) enum Choice<'a> {
    One(&'a Key),
    /// Not yet, or no more.
    Nothing,
    /// A key of this name that is not for this algorithm, or more than one that is.
    Mismatch,
}

/// Reads a set. The error is for people.
pub(super) fn read_set(text: &str) -> Result<Vec<Key>, String> {
    if text.len() > MAX_SET_BYTES {
        return Err("the key set is longer than 256 KiB".to_owned());
    }
    let set = strict::object(text.as_bytes()).ok_or("the key set is not a plain JSON object")?;
    let list = set.get("keys").and_then(Value::as_array);
    let list = list.ok_or("the key set has no list of \"keys\"")?;
    if list.len() > MAX_KEYS {
        return Err(format!("the key set has more than {MAX_KEYS} keys"));
    }
    Ok(list
        .iter()
        .filter_map(Value::as_object)
        .filter_map(Key::read)
        .collect())
}

/// The key that a token was signed with, by its `kid`; without one, the only key of that kind.
pub(super) fn choose<'a>(keys: &'a [Key], id: Option<&str>, algorithm: Algorithm) -> Choice<'a> {
    let named = || {
        keys.iter()
            .filter(|key| id.is_none() || key.id.as_deref() == id)
    };
    let mut fitting = named().filter(|key| key.fits(algorithm));
    match (fitting.next(), fitting.next()) {
        (Some(key), None) => Choice::One(key),
        (Some(_), Some(_)) => Choice::Mismatch,
        (None, _) if id.is_some() && named().next().is_some() => Choice::Mismatch,
        (None, _) => Choice::Nothing,
    }
}

impl Key {
    fn fits(&self, algorithm: Algorithm) -> bool {
        self.algorithm.is_none_or(|own| own == algorithm) && algorithm.takes(&self.material)
    }

    pub(super) fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        self.fits(algorithm) && self.material.verify(algorithm, message, signature)
    }

    fn read(key: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        // RFC 7517, section 4.2 and 4.3.
        if key.contains_key("use") && text("use") != Some("sig") {
            return None;
        }
        if let Some(operations) = key.get("key_ops") {
            operations.as_array()?.iter().find(|it| *it == "verify")?;
        }
        let algorithm = match key.get("alg") {
            None => None,
            Some(name) => Some(Algorithm::parse(name.as_str()?)?),
        };
        let id = match key.get("kid") {
            None => None,
            Some(id) => Some(
                id.as_str()
                    .filter(|id| id.len() <= MAX_KEY_ID_BYTES)?
                    .to_owned(),
            ),
        };
        let bytes = |name: &str| decode(text(name)?);
        let material = match (text("kty")?, text("crv")) {
            ("RSA", _) => rsa(bytes("n")?, bytes("e")?)?,
            ("EC", Some("P-256")) => Material::P256(point(&bytes("x")?, &bytes("y")?, 32)?),
            ("EC", Some("P-384")) => Material::P384(point(&bytes("x")?, &bytes("y")?, 48)?),
            ("OKP", Some("Ed25519")) => Material::Ed25519(bytes("x").filter(|x| x.len() == 32)?),
            _ => return None,
        };
        Some(Self {
            id,
            algorithm,
            material,
        })
    }
}

fn rsa(n: Vec<u8>, e: Vec<u8>) -> Option<Material> {
    let plain = |mut bytes: Vec<u8>| {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        bytes.split_off(zeros)
    };
    let (n, e) = (plain(n), plain(e));
    let bits = n.len() * 8 - n.first()?.leading_zeros() as usize;
    let is_odd = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
    // 1 would make every message its own signature.
    let valid = MODULUS_BITS.contains(&bits) && is_odd(&n) && is_odd(&e) && e != [1];
    (valid && e.len() <= 5).then_some(Material::Rsa { n, e })
}

/// RFC 7518, section 6.2.1: coordinates have the full length of the field.
fn point(x: &[u8], y: &[u8], length: usize) -> Option<Vec<u8>> {
    let valid = x.len() == length && y.len() == length;
    valid.then(|| [&[4], x, y].concat())
}
