//! Grants: what a user allowed a client once, and the family of tokens that comes of it. A grant
//! that is taken away is deleted, and all its codes and tokens with it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::error::{RedeemError, StoreError};
use super::refresh::MAX_SUCCESSORS;
use super::{Store, count, millis, purge, seconds, time, users};
use crate::auth::oauth::token::TokenError;
use crate::auth::oauth::{Hash, Resource};

/// How long a code may take from the browser to the client's request.
const CODE_LIFETIME: Duration = Duration::from_secs(60);
const MAX_CODES: usize = 10_000;
const MAX_GRANTS: usize = 10_000;
/// One user's. More than devices with clients on them; a user cannot use up everybody's.
const MAX_GRANTS_PER_USER: usize = 64;
/// Access tokens of one grant that are in force at once: those of all who refreshed together, and
/// the one before, with which requests may still be under way.
const MAX_ACCESS_PER_GRANT: i64 = 1 + MAX_SUCCESSORS;

/// What a user agreed to just now.
pub(crate) struct NewGrant {
    /// Random, not secret.
    pub(crate) grant: String,
    pub(crate) issuer: String,
    pub(crate) subject: String,
    pub(crate) client_id: String,
    pub(crate) client_name: String,
    pub(crate) resource: Resource,
    pub(crate) scope: String,
    pub(crate) redirect_uri: String,
    /// PKCE, S256.
    pub(crate) challenge: String,
    /// When all of it ends, however often tokens are renewed.
    pub(crate) expires: SystemTime,
}

/// The hashes of the tokens to be issued.
pub(crate) struct NewTokens {
    pub(crate) access: Hash,
    /// No token outlives its grant.
    pub(crate) access_expires: SystemTime,
    pub(crate) refresh: Hash,
}

/// A grant as it was agreed to.
#[derive(Clone)]
pub(crate) struct GrantRow {
    pub(crate) grant: Arc<str>,
    pub(crate) issuer: Arc<str>,
    pub(crate) subject: Arc<str>,
    pub(crate) client_id: Arc<str>,
    pub(crate) resource: Resource,
    pub(crate) scope: Arc<str>,
    pub(crate) expires: SystemTime,
}

/// What a code stands for.
pub(crate) struct CodeRow {
    pub(crate) grant: GrantRow,
    pub(crate) redirect_uri: String,
    pub(crate) challenge: String,
}

/// An access token in force: all that a request with it needs.
#[derive(Clone)]
pub(crate) struct LiveAccess {
    pub(crate) hash: Hash,
    pub(crate) grant: Arc<str>,
    pub(crate) issuer: Arc<str>,
    pub(crate) subject: Arc<str>,
    /// The user's.
    pub(crate) name: Arc<str>,
    pub(crate) email: Option<Arc<str>>,
    pub(crate) resource: Resource,
    pub(crate) scope: Arc<str>,
    pub(crate) expires: SystemTime,
    /// When the grant ends.
    pub(crate) grant_expires: SystemTime,
}

/// Tokens that were issued.
pub(crate) struct Issued {
    pub(crate) grant: GrantRow,
    pub(crate) live: LiveAccess,
    /// Access tokens of the same grant that are no longer in force: too many, or expired.
    pub(crate) dropped: Vec<Hash>,
}

const GRANT_COLUMNS: &str = "g.id, g.issuer, g.subject, g.client_id, g.resource, g.server,
    g.scope, g.expires";
/// How many those are.
pub(super) const GRANT_WIDTH: usize = 8;

pub(super) fn grant_columns() -> &'static str {
    GRANT_COLUMNS
}

/// Reads [`GRANT_COLUMNS`], the first of a row.
pub(super) fn read_grant(row: &Row<'_>) -> rusqlite::Result<GrantRow> {
    let text = |index| row.get::<_, Arc<str>>(index);
    Ok(GrantRow {
        grant: text(0)?,
        issuer: text(1)?,
        subject: text(2)?,
        client_id: text(3)?,
        resource: Resource {
            uri: row.get(4)?,
            server: text(5)?,
        },
        scope: text(6)?,
        expires: time(row.get(7)?),
    })
}

impl Store {
    /// Makes a grant and the code by which the client gets its tokens within a minute. The user
    /// must have been saved. Returns the grants that ended because this user has too many: the ones
    /// unused for longest.
    ///
    /// # Errors
    /// [`StoreError::NoUser`] if the user was taken away meanwhile, [`StoreError::TooMany`].
    pub(crate) fn add_code(
        &self,
        code: &Hash,
        grant: &NewGrant,
        now: SystemTime,
    ) -> Result<Vec<String>, StoreError> {
        self.write(|tx| {
            if !users::is_known(tx, &grant.issuer, &grant.subject)? {
                return Ok(Err(StoreError::NoUser));
            }
            let dropped = drop_grants(tx, grant)?;
            if let Some((what, most)) = has_no_room(tx, now)? {
                return Ok(Err(StoreError::TooMany { what, most }));
            }
            insert_grant(tx, grant, now)?;
            let expires = millis(now).saturating_add(millis_of(CODE_LIFETIME));
            let sql = "INSERT INTO codes (hash, grant_id, expires_ms) VALUES (?1, ?2, ?3)";
            tx.execute(sql, (code, &grant.grant, expires))?;
            Ok(Ok(dropped))
        })?
    }

    /// Issues the tokens of a code. `check` compares the request with what was agreed to (client,
    /// redirect URI, PKCE, resource); it runs within the transaction, so it must not wait and must
    /// not use the store.
    ///
    /// A code is good for one attempt (RFC 6749, section 4.1.2; OAuth 2.1, section 4.1.3): it
    /// passed through a browser, so whoever brings it a second time, or with anything that does
    /// not fit, may be a thief. A failing `check` ends the grant before it had a token; a second
    /// use ends the grant with all its tokens, whatever else that request says.
    pub(crate) fn redeem_code(
        &self,
        code: &Hash,
        check: &dyn Fn(&CodeRow) -> Result<(), TokenError>,
        new: &NewTokens,
        now: SystemTime,
    ) -> Result<Issued, RedeemError> {
        self.write(|tx| redeem(tx, code, check, new, now))?
    }

    /// All access tokens in force.
    pub(crate) fn live_access(&self, now: SystemTime) -> Result<Vec<LiveAccess>, StoreError> {
        let sql = format!(
            "SELECT {GRANT_COLUMNS}, a.hash, a.expires, u.name, u.email FROM access a
             JOIN grants g ON g.id = a.grant_id
             JOIN users u ON u.issuer = g.issuer AND u.subject = g.subject
             WHERE a.expires > ?1 AND g.expires > ?1"
        );
        self.read(|db| {
            let mut query = db.prepare(&sql)?;
            let rows = query.query_map([seconds(now)], |row| {
                let grant = read_grant(row)?;
                let user = (row.get(GRANT_WIDTH + 2)?, row.get(GRANT_WIDTH + 3)?);
                let expires = time(row.get(GRANT_WIDTH + 1)?);
                Ok(live(&grant, row.get(GRANT_WIDTH)?, user, expires))
            })?;
            rows.collect()
        })
    }
}

impl Store {
    /// The ids of all grants.
    pub(crate) fn grant_ids(&self, now: SystemTime) -> Result<HashSet<Arc<str>>, StoreError> {
        self.read(|db| {
            let mut query = db.prepare("SELECT id FROM grants WHERE expires > ?1")?;
            let rows = query.query_map([seconds(now)], |row| row.get(0))?;
            rows.collect()
        })
    }
}

fn millis_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Makes room for one more grant of the user.
fn drop_grants(tx: &Transaction<'_>, grant: &NewGrant) -> rusqlite::Result<Vec<String>> {
    let sql = "DELETE FROM grants WHERE id IN (SELECT id FROM grants
                   WHERE issuer = ?1 AND subject = ?2
                   ORDER BY used DESC, created DESC LIMIT -1 OFFSET ?3)
               RETURNING id";
    let stay = MAX_GRANTS_PER_USER.saturating_sub(1) as u64;
    let mut query = tx.prepare(sql)?;
    let key = (&grant.issuer, &grant.subject, stay.cast_signed());
    query.query_map(key, |row| row.get(0))?.collect()
}

/// Of what there are too many, even without those that are over.
fn has_no_room(
    tx: &Transaction<'_>,
    now: SystemTime,
) -> rusqlite::Result<Option<(&'static str, usize)>> {
    const TABLES: [(&str, &str, usize); 2] = [
        ("grants", "SELECT count(*) FROM grants", MAX_GRANTS),
        ("codes", "SELECT count(*) FROM codes", MAX_CODES),
    ];
    for (what, sql, most) in TABLES {
        if count(tx, sql)? >= most {
            purge::grants(tx, now)?;
            if count(tx, sql)? >= most {
                return Ok(Some((what, most)));
            }
        }
    }
    Ok(None)
}

fn insert_grant(tx: &Transaction<'_>, grant: &NewGrant, now: SystemTime) -> rusqlite::Result<()> {
    tx.execute(
        "INSERT INTO grants (id, issuer, subject, client_id, client_name, resource, server, scope,
             redirect_uri, challenge, created, used, expires)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11, ?12)",
        params![
            grant.grant,
            grant.issuer,
            grant.subject,
            grant.client_id,
            grant.client_name,
            grant.resource.uri,
            grant.resource.server,
            grant.scope,
            grant.redirect_uri,
            grant.challenge,
            seconds(now),
            seconds(grant.expires),
        ],
    )?;
    let sql = "UPDATE clients SET used = ?2 WHERE id = ?1";
    tx.execute(sql, (&grant.client_id, seconds(now)))?;
    Ok(())
}

fn redeem(
    tx: &Transaction<'_>,
    code: &Hash,
    check: &dyn Fn(&CodeRow) -> Result<(), TokenError>,
    new: &NewTokens,
    now: SystemTime,
) -> rusqlite::Result<Result<Issued, RedeemError>> {
    let sql = format!(
        "SELECT {GRANT_COLUMNS}, g.redirect_uri, g.challenge, c.used, c.expires_ms
         FROM codes c JOIN grants g ON g.id = c.grant_id WHERE c.hash = ?1"
    );
    let found = tx.query_row(&sql, [code], |row| {
        let code = CodeRow {
            grant: read_grant(row)?,
            redirect_uri: row.get(GRANT_WIDTH)?,
            challenge: row.get(GRANT_WIDTH + 1)?,
        };
        let (used, expires): (bool, i64) = (row.get(GRANT_WIDTH + 2)?, row.get(GRANT_WIDTH + 3)?);
        Ok((code, used, expires))
    });
    let Some((row, used, expires)) = found.optional()? else {
        return Ok(Err(refused("the code is unknown, used or expired")));
    };
    if used {
        end(tx, &row.grant)?;
        return Ok(Err(replayed(&row.grant)));
    }
    if expires <= millis(now) || row.grant.expires <= now {
        end(tx, &row.grant)?;
        return Ok(Err(refused("the code is unknown, used or expired")));
    }
    if let Err(error) = check(&row) {
        end(tx, &row.grant)?;
        return Ok(Err(RedeemError::Refused(error)));
    }
    tx.execute("UPDATE codes SET used = 1 WHERE hash = ?1", [code])?;
    let sql = "UPDATE grants SET redeemed = 1 WHERE id = ?1";
    tx.execute(sql, [&row.grant.grant])?;
    issue(tx, row.grant, None, new, now).map(Ok)
}

/// Writes down new tokens; `parent` is the refresh token that they are given for.
pub(super) fn issue(
    tx: &Transaction<'_>,
    grant: GrantRow,
    parent: Option<i64>,
    new: &NewTokens,
    now: SystemTime,
) -> rusqlite::Result<Issued> {
    let (id, past) = (&grant.grant, seconds(now));
    let expires = seconds(new.access_expires.min(grant.expires));
    let sql = "INSERT INTO refresh (hash, grant_id, parent) VALUES (?1, ?2, ?3)";
    tx.execute(sql, (new.refresh, id, parent))?;
    let sql = "INSERT INTO access (hash, grant_id, expires) VALUES (?1, ?2, ?3)";
    tx.execute(sql, (new.access, id, expires))?;
    let dropped = drop_access(tx, id, past)?;
    tx.execute("UPDATE grants SET used = ?2 WHERE id = ?1", (id, past))?;
    let sql = "UPDATE clients SET used = ?2 WHERE id = ?1";
    tx.execute(sql, (&grant.client_id, past))?;
    let user = tx.query_row(
        "UPDATE users SET seen = ?3 WHERE issuer = ?1 AND subject = ?2 RETURNING name, email",
        (&grant.issuer, &grant.subject, past),
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let live = live(&grant, new.access, user, time(expires));
    Ok(Issued {
        grant,
        live,
        dropped,
    })
}

fn drop_access(tx: &Transaction<'_>, grant: &str, past: i64) -> rusqlite::Result<Vec<Hash>> {
    let sql = "DELETE FROM access WHERE grant_id = ?1 AND (expires <= ?2 OR id NOT IN
                   (SELECT id FROM access WHERE grant_id = ?1 ORDER BY id DESC LIMIT ?3))
               RETURNING hash";
    let mut query = tx.prepare(sql)?;
    let rows = query.query_map((grant, past, MAX_ACCESS_PER_GRANT), |row| row.get(0))?;
    rows.collect()
}

fn live(
    grant: &GrantRow,
    hash: Hash,
    (name, email): (Arc<str>, Option<Arc<str>>),
    expires: SystemTime,
) -> LiveAccess {
    LiveAccess {
        hash,
        grant: grant.grant.clone(),
        issuer: grant.issuer.clone(),
        subject: grant.subject.clone(),
        name,
        email,
        resource: grant.resource.clone(),
        scope: grant.scope.clone(),
        expires,
        grant_expires: grant.expires,
    }
}

/// Ends a grant; its codes and tokens go with it.
pub(super) fn end(tx: &Transaction<'_>, grant: &GrantRow) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM grants WHERE id = ?1", [&grant.grant])?;
    Ok(())
}

pub(super) fn replayed(grant: &GrantRow) -> RedeemError {
    RedeemError::Replayed {
        grant: grant.grant.as_ref().to_owned(),
    }
}

/// RFC 6749, section 5.2.
pub(super) fn refused(description: &str) -> RedeemError {
    RedeemError::Refused(TokenError {
        code: "invalid_grant",
        description: description.to_owned(),
    })
}
