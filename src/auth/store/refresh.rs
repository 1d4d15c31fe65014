//! Refresh tokens: each is good for one use, and tells of theft when it is used again (OAuth 2.1,
//! section 4.3.1). And revocation by the client (RFC 7009).

use std::time::{Duration, SystemTime};

use rusqlite::{OptionalExtension, Transaction};

use super::error::{RedeemError, StoreError};
use super::grants::{self, GRANT_WIDTH, GrantRow, Issued, NewTokens, read_grant};
use super::{Store, millis, seconds, span};
use crate::auth::oauth::Hash;
use crate::auth::oauth::token::TokenError;

/// How long a client that did not get our answer may ask again.
const GRACE: Duration = Duration::from_secs(30);
/// How often it may do so.
pub(super) const MAX_SUCCESSORS: i64 = 8;
/// Refresh tokens of one grant that are known. An older one that comes back is refused as any
/// unknown one is, and no longer ends the grant.
const MAX_REFRESH_PER_GRANT: i64 = 100;

/// A refresh token; `replaced` is when it was used first.
struct RefreshRow {
    id: i64,
    parent: Option<i64>,
    replaced_ms: Option<i64>,
}

impl Store {
    /// Issues new tokens for a refresh token. `check` compares the request with the grant (client
    /// and its secret, resource, scope); it must not wait and must not use the store.
    ///
    /// The first to bring a token gets its successor. Whoever brings it again within 30 seconds,
    /// and before the successor was used, gets another successor: an answer may get lost, and a
    /// client may ask twice at once. Of several successors the one that is used first stays, the
    /// others count as used from then on. Every other second use ends the grant with all its
    /// tokens, since one of the two who use it is a thief.
    ///
    /// `check` comes first, and when it fails nothing changes. A stolen token in the hands of
    /// another client is thus worth nothing: it can neither be renewed nor serve to throw out the
    /// user. (For a client without a secret, `check` can only compare names, which a thief knows;
    /// against that thief there is rotation.)
    pub(crate) fn rotate(
        &self,
        refresh: &Hash,
        check: &dyn Fn(&GrantRow) -> Result<(), TokenError>,
        new: &NewTokens,
        now: SystemTime,
    ) -> Result<Issued, RedeemError> {
        self.write(|tx| turn(tx, refresh, check, new, now))?
    }

    /// What a refresh token stands for, used or not.
    pub(crate) fn grant_of(
        &self,
        refresh: &Hash,
        now: SystemTime,
    ) -> Result<Option<GrantRow>, StoreError> {
        let sql = format!(
            "SELECT {} FROM refresh r JOIN grants g ON g.id = r.grant_id
             WHERE r.hash = ?1 AND g.expires > ?2",
            grants::grant_columns()
        );
        self.read(|db| {
            db.query_row(&sql, (refresh, seconds(now)), read_grant)
                .optional()
        })
    }

    /// What a client asks to be revoked (RFC 7009, section 2.1): an access token alone, or with any
    /// refresh token the whole grant. Whether there was something; another client's token is as
    /// good as none.
    pub(crate) fn revoke_token(&self, token: &Hash, client_id: &str) -> Result<bool, StoreError> {
        const OWN: &str = "(SELECT id FROM grants WHERE client_id = ?2)";
        let access = format!("DELETE FROM access WHERE hash = ?1 AND grant_id IN {OWN}");
        let family = "DELETE FROM grants WHERE client_id = ?2
                      AND id = (SELECT grant_id FROM refresh WHERE hash = ?1)";
        self.write(|tx| {
            let tokens = tx.execute(&access, (token, client_id))?;
            let grants = tx.execute(family, (token, client_id))?;
            Ok(tokens + grants > 0)
        })
    }
}

fn turn(
    tx: &Transaction<'_>,
    refresh: &Hash,
    check: &dyn Fn(&GrantRow) -> Result<(), TokenError>,
    new: &NewTokens,
    now: SystemTime,
) -> rusqlite::Result<Result<Issued, RedeemError>> {
    let Some((grant, row)) = find(tx, refresh)?.filter(|(grant, _)| grant.expires > now) else {
        let why = "the refresh token is unknown, revoked or expired";
        return Ok(Err(grants::refused(why)));
    };
    if let Err(error) = check(&grant) {
        return Ok(Err(RedeemError::Refused(error)));
    }
    match row.replaced_ms {
        None => replace(tx, &row, now)?,
        Some(replaced) if has_grace(tx, &row, replaced, now)? => {}
        Some(_) => {
            grants::end(tx, &grant)?;
            return Ok(Err(grants::replayed(&grant)));
        }
    }
    let issued = grants::issue(tx, grant, Some(row.id), new, now)?;
    forget_oldest(tx, &issued.grant)?;
    Ok(Ok(issued))
}

fn find(tx: &Transaction<'_>, refresh: &Hash) -> rusqlite::Result<Option<(GrantRow, RefreshRow)>> {
    let sql = format!(
        "SELECT {}, r.id, r.parent, r.replaced_ms FROM refresh r
         JOIN grants g ON g.id = r.grant_id WHERE r.hash = ?1",
        grants::grant_columns()
    );
    let found = tx.query_row(&sql, [refresh], |row| {
        let token = RefreshRow {
            id: row.get(GRANT_WIDTH)?,
            parent: row.get(GRANT_WIDTH + 1)?,
            replaced_ms: row.get(GRANT_WIDTH + 2)?,
        };
        Ok((read_grant(row)?, token))
    });
    found.optional()
}

/// Marks a token as used. The other successors of its parent end here: 1970 is past all grace.
fn replace(tx: &Transaction<'_>, row: &RefreshRow, now: SystemTime) -> rusqlite::Result<()> {
    let sql = "UPDATE refresh SET replaced_ms = 0 WHERE parent = ?1 AND id <> ?2";
    tx.execute(sql, (row.parent, row.id))?;
    let sql = "UPDATE refresh SET replaced_ms = ?2 WHERE id = ?1";
    tx.execute(sql, (row.id, millis(now)))?;
    Ok(())
}

/// A clock that was set back prolongs the grace, but an attacker gains nothing by it once a
/// successor was used.
fn has_grace(
    tx: &Transaction<'_>,
    row: &RefreshRow,
    replaced_ms: i64,
    now: SystemTime,
) -> rusqlite::Result<bool> {
    let sql = "SELECT count(*), count(replaced_ms) FROM refresh WHERE parent = ?1";
    let (successors, used): (i64, i64) =
        tx.query_row(sql, [row.id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let age = millis(now).saturating_sub(replaced_ms);
    Ok(age <= span(GRACE) * 1000 && used == 0 && (1..MAX_SUCCESSORS).contains(&successors))
}

fn forget_oldest(tx: &Transaction<'_>, grant: &GrantRow) -> rusqlite::Result<()> {
    let sql = "DELETE FROM refresh WHERE grant_id = ?1 AND id NOT IN
                   (SELECT id FROM refresh WHERE grant_id = ?1 ORDER BY id DESC LIMIT ?2)";
    tx.execute(sql, (&grant.grant, MAX_REFRESH_PER_GRANT))?;
    Ok(())
}
