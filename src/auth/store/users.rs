//! Those who signed in, each with the one record of what the provider gave the broker to act for
//! them (facts B.2: a provider may keep only the newest pair of tokens alive).

use std::time::{Duration, SystemTime};

use rusqlite::{OptionalExtension, Transaction, params};
use serde_json::{Value, json};

use super::error::StoreError;
use super::{Store, aad, count, purge, seconds, time};
use crate::auth::upstream::{Admission, UpstreamTokens};

const MAX_USERS: usize = 10_000;

/// Who somebody is to the provider.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct User {
    pub(crate) issuer: String,
    pub(crate) subject: String,
    pub(crate) name: String,
    pub(crate) email: Option<String>,
}

/// A line of `mcp-broker user list`.
#[derive(Debug)]
pub(crate) struct UserRow {
    pub(crate) user: User,
    pub(crate) created: SystemTime,
    /// When they last signed in or one of their clients last renewed its tokens.
    pub(crate) seen: SystemTime,
    /// In force now.
    pub(crate) grants: usize,
}

impl UpstreamTokens {
    fn to_json(&self) -> String {
        json!({
            "access": self.access,
            "refresh": self.refresh,
            "expires": self.expires.map(seconds),
            "lifetime": self.lifetime.map(|lifetime| lifetime.as_secs()),
            "scope": self.scope,
        })
        .to_string()
    }

    fn from_json(json: &[u8]) -> Option<Self> {
        let tokens: Value = serde_json::from_slice(json).ok()?;
        let text = |key: &str| tokens.get(key)?.as_str().map(str::to_owned);
        Some(Self {
            access: text("access")?,
            refresh: text("refresh"),
            expires: tokens.get("expires")?.as_i64().map(time),
            lifetime: tokens.get("lifetime")?.as_u64().map(Duration::from_secs),
            scope: text("scope"),
        })
    }
}

impl Admission {
    fn to_json(&self) -> String {
        let Self {
            username,
            email,
            groups,
        } = self;
        json!({ "username": username, "email": email, "groups": groups }).to_string()
    }

    fn from_json(json: &str) -> Option<Self> {
        let admission: Value = serde_json::from_str(json).ok()?;
        let text = |key: &str| admission.get(key)?.as_str().map(str::to_owned);
        let groups = admission.get("groups")?.as_array()?.iter();
        Some(Self {
            username: text("username"),
            email: text("email"),
            groups: groups
                .filter_map(|it| it.as_str().map(str::to_owned))
                .collect(),
        })
    }
}

impl Store {
    /// Keeps somebody who just signed in, with the tokens of this sign-in in the place of any
    /// others.
    pub(crate) fn save_user(
        &self,
        user: &User,
        tokens: &UpstreamTokens,
        now: SystemTime,
    ) -> Result<(), StoreError> {
        let place = place(&user.issuer, &user.subject);
        let sealed = self.key.seal(&place, tokens.to_json().as_bytes())?;
        let sql = "INSERT INTO users (issuer, subject, name, email, created, seen, tokens)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6)
                   ON CONFLICT DO UPDATE SET name = excluded.name, email = excluded.email,
                       seen = excluded.seen, tokens = excluded.tokens";
        let User {
            issuer,
            subject,
            name,
            email,
        } = user;
        self.write(|tx| {
            if !is_known(tx, issuer, subject)? && !has_room(tx, now)? {
                return Ok(Err(StoreError::TooMany {
                    what: "users",
                    most: MAX_USERS,
                }));
            }
            let row = params![issuer, subject, name, email, seconds(now), sealed];
            tx.execute(sql, row).map(|_| Ok(()))
        })?
    }

    /// Keeps what a refresh at the provider brought. It is on the disk when this returns: the
    /// provider may have made the old pair worthless.
    ///
    /// # Errors
    /// [`StoreError::NoUser`] if the user was taken away, or must sign in again, meanwhile: the new
    /// tokens must not be used.
    pub(crate) fn save_tokens(
        &self,
        issuer: &str,
        subject: &str,
        tokens: &UpstreamTokens,
    ) -> Result<(), StoreError> {
        let place = place(issuer, subject);
        let sealed = self.key.seal(&place, tokens.to_json().as_bytes())?;
        let sql = "UPDATE users SET tokens = ?3
                   WHERE issuer = ?1 AND subject = ?2 AND tokens IS NOT NULL";
        match self.write(|tx| tx.execute(sql, (issuer, subject, sealed)))? {
            0 => Err(StoreError::NoUser),
            _ => Ok(()),
        }
    }

    /// Somebody who signed in once. Without tokens they must do so again.
    pub(crate) fn user(
        &self,
        issuer: &str,
        subject: &str,
    ) -> Result<Option<(User, Option<UpstreamTokens>)>, StoreError> {
        let sql = "SELECT name, email, tokens FROM users WHERE issuer = ?1 AND subject = ?2";
        let found: Option<(User, Option<Vec<u8>>)> = self.read(|db| {
            let row = db.query_row(sql, [issuer, subject], |row| {
                let user = User {
                    issuer: issuer.to_owned(),
                    subject: subject.to_owned(),
                    name: row.get(0)?,
                    email: row.get(1)?,
                };
                Ok((user, row.get(2)?))
            });
            row.optional()
        })?;
        let Some((user, sealed)) = found else {
            return Ok(None);
        };
        let Some(sealed) = sealed else {
            return Ok(Some((user, None)));
        };
        let plain = self.unseal(&place(issuer, subject), &sealed)?;
        let tokens = UpstreamTokens::from_json(&plain).ok_or_else(|| StoreError::Damaged {
            path: self.path.clone(),
            why: "a user's tokens cannot be read".to_owned(),
        })?;
        Ok(Some((user, Some(tokens))))
    }

    /// Keeps by what somebody who just signed in was let in, for [`Self::expel`].
    pub(crate) fn save_admission(
        &self,
        issuer: &str,
        subject: &str,
        admission: &Admission,
    ) -> Result<(), StoreError> {
        let sql = "UPDATE users SET admission = ?3 WHERE issuer = ?1 AND subject = ?2";
        self.write(|tx| tx.execute(sql, (issuer, subject, admission.to_json())))?;
        Ok(())
    }

    /// Ends the grants of everybody of this issuer who may not enter any more. Returns how many
    /// people that were. Of whom nothing is known, nothing speaks for.
    pub(crate) fn expel(
        &self,
        issuer: &str,
        may_enter: &dyn Fn(&str, &Admission) -> bool,
    ) -> Result<usize, StoreError> {
        let sql = "SELECT subject, admission FROM users u WHERE issuer = ?1 AND EXISTS
                   (SELECT 1 FROM grants g WHERE g.issuer = u.issuer AND g.subject = u.subject)";
        self.write(|tx| {
            let mut query = tx.prepare(sql)?;
            let rows = query.query_map([issuer], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let rows: Vec<(String, Option<String>)> = rows.collect::<rusqlite::Result<_>>()?;
            let mut expelled = 0;
            for (subject, admission) in rows {
                let admission = admission.as_deref().and_then(Admission::from_json);
                if !may_enter(&subject, &admission.unwrap_or_default()) {
                    let sql = "DELETE FROM grants WHERE issuer = ?1 AND subject = ?2";
                    tx.execute(sql, [issuer, &*subject])?;
                    expelled += 1;
                }
            }
            Ok(expelled)
        })
    }

    /// Drops a user's upstream tokens, which the provider no longer honours, and ends all their
    /// grants: they must sign in again. Returns how many grants those were.
    pub(crate) fn forget_tokens(&self, issuer: &str, subject: &str) -> Result<usize, StoreError> {
        let whose = "WHERE issuer = ?1 AND subject = ?2";
        self.write(|tx| {
            let forget = format!("UPDATE users SET tokens = NULL {whose}");
            tx.execute(&forget, [issuer, subject])?;
            tx.execute(&format!("DELETE FROM grants {whose}"), [issuer, subject])
        })
    }

    /// All users, by name.
    pub(crate) fn users(&self, now: SystemTime) -> Result<Vec<UserRow>, StoreError> {
        let sql = "SELECT issuer, subject, name, email, created, seen, (SELECT count(*)
                       FROM grants g WHERE g.issuer = u.issuer AND g.subject = u.subject
                       AND g.redeemed AND g.expires > ?1)
                   FROM users u ORDER BY name, issuer, subject";
        self.read(|db| {
            let mut query = db.prepare(sql)?;
            let rows = query.query_map([seconds(now)], |row| {
                let grants: i64 = row.get(6)?;
                Ok(UserRow {
                    user: User {
                        issuer: row.get(0)?,
                        subject: row.get(1)?,
                        name: row.get(2)?,
                        email: row.get(3)?,
                    },
                    created: time(row.get(4)?),
                    seen: time(row.get(5)?),
                    grants: usize::try_from(grants).unwrap_or_default(),
                })
            })?;
            rows.collect()
        })
    }

    /// Takes a user away, with their tokens and grants, and returns how many grants those were.
    /// They are named by subject, by name, or, where that is not enough, by `ISSUER#SUBJECT`.
    pub(crate) fn revoke_user(&self, name_or_subject: &str) -> Result<usize, StoreError> {
        let whose = "WHERE issuer = ?1 AND subject = ?2";
        self.write(|tx| {
            let (issuer, subject) = match named(tx, name_or_subject)? {
                Ok(found) => found,
                Err(error) => return Ok(Err(error)),
            };
            let key = [&issuer, &subject];
            let ended = tx.execute(&format!("DELETE FROM grants {whose}"), key)?;
            tx.execute(&format!("DELETE FROM users {whose}"), key)?;
            Ok(Ok(ended))
        })?
    }
}

pub(super) fn is_known(
    tx: &Transaction<'_>,
    issuer: &str,
    subject: &str,
) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM users WHERE issuer = ?1 AND subject = ?2";
    tx.prepare(sql)?.exists([issuer, subject])
}

fn has_room(tx: &Transaction<'_>, now: SystemTime) -> rusqlite::Result<bool> {
    const COUNT: &str = "SELECT count(*) FROM users";
    if count(tx, COUNT)? >= MAX_USERS {
        purge::users(tx, now)?;
    }
    Ok(count(tx, COUNT)? < MAX_USERS)
}

/// Issuer and subject of the one user who is meant. A whole identity goes before anything that a
/// provider may let people choose.
fn named(
    tx: &Transaction<'_>,
    name: &str,
) -> rusqlite::Result<Result<(String, String), StoreError>> {
    for condition in ["issuer || '#' || subject = ?1", "subject = ?1 OR name = ?1"] {
        let sql = format!("SELECT issuer, subject FROM users WHERE {condition} ORDER BY 1, 2");
        let mut query = tx.prepare(&sql)?;
        let rows = query.query_map([name], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let mut found: Vec<(String, String)> = rows.collect::<rusqlite::Result<_>>()?;
        if found.len() > 1 {
            let full = |(issuer, subject)| format!("{issuer}#{subject}");
            return Ok(Err(StoreError::Ambiguous {
                what: "user",
                name: name.to_owned(),
                ids: found.into_iter().map(full).collect(),
            }));
        }
        if let Some(user) = found.pop() {
            return Ok(Ok(user));
        }
    }
    let (what, name) = ("user", name.to_owned());
    Ok(Err(StoreError::Unknown { what, name }))
}

fn place(issuer: &str, subject: &str) -> Vec<u8> {
    aad("users", &[issuer.as_bytes(), subject.as_bytes()])
}
