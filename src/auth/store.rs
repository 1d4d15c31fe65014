//! What must survive a restart of those who signed in: an SQLite database in the state directory,
//! `STATE/broker.db`. Every rule that needs an atomic decision is one method and one transaction
//! here; what is decided comes from `oauth`, and time is passed in.
//!
//! Tokens, codes and states are kept as SHA-256 only. What must be read again (upstream tokens,
//! logins under way) is sealed, see [`Key`]. What a method acknowledged is on the disk. Every
//! [`StoreError`] means "refuse": nobody is let in because a row could not be read.
//!
//! `clients`, `logins`, `users`, `grants`, `refresh`: the rows by what they are about · `schema`:
//! opening, migrations · `key`: sealing · `error`: what goes wrong.

mod clients;
mod error;
mod grants;
mod key;
mod logins;
mod purge;
mod refresh;
mod schema;
#[cfg(test)]
pub(super) mod tests;
mod users;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rusqlite::{Connection, Transaction, TransactionBehavior};

pub(crate) use clients::ClientRow;
pub(crate) use error::{RedeemError, StoreError};
pub(crate) use grants::{CodeRow, GrantRow, Issued, LiveAccess, NewGrant, NewTokens};
pub(crate) use key::Key;
pub(crate) use logins::Login;
pub(crate) use users::{User, UserRow};

/// For how long the thread that lets time pass may be held up. Writers wait for other processes,
/// one after the other.
const PATIENCE: Duration = Duration::from_millis(100);

/// The database of one state directory. Shared by all threads, which take turns.
pub(crate) struct Store {
    path: PathBuf,
    key: Arc<Key>,
    db: Mutex<Db>,
}

struct Db {
    connection: Connection,
    /// `PRAGMA data_version` as it was seen last.
    version: i64,
    purged: Option<SystemTime>,
}

impl Store {
    /// Opens the database, which is created if need be, checks every page of it and brings it up
    /// to this version's schema. `key` must be the one that it was made with.
    pub(crate) fn open(state_dir: &Path, key: Arc<Key>) -> Result<Self, StoreError> {
        let (path, connection) = schema::open(state_dir, &key)?;
        let version = data_version(&connection).map_err(|error| StoreError::sql(&path, &error))?;
        let db = Mutex::new(Db {
            connection,
            version,
            purged: None,
        });
        Ok(Self { path, key, db })
    }

    /// Opens the database with the key that is there. `None`: there is no database, and none is
    /// made.
    pub(crate) fn open_existing(
        state_dir: &Path,
        credentials_dir: Option<&Path>,
    ) -> Result<Option<Self>, StoreError> {
        if !schema::exists(state_dir)? {
            return Ok(None);
        }
        let key = Key::load_or_create(state_dir, credentials_dir)?;
        Self::open(state_dir, Arc::new(key)).map(Some)
    }

    /// Whether another process (`mcp-broker user revoke`, say) changed anything since the last
    /// call, or since the store was opened. What this store changes itself does not count. Gives up
    /// soon where others keep the store busy: the next call says it.
    pub(crate) fn changed_by_others(&self) -> Result<bool, StoreError> {
        let Some(mut db) = self.db.try_lock_for(PATIENCE) else {
            return Ok(false);
        };
        let version = data_version(&db.connection).map_err(|error| self.error(&error))?;
        Ok(std::mem::replace(&mut db.version, version) != version)
    }

    /// Runs `f` in one transaction that no other writer gets between, and waits until what it did
    /// is on the disk. Nothing of it happened if `f` fails. A refusal that must leave traces (a
    /// burnt code) is a value of `T`, not an error.
    fn write<T>(
        &self,
        f: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut db = self.db.lock();
        let transaction = db
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate);
        let done = transaction.and_then(|transaction| {
            let value = f(&transaction)?;
            transaction.commit()?;
            Ok(value)
        });
        done.map_err(|error| self.error(&error))
    }

    /// Runs `f`, which only reads.
    fn read<T>(&self, f: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        f(&self.db.lock().connection).map_err(|error| self.error(&error))
    }

    fn error(&self, error: &rusqlite::Error) -> StoreError {
        StoreError::sql(&self.path, error)
    }

    /// Opens what [`Key::seal`] sealed for this row.
    fn unseal(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.key.open(aad, sealed).map_err(|_| StoreError::Damaged {
            path: self.path.clone(),
            why: "a sealed value was changed or moved".to_owned(),
        })
    }
}

fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "data_version", |row| row.get(0))
}

fn count(connection: &Connection, sql: &str) -> rusqlite::Result<usize> {
    let count: i64 = connection.query_row(sql, [], |row| row.get(0))?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// Binds a sealed value to its row. Each part is preceded by its length, so that no two rows have
/// the same text.
fn aad(table: &str, key: &[&[u8]]) -> Vec<u8> {
    let mut aad = Vec::new();
    for part in std::iter::once(&table.as_bytes()).chain(key) {
        aad.extend_from_slice(&(part.len() as u64).to_be_bytes());
        aad.extend_from_slice(part);
    }
    aad
}

/// Seconds since 1970, as the tables have them. A clock before 1970 reads as 1970.
fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The same in milliseconds, where a minute is long.
fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The time of a column of whole seconds. One that cannot be is long past.
fn time(seconds: i64) -> SystemTime {
    let seconds = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    UNIX_EPOCH.checked_add(seconds).unwrap_or(UNIX_EPOCH)
}

/// So many seconds, for arithmetic with columns.
const fn span(duration: Duration) -> i64 {
    duration.as_secs().cast_signed()
}
