//! Opening the database: its file, its settings, its integrity, its tables by version.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::aad;
use super::error::StoreError;
use super::key::Key;
use crate::private_file::{FileError, PrivateDir};

pub(super) const DATABASE: &str = "broker.db";
/// Held while the key or the database is being made.
pub(super) const LOCK: &str = "broker.lock";

/// How long a statement waits for another process. Longer than any transaction of ours, shorter
/// than the two seconds in which a revocation must bite.
const BUSY: Duration = Duration::from_millis(1500);

/// Each entry brings the schema from the version of its index to the next; entries are only ever
/// added. Times are seconds since 1970, those in columns that end in `_ms` milliseconds.
const MIGRATIONS: [&str; 1] = ["
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE clients (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    redirect_uris TEXT NOT NULL,
    secret BLOB,
    created INTEGER NOT NULL,
    used INTEGER
) STRICT, WITHOUT ROWID;
CREATE TABLE logins (
    state BLOB PRIMARY KEY,
    sealed BLOB NOT NULL,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE users (
    issuer TEXT NOT NULL,
    subject TEXT NOT NULL,
    name TEXT NOT NULL,
    email TEXT,
    created INTEGER NOT NULL,
    seen INTEGER NOT NULL,
    admission TEXT,
    tokens BLOB,
    PRIMARY KEY (issuer, subject)
) STRICT, WITHOUT ROWID;
CREATE TABLE grants (
    id TEXT PRIMARY KEY,
    issuer TEXT NOT NULL,
    subject TEXT NOT NULL,
    client_id TEXT NOT NULL,
    client_name TEXT NOT NULL,
    resource TEXT NOT NULL,
    server TEXT NOT NULL,
    scope TEXT NOT NULL,
    redirect_uri TEXT NOT NULL,
    challenge TEXT NOT NULL,
    created INTEGER NOT NULL,
    used INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    redeemed INTEGER NOT NULL DEFAULT 0,
    FOREIGN KEY (issuer, subject) REFERENCES users ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX grants_of_user ON grants (issuer, subject);
CREATE INDEX grants_of_client ON grants (client_id);
CREATE TABLE codes (
    hash BLOB PRIMARY KEY,
    grant_id TEXT NOT NULL REFERENCES grants ON DELETE CASCADE,
    expires_ms INTEGER NOT NULL,
    used INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX codes_of_grant ON codes (grant_id);
CREATE TABLE access (
    id INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    grant_id TEXT NOT NULL REFERENCES grants ON DELETE CASCADE,
    expires INTEGER NOT NULL
) STRICT;
CREATE INDEX access_of_grant ON access (grant_id, id);
CREATE TABLE refresh (
    id INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    grant_id TEXT NOT NULL REFERENCES grants ON DELETE CASCADE,
    parent INTEGER,
    replaced_ms INTEGER
) STRICT;
CREATE INDEX refresh_of_grant ON refresh (grant_id, id);
CREATE INDEX refresh_of_parent ON refresh (parent);
"];

/// Whether there is a `DIR/broker.db` with anything in it.
pub(super) fn exists(state_dir: &Path) -> Result<bool, StoreError> {
    let path = state_dir.join(DATABASE);
    match fs::symlink_metadata(&path) {
        Ok(found) => Ok(found.len() > 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(FileError::Io { path, source }.into()),
    }
}

/// Opens `DIR/broker.db`. Its `-wal` and `-shm` get the mode of the database from SQLite.
pub(super) fn open(state_dir: &Path, key: &Key) -> Result<(PathBuf, Connection), StoreError> {
    let directory = PrivateDir::open(state_dir)?;
    let path = directory.path(DATABASE);
    let _lock = directory.lock(LOCK)?;
    match directory.metadata(DATABASE)? {
        Some(_) => check_files(&directory)?,
        // An empty file is a new database. It is never opened but by SQLite: closing a file drops
        // the locks that this process holds on it.
        None => directory.replace(DATABASE, "")?,
    }
    let connection = connect(&path).and_then(|mut connection| {
        settle(&connection)?;
        let version = check(&connection)?;
        migrate(&mut connection, version, key)?;
        connection.execute_batch("PRAGMA shrink_memory")?; // checking read every page
        Ok(connection)
    });
    match connection {
        Ok(connection) => {
            check_canary(&path, &connection, key)?;
            Ok((path, connection))
        }
        Err(Trouble::Sql(error)) => Err(StoreError::sql(&path, &error)),
        Err(Trouble::Damaged(why)) => Err(StoreError::Damaged { path, why }),
        Err(Trouble::Newer(version)) => Err(StoreError::Newer { path, version }),
        Err(Trouble::Seal(error)) => Err(error),
    }
}

/// What stands in the way of opening, before it is known where.
enum Trouble {
    Sql(rusqlite::Error),
    Damaged(String),
    Newer(i64),
    Seal(StoreError),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

/// That none of the database's files is another's, or open to others.
fn check_files(directory: &PrivateDir) -> Result<(), StoreError> {
    let owner = directory.metadata("")?.map(|found| found.uid());
    for suffix in ["", "-wal", "-shm"] {
        let name = format!("{DATABASE}{suffix}");
        if let Some(found) = directory.metadata(&name)? {
            check_file(directory.path(&name), &found, owner)?;
        }
    }
    Ok(())
}

fn check_file(path: PathBuf, found: &Metadata, owner: Option<u32>) -> Result<(), FileError> {
    let mode = found.mode() & 0o7777;
    if !found.is_file() {
        let source = std::io::Error::other("not a file");
        return Err(FileError::Io { path, source });
    }
    if mode & 0o077 != 0 {
        return Err(FileError::Exposed { path, mode });
    }
    match found.uid() == 0 || Some(found.uid()) == owner {
        true => Ok(()),
        false => Err(FileError::Foreign {
            path,
            owner: found.uid(),
        }),
    }
}

fn connect(path: &Path) -> Result<Connection, Trouble> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Ok(Connection::open_with_flags(path, flags)?)
}

/// The settings of a connection: durable before fast, and small. SQLite keeps some of them in the
/// file; setting them again costs nothing.
fn settle(connection: &Connection) -> Result<(), Trouble> {
    connection.busy_timeout(BUSY)?;
    connection.execute_batch(
        "PRAGMA cache_size = -256;
         PRAGMA mmap_size = 0;
         PRAGMA temp_store = MEMORY;
         PRAGMA cell_size_check = ON;
         PRAGMA trusted_schema = OFF;
         PRAGMA foreign_keys = ON;
         PRAGMA secure_delete = ON;
         PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = 256;
         PRAGMA journal_size_limit = 1048576;",
    )?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    match mode.as_str() {
        "wal" => Ok(()),
        _ => Err(Trouble::Damaged(format!("its journal mode stays {mode}"))),
    }
}

/// Checks every page, index and foreign key, and returns the schema's version.
fn check(connection: &Connection) -> Result<i64, Trouble> {
    let version = version(connection)?;
    if version > newest() {
        return Err(Trouble::Newer(version));
    }
    let found: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        return Err(Trouble::Damaged(one_line(&found)));
    }
    let mut orphans = connection.prepare("PRAGMA foreign_key_check")?;
    match orphans.exists([])? {
        false => Ok(version),
        true => Err(Trouble::Damaged("a row belongs to none".to_owned())),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

const fn newest() -> i64 {
    (MIGRATIONS.len() as u64).cast_signed()
}

fn migrate(connection: &mut Connection, version: i64, key: &Key) -> Result<(), Trouble> {
    if version == newest() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = usize::try_from(version).unwrap_or_default();
    for step in MIGRATIONS.iter().skip(done) {
        transaction.execute_batch(step)?;
    }
    if version == 0 {
        plant_canary(&transaction, key)?;
    }
    transaction.pragma_update(None, "user_version", newest())?;
    Ok(transaction.commit()?)
}

const CANARY: &str = "canary";

/// A sealed row that tells at the next opening whether the key is still the same.
fn plant_canary(transaction: &Transaction<'_>, key: &Key) -> Result<(), Trouble> {
    let place = aad("meta", &[CANARY.as_bytes()]);
    let sealed = key.seal(&place, CANARY.as_bytes()).map_err(Trouble::Seal)?;
    let sql = "INSERT INTO meta (name, value) VALUES (?1, ?2)";
    transaction.execute(sql, (CANARY, sealed))?;
    Ok(())
}

fn check_canary(path: &Path, connection: &Connection, key: &Key) -> Result<(), StoreError> {
    let sql = "SELECT value FROM meta WHERE name = ?1";
    let sealed: Vec<u8> = connection
        .query_row(sql, [CANARY], |row| row.get(0))
        .map_err(|error| match error {
            rusqlite::Error::QueryReturnedNoRows => StoreError::Damaged {
                path: path.to_owned(),
                why: "a row is missing".to_owned(),
            },
            error => StoreError::sql(path, &error),
        })?;
    match key.open(&aad("meta", &[CANARY.as_bytes()]), &sealed) {
        Ok(_) => Ok(()),
        Err(_) => Err(StoreError::WrongKey {
            path: path.to_owned(),
        }),
    }
}
