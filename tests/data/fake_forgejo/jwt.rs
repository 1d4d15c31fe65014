//! JSON web tokens with RS256, Forgejo's default.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::rsa::{KeyPair, PublicKeyComponents};
use ring::signature::RSA_PKCS1_SHA256;
use serde_json::{Value, json};

/// A key of no other use; `ring` makes no RSA keys. PKCS #8, DER.
const KEY: &[u8] = include_bytes!("signing_key.pk8");

/// The key of the forge.
pub(crate) struct Key {
    pair: KeyPair,
    id: String,
}

impl Key {
    #[expect(clippy::expect_used, reason = "the key is part of the program")]
    pub(crate) fn new() -> Self {
        let pair = KeyPair::from_pkcs8(KEY).expect("an RSA key in PKCS #8");
        let public = PublicKeyComponents::<Vec<u8>>::from(pair.public());
        let id = encode(digest(&SHA256, &public.n).as_ref());
        Self { pair, id }
    }

    /// The compact form of a token with these claims.
    #[expect(
        clippy::expect_used,
        reason = "fails only without a source of randomness"
    )]
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let header = json!({ "alg": "RS256", "kid": self.id, "typ": "JWT" });
        let text = format!(
            "{}.{}",
            encode(header.to_string().as_bytes()),
            encode(claims.to_string().as_bytes())
        );
        let mut signature = vec![0; self.pair.public().modulus_len()];
        self.pair
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                text.as_bytes(),
                &mut signature,
            )
            .expect("a signature");
        format!("{text}.{}", encode(&signature))
    }

    /// What `/login/oauth/keys` tells.
    pub(crate) fn jwks(&self) -> Value {
        let public = PublicKeyComponents::<Vec<u8>>::from(self.pair.public());
        json!({ "keys": [{
            "kty": "RSA",
            "alg": "RS256",
            "use": "sig",
            "kid": self.id,
            "n": encode(&public.n),
            "e": encode(&public.e),
        }] })
    }
}

/// Base64url without padding.
pub(crate) fn encode(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}
