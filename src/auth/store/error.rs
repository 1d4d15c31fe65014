//! Why the store cannot do what it is asked. Each says in one line what, where, and what to do.

use std::fmt;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::auth::oauth::token::TokenError;
use crate::private_file::FileError;

/// What went wrong with the database or its key. Whoever gets one refuses.
#[derive(Debug)]
pub(crate) enum StoreError {
    /// The directory or one of its files, among them a key or a database that others may read.
    File(FileError),
    /// The key file is no key.
    Key {
        path: PathBuf,
        why: &'static str,
    },
    /// There is a database but not the key that it was made with.
    KeyMissing {
        path: PathBuf,
    },
    /// The database was made with another key.
    WrongKey {
        path: PathBuf,
    },
    /// No space is left for it.
    Full {
        path: PathBuf,
    },
    /// Another process holds it for longer than the store waits.
    Locked {
        path: PathBuf,
    },
    /// It is no database, or its content contradicts itself.
    Damaged {
        path: PathBuf,
        why: String,
    },
    /// A later version of the broker made it.
    Newer {
        path: PathBuf,
        version: i64,
    },
    /// Anything else that SQLite complains about.
    Unusable {
        path: PathBuf,
        why: String,
    },
    /// As many rows as there may be.
    TooMany {
        what: &'static str,
        most: usize,
    },
    /// The user was taken away meanwhile.
    NoUser,
    Unknown {
        what: &'static str,
        name: String,
    },
    /// More than one goes by this name; `ids` are theirs.
    Ambiguous {
        what: &'static str,
        name: String,
        ids: Vec<String>,
    },
    /// The operating system has no random numbers.
    Random(String),
}

/// Why no tokens are issued.
#[derive(Debug)]
pub(crate) enum RedeemError {
    /// The answer to the client.
    Refused(TokenError),
    /// A code or refresh token was presented that had been used before: the grant has ended with
    /// all its tokens. To the client this is `invalid_grant`.
    Replayed { grant: String },
    /// To the client this is `temporarily_unavailable`.
    Store(StoreError),
}

impl StoreError {
    /// Tells apart what an operator must tell apart. SQLite's text names tables and columns, never
    /// values.
    pub(super) fn sql(path: &Path, error: &rusqlite::Error) -> Self {
        let path = path.to_owned();
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full { path },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked { path },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged {
                path,
                why: error.to_string(),
            },
            _ => Self::Unusable {
                path,
                why: error.to_string(),
            },
        }
    }
}

impl From<FileError> for StoreError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl From<StoreError> for RedeemError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Key { path, why } => write!(f, "{}: the key {why}", path.display()),
            Self::KeyMissing { path } => write!(
                f,
                "{}: the key of the database beside it is missing: restore it, or set \
                 CREDENTIALS_DIRECTORY where mcp-broker.key is a credential, or move broker.db \
                 away, then everybody signs in again",
                path.display()
            ),
            Self::WrongKey { path } => write!(
                f,
                "{}: it was made with another key: restore seal.key or the credential \
                 mcp-broker.key, or move the database away, then everybody signs in again",
                path.display()
            ),
            Self::Full { path } => write!(
                f,
                "{}: no space is left on its disk: make room, nothing needs to be restarted",
                path.display()
            ),
            Self::Locked { path } => write!(
                f,
                "{}: another process keeps it locked: end that process, or try again",
                path.display()
            ),
            Self::Damaged { path, why } => write!(
                f,
                "{}: it is damaged ({why}): restore it from a backup, or move it away with its \
                 -wal and -shm, then everybody signs in again",
                path.display()
            ),
            Self::Newer { path, version } => write!(
                f,
                "{}: a newer mcp-broker made it (version {version}): run that one",
                path.display()
            ),
            Self::Unusable { path, why } => write!(
                f,
                "{}: it cannot be used ({why}): look at its owner, its mode and its disk",
                path.display()
            ),
            _ => self.fmt_row(f),
        }
    }
}

impl StoreError {
    /// Those that are about rows, not about the file.
    fn fmt_row(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany { what, most } => {
                write!(f, "there are {most} {what} already: revoke some, or wait")
            }
            Self::NoUser => f.write_str("the user was taken away: they must sign in again"),
            Self::Unknown { what, name } => {
                write!(f, "there is no {what} {name:?}: see mcp-broker {what} list")
            }
            Self::Ambiguous { what, name, ids } => {
                write!(f, "more than one {what} is called {name:?}: say which of")?;
                ids.iter().try_for_each(|id| write!(f, " {id:?}"))
            }
            Self::Random(why) => write!(f, "the operating system gave no random numbers: {why}"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File(error) => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for RedeemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => write!(f, "{}: {}", error.code, error.description),
            Self::Replayed { grant } => {
                write!(
                    f,
                    "a code or refresh token was used twice: grant {grant} has ended"
                )
            }
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RedeemError {}
