//! Static tokens and the file that lists them, `STATE/tokens.json`: made, read, replaced. Only
//! hashes are kept, so the file lets nobody in; what it does hold is the environment that belongs
//! to each token. Who may pass is decided in `mod.rs`.
//!
//! Every change is made under an advisory lock and replaces the file as a whole: `mcp-broker token`
//! and a running broker never see half of one.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::TryRng;
use rand::rngs::SysRng;
use serde_json::{Map, Value, json};

use super::Principal;
use super::is_env_key;
use crate::private_file::{FileError, PrivateDir};

const FILE: &str = "tokens.json";
const LOCK: &str = "tokens.lock";

/// Tells a token of ours from anything else, for people and for scanners of leaked secrets.
const PREFIX: &str = "mcpb_";

const MAX_TOKENS: usize = 10_000;
const MAX_NAME_BYTES: usize = 64;
const MAX_ENV_KEYS: usize = 64;
const MAX_ENV_VALUE_BYTES: usize = 32 << 10;

pub(super) use super::oauth::{Hash as TokenHash, hash};

/// What is kept of a token.
pub(crate) struct TokenRecord {
    pub(crate) name: String,
    pub(crate) created: SystemTime,
    /// `None`: never.
    pub(crate) expires: Option<SystemTime>,
    /// Secret values for this user's children, by key.
    pub(crate) env: BTreeMap<String, String>,
    pub(super) hash: TokenHash,
}

/// Why the tokens cannot be read or changed.
#[derive(Debug)]
pub(crate) enum TokenError {
    File(FileError),
    /// The file is there but is not a list of tokens.
    Content {
        path: PathBuf,
        why: String,
    },
    Exists {
        name: String,
    },
    Unknown {
        name: String,
    },
    BadName {
        name: String,
    },
    /// The key is named, never the value.
    BadEnv {
        key: String,
        why: &'static str,
    },
    /// Neither a value nor a variable of that name. It may be a value that stands alone, so an
    /// error does not repeat it.
    NoVariable,
    TooMany,
    /// The operating system has no random numbers.
    Random(String),
    /// What was to be shown could not be written.
    Output(io::Error),
}

/// The token file of one state directory.
#[derive(Debug)]
pub(crate) struct TokenStore {
    directory: PrivateDir,
}

/// Which version of the file was read. It keeps the file open, so that its inode number cannot be
/// given to a later one.
pub(super) struct Stamp(Option<(File, Version)>);

type Version = (u64, u64, u64, i64, i64, i64, i64);

fn version(found: &Metadata) -> Version {
    (
        found.dev(),
        found.ino(),
        found.size(),
        found.mtime(),
        found.mtime_nsec(),
        found.ctime(),
        found.ctime_nsec(),
    )
}

impl TokenStore {
    /// Opens the state directory; it is created if need be.
    pub(crate) fn open(state_dir: &Path) -> Result<Self, TokenError> {
        Ok(Self {
            directory: PrivateDir::open(state_dir)?,
        })
    }

    /// Makes a token and returns it: the only time that it can be seen. `expires` counts from
    /// `now`.
    pub(crate) fn add(
        &self,
        name: &str,
        env: BTreeMap<String, String>,
        expires: Option<Duration>,
        now: SystemTime,
    ) -> Result<String, TokenError> {
        check_name(name)?;
        check_env(&env)?;
        let _lock = self.directory.lock(LOCK)?;
        let mut records = self.list()?;
        if records.iter().any(|record| record.name == name) {
            return Err(TokenError::Exists {
                name: name.to_owned(),
            });
        }
        if records.len() >= MAX_TOKENS {
            return Err(TokenError::TooMany);
        }
        let token = mint()?;
        let expires = expires.and_then(|time| now.checked_add(time));
        records.push(TokenRecord {
            name: name.to_owned(),
            created: now,
            expires,
            env,
            hash: hash(&token),
        });
        self.write(&records)?;
        Ok(token)
    }

    /// Whom the tokens of a state directory stand for; nobody if there is no such directory.
    pub(crate) fn users(state_dir: &Path) -> Result<Vec<Principal>, TokenError> {
        if !state_dir.exists() {
            return Ok(Vec::new());
        }
        let records = Self::open(state_dir)?.list()?;
        Ok(records.into_iter().map(Principal::from).collect())
    }

    /// Every token, in the order in which they were made.
    pub(crate) fn list(&self) -> Result<Vec<TokenRecord>, TokenError> {
        Ok(self.load()?.0)
    }

    /// Takes a token away.
    pub(crate) fn revoke(&self, name: &str) -> Result<(), TokenError> {
        let _lock = self.directory.lock(LOCK)?;
        let mut records = self.list()?;
        let before = records.len();
        records.retain(|record| record.name != name);
        if records.len() == before {
            return Err(TokenError::Unknown {
                name: name.to_owned(),
            });
        }
        self.write(&records)
    }

    /// Reads the file. None there means no tokens, also when there was one before: taking the file
    /// away shuts the door.
    pub(super) fn load(&self) -> Result<(Vec<TokenRecord>, Stamp), TokenError> {
        let Some((text, file)) = self.directory.read(FILE)? else {
            return Ok((Vec::new(), Stamp(None)));
        };
        let path = self.directory.path(FILE);
        let records = parse(&text).map_err(|why| TokenError::Content {
            path: path.clone(),
            why,
        })?;
        let found = file
            .metadata()
            .map_err(|source| FileError::Io { path, source })?;
        Ok((records, Stamp(Some((file, version(&found))))))
    }

    /// Whether the file is the one that was read, unchanged.
    pub(super) fn is_still(&self, read: &Stamp) -> Result<bool, TokenError> {
        let found = self.directory.metadata(FILE)?;
        let read = read.0.as_ref().map(|(_, version)| *version);
        Ok(found.as_ref().map(version) == read)
    }

    fn write(&self, records: &[TokenRecord]) -> Result<(), TokenError> {
        let tokens: Vec<Value> = records.iter().map(print).collect();
        let text = format!("{:#}\n", json!({ "version": 1, "tokens": tokens }));
        Ok(self.directory.replace(FILE, &text)?)
    }
}

fn mint() -> Result<String, TokenError> {
    let mut bytes = [0; 32];
    SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| TokenError::Random(error.to_string()))?;
    Ok(format!("{PREFIX}{}", hex::encode(bytes)))
}

fn check_name(name: &str) -> Result<(), TokenError> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte);
    match (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(valid) {
        true => Ok(()),
        false => Err(TokenError::BadName {
            name: name.to_owned(),
        }),
    }
}

fn check_env(env: &BTreeMap<String, String>) -> Result<(), TokenError> {
    if env.len() > MAX_ENV_KEYS {
        return Err(TokenError::BadEnv {
            key: "*".to_owned(),
            why: "has more than 64 keys",
        });
    }
    for (key, value) in env {
        let why = match value {
            _ if !is_env_key(key) => "is not the name of an environment variable",
            value if value.contains('\0') => "has a NUL character in its value",
            value if value.len() > MAX_ENV_VALUE_BYTES => "has a value of more than 32 KiB",
            _ => continue,
        };
        return Err(TokenError::BadEnv {
            key: key.clone(),
            why,
        });
    }
    Ok(())
}

/// A record as it stands in the file; times are seconds since 1970.
fn print(record: &TokenRecord) -> Value {
    let mut value = json!({
        "name": record.name,
        "sha256": hex::encode(record.hash),
        "created": seconds(record.created),
        "env": record.env,
    });
    if let Some(expires) = record.expires {
        value["expires"] = json!(seconds(expires));
    }
    value
}

pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Reads the file's text. Strict: a key that is not understood may be a restriction that would be
/// lost.
fn parse(text: &str) -> Result<Vec<TokenRecord>, String> {
    let file: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    let file = file.as_object().ok_or("not an object")?;
    if file.get("version").and_then(Value::as_u64) != Some(1) {
        return Err("not version 1 of the token file".to_owned());
    }
    let tokens = file
        .get("tokens")
        .and_then(Value::as_array)
        .ok_or("no list of \"tokens\"")?;
    only(file, &["version", "tokens"])?;
    let mut records: Vec<TokenRecord> = Vec::with_capacity(tokens.len());
    for (index, token) in tokens.iter().enumerate() {
        let record = parse_record(token).map_err(|why| format!("token {}: {why}", index + 1))?;
        if records
            .iter()
            .any(|other| other.name == record.name || other.hash == record.hash)
        {
            return Err(format!(
                "token {}: {:?} is there twice",
                index + 1,
                record.name
            ));
        }
        records.push(record);
    }
    Ok(records)
}

fn parse_record(token: &Value) -> Result<TokenRecord, String> {
    let token = token.as_object().ok_or("not an object")?;
    only(token, &["name", "sha256", "created", "expires", "env"])?;
    let text = |key: &str| {
        token
            .get(key)
            .and_then(Value::as_str)
            .ok_or_else(|| format!("no {key:?}"))
    };
    let name = text("name")?.to_owned();
    check_name(&name).map_err(|error| error.to_string())?;
    let mut hash = TokenHash::default();
    hex::decode_to_slice(text("sha256")?, &mut hash)
        .map_err(|_| "\"sha256\" is not 64 hex digits")?;
    let time = |key: &str| match token.get(key) {
        None => Ok(None),
        Some(value) => {
            let time = value
                .as_u64()
                .and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
            time.map(Some)
                .ok_or_else(|| format!("{key:?} is not a time"))
        }
    };
    let created = time("created")?.ok_or("no \"created\"")?;
    let mut env = BTreeMap::new();
    for (key, value) in token
        .get("env")
        .and_then(Value::as_object)
        .ok_or("no \"env\"")?
    {
        env.insert(
            key.clone(),
            value
                .as_str()
                .ok_or_else(|| format!("env {key} is not a string"))?
                .to_owned(),
        );
    }
    check_env(&env).map_err(|error| error.to_string())?;
    Ok(TokenRecord {
        name,
        created,
        expires: time("expires")?,
        env,
        hash,
    })
}

fn only(object: &Map<String, Value>, known: &[&str]) -> Result<(), String> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(format!("unknown key {key:?}")),
        None => Ok(()),
    }
}

impl From<FileError> for TokenError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Content { path, why } => write!(f, "{}: {why}", path.display()),
            Self::Exists { name } => {
                write!(f, "there is a token {name:?} already: revoke it first")
            }
            Self::Unknown { name } => {
                write!(f, "there is no token {name:?}: see mcp-broker token list")
            }
            Self::BadName { name } => {
                write!(
                    f,
                    "{name:?} is not a name: \
                     use 1 to 64 letters, digits, \".\", \"_\", \"@\" or \"-\""
                )
            }
            Self::BadEnv { key, why } => write!(f, "env {key} {why}"),
            Self::NoVariable => f.write_str(
                "--env KEY takes the value of KEY in this command's environment, and there is none: \
                 export it, or write KEY=VALUE",
            ),
            Self::TooMany => write!(f, "there are {MAX_TOKENS} tokens already: revoke some"),
            Self::Random(why) => write!(f, "the operating system gave no random numbers: {why}"),
            Self::Output(error) => write!(f, "cannot write the answer: {error}"),
        }
    }
}

impl std::error::Error for TokenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File(error) => Some(error),
            Self::Output(error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
