//! Logins under way: from the user's consent to the provider's answer. Their number is bounded,
//! since a visitor needs nothing but a browser to begin one. With too many the oldest goes: to
//! refuse newcomers would let a flood keep everybody out.

use std::fmt;
use std::time::{Duration, SystemTime};

use rusqlite::OptionalExtension;
use serde_json::{Value, json};

use super::error::StoreError;
use super::{Store, aad, count, seconds, span};
use crate::auth::oauth::Hash;
use crate::auth::oauth::authorize::Request;

/// How long the provider and the user may take.
const LIFETIME: Duration = Duration::from_secs(600);
const MAX_LOGINS: usize = 1000;

/// What must be known again when the provider answers.
pub(crate) struct Login {
    /// What the client asked for and the user agreed to.
    pub(crate) request: Request,
    /// Of the cookie of the browser that agreed.
    pub(crate) browser: Hash,
    /// The PKCE verifier towards the provider. It is secret.
    pub(crate) verifier: String,
    /// What the provider's ID token must repeat.
    pub(crate) nonce: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(..)")
    }
}

impl Login {
    fn to_json(&self) -> String {
        json!({
            "request": self.request.to_json(),
            "browser": hex::encode(self.browser),
            "verifier": self.verifier,
            "nonce": self.nonce,
        })
        .to_string()
    }

    fn from_json(json: &[u8]) -> Option<Self> {
        let login: Value = serde_json::from_slice(json).ok()?;
        let text = |key: &str| login.get(key)?.as_str();
        let mut browser = Hash::default();
        hex::decode_to_slice(text("browser")?, &mut browser).ok()?;
        Some(Self {
            request: Request::from_json(text("request")?)?,
            browser,
            verifier: text("verifier")?.to_owned(),
            nonce: text("nonce")?.to_owned(),
        })
    }
}

impl Store {
    /// Keeps a login for ten minutes, under the hash of the `state` that is sent to the provider.
    pub(crate) fn add_login(
        &self,
        state: &Hash,
        login: &Login,
        now: SystemTime,
    ) -> Result<(), StoreError> {
        let sealed = self.key.seal(&place(state), login.to_json().as_bytes())?;
        let sql = "INSERT INTO logins (state, sealed, expires) VALUES (?1, ?2, ?3)";
        self.write(|tx| {
            tx.execute("DELETE FROM logins WHERE expires <= ?1", [seconds(now)])?;
            if count(tx, "SELECT count(*) FROM logins")? >= MAX_LOGINS {
                let oldest = "DELETE FROM logins WHERE state =
                    (SELECT state FROM logins ORDER BY expires LIMIT 1)";
                tx.execute(oldest, [])?;
            }
            let expires = seconds(now).saturating_add(span(LIFETIME));
            tx.execute(sql, (state, sealed, expires)).map(drop)
        })
    }

    /// Takes a login out: whatever comes of it, it can be taken once only.
    pub(crate) fn take_login(
        &self,
        state: &Hash,
        now: SystemTime,
    ) -> Result<Option<Login>, StoreError> {
        let sql = "DELETE FROM logins WHERE state = ?1 RETURNING sealed, expires";
        let taken: Option<(Vec<u8>, i64)> = self.write(|tx| {
            let row = tx.query_row(sql, [state], |row| Ok((row.get(0)?, row.get(1)?)));
            row.optional()
        })?;
        let Some((sealed, _)) = taken.filter(|(_, expires)| *expires > seconds(now)) else {
            return Ok(None);
        };
        let plain = self.unseal(&place(state), &sealed)?;
        let login = Login::from_json(&plain).ok_or_else(|| StoreError::Damaged {
            path: self.path.clone(),
            why: "a login cannot be read".to_owned(),
        });
        login.map(Some)
    }
}

fn place(state: &Hash) -> Vec<u8> {
    aad("logins", &[state])
}
