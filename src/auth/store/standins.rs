//! STAND-INS for the shared types of `auth/oauth`, with only the fields that the store uses, until
//! both are merged: then each `use super::standins::` becomes `use crate::auth::oauth::` and this
//! file goes.

use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// SHA-256 of a secret's text.
pub(crate) type Hash = [u8; 32];

pub(crate) fn hash(text: &str) -> Hash {
    Sha256::digest(text.as_bytes()).into()
}

#[derive(Clone)]
pub(crate) struct Resource {
    pub(crate) uri: String,
    pub(crate) server: Arc<str>,
}

#[derive(Clone)]
pub(crate) enum ClientAuth {
    None,
    Secret(Hash),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ClientKind {
    Registered,
    Document,
    Pinned,
}

#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) redirect_uris: Vec<String>,
    pub(crate) auth: ClientAuth,
    pub(crate) kind: ClientKind,
}

/// `oauth::authorize::Request`, whole: only `to_json` and `from_json` are used here.
pub(crate) struct Request {
    pub(crate) client_id: String,
    pub(crate) state: Option<String>,
}

impl Request {
    pub(crate) fn to_json(&self) -> String {
        json!({ "client_id": self.client_id, "state": self.state }).to_string()
    }

    pub(crate) fn from_json(json: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(json).ok()?;
        let state = value.get("state")?.as_str().map(str::to_owned);
        let client_id = value.get("client_id")?.as_str()?.to_owned();
        Some(Self { client_id, state })
    }
}

/// `oauth::token::TokenError`.
#[derive(Debug)]
pub(crate) struct TokenError {
    pub(crate) code: &'static str,
    pub(crate) description: String,
}
