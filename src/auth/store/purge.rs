//! What nobody needs any longer. Nothing here decides whether something is valid: whoever reads a
//! row compares its time too.

use std::time::{Duration, SystemTime};

use rusqlite::Transaction;

use super::error::StoreError;
use super::{Store, millis, seconds, span};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long a used code is known as such.
const USED_CODE: Duration = Duration::from_secs(600);
/// A client that registered and was never used; a user who has no grant.
const UNUSED: Duration = DAY;
/// A client that was used once and has no grant.
const IDLE_CLIENT: Duration = Duration::from_secs(90 * 24 * 3600);

impl Store {
    /// Deletes what has expired, at most once an hour: calls in between do nothing.
    pub(crate) fn purge(&self, now: SystemTime) -> Result<(), StoreError> {
        {
            let mut db = self.db.lock();
            let since = db
                .purged
                .map(|last| now.duration_since(last).unwrap_or(HOUR));
            if since.is_some_and(|since| since < HOUR) {
                return Ok(());
            }
            db.purged = Some(now);
        }
        self.write(|tx| {
            let past = seconds(now);
            tx.execute("DELETE FROM logins WHERE expires <= ?1", [past])?;
            tx.execute("DELETE FROM access WHERE expires <= ?1", [past])?;
            grants(tx, now)?;
            clients(tx, now)?;
            users(tx, now)
        })?;
        self.read(|db| db.execute_batch("PRAGMA shrink_memory"))
    }
}

/// Grants that are over, and those whose code was never redeemed.
pub(super) fn grants(tx: &Transaction<'_>, now: SystemTime) -> rusqlite::Result<()> {
    let used = millis(now).saturating_sub(span(USED_CODE) * 1000);
    tx.execute("DELETE FROM grants WHERE expires <= ?1", [seconds(now)])?;
    tx.execute(
        "DELETE FROM grants WHERE NOT redeemed AND id NOT IN
             (SELECT grant_id FROM codes WHERE expires_ms > ?1)",
        [millis(now)],
    )?;
    tx.execute("DELETE FROM codes WHERE expires_ms <= ?1", [used])?;
    Ok(())
}

pub(super) fn clients(tx: &Transaction<'_>, now: SystemTime) -> rusqlite::Result<()> {
    let before = |span_| seconds(now).saturating_sub(span(span_));
    tx.execute(
        "DELETE FROM clients WHERE id NOT IN (SELECT client_id FROM grants)
             AND ((used IS NULL AND created <= ?1) OR used <= ?2)",
        [before(UNUSED), before(IDLE_CLIENT)],
    )?;
    Ok(())
}

/// Users without a grant: with nobody to act for, the broker forgets their tokens too. Not at once:
/// the grant of a new user comes a moment after the user.
pub(super) fn users(tx: &Transaction<'_>, now: SystemTime) -> rusqlite::Result<()> {
    tx.execute(
        "DELETE FROM users WHERE seen <= ?1 AND NOT EXISTS (SELECT 1 FROM grants g
             WHERE g.issuer = users.issuer AND g.subject = users.subject)",
        [seconds(now).saturating_sub(span(UNUSED))],
    )?;
    Ok(())
}
