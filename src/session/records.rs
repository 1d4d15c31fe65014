//! Sessions that outlive their child, and the broker too: what another child would have to be told,
//! in a file for each, which is there before the client has its session id.
//!
//! Files are named after the SHA-256 of the session id, so that whoever reads the directory learns
//! no id. When a session was last used is the file's time of modification.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::auth::Principal;
use crate::bridge::Handshake;
use crate::private_file::{FileError, PrivateDir};

const DIRECTORY: &str = "sessions";
const SUFFIX: &str = ".json";
/// What a crash leaves behind of a file that was being written.
const UNFINISHED: &str = ".json.new";
/// Of a SHA-256 in hexadecimal.
const KEY_CHARS: usize = 64;
/// The form of the files; another one is not read.
const VERSION: u64 = 1;
/// Kept of one principal, and in all; the one that was not used for longest goes first.
const MAX_PER_PRINCIPAL: usize = 64;
const MAX_RECORDS: usize = 10_000;
const MAX_RECORD_BYTES: usize = 256 * 1024;

/// Why a session is not kept.
#[derive(Debug)]
pub(super) enum RecordError {
    File(FileError),
    /// Longer than [`MAX_RECORD_BYTES`], in bytes.
    TooLarge(usize),
    /// Subscribed to more than is remembered.
    Overfull,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::TooLarge(bytes) => {
                write!(f, "what it would have to be told again takes {bytes} bytes")
            }
            Self::Overfull => f.write_str("it has too many subscriptions"),
        }
    }
}

/// Whose session it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    issuer: String,
    subject: String,
    pub(super) server: String,
}

impl Owner {
    pub(super) fn new(principal: &Principal, server: &str) -> Self {
        Self {
            issuer: principal.issuer.to_string(),
            subject: principal.subject.to_string(),
            server: server.to_owned(),
        }
    }

    pub(super) fn is(&self, principal: &Principal) -> bool {
        *self.issuer == *principal.issuer && *self.subject == *principal.subject
    }
}

/// What a file says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) owner: Owner,
    pub(super) opened: SystemTime,
    pub(super) handshake: Handshake,
}

struct Entry {
    owner: Owner,
    last_used: SystemTime,
    /// It has a child.
    is_running: bool,
    /// Somebody writes its file.
    is_writing: bool,
    /// Whoever writes the file now shall remove it afterwards.
    is_forgotten: bool,
}

type Entries = HashMap<String, Entry>;

/// All sessions that can be revived.
pub(crate) struct Records {
    dir: PrivateDir,
    /// By the names of their files, without the suffix.
    entries: Mutex<Entries>,
    /// Signalled when a file has been written.
    written: Condvar,
}

impl Records {
    /// Reads what brokers before this one have left; a file of ours that cannot be used is removed.
    ///
    /// # Errors
    /// [`FileError`] if the directory cannot be used.
    pub(crate) fn load(state_dir: &Path) -> Result<Self, FileError> {
        let path = state_dir.join(DIRECTORY);
        let dir = PrivateDir::open(&path)?;
        let io = |source| FileError::Io {
            path: path.clone(),
            source,
        };
        let records = Self {
            dir,
            entries: Mutex::default(),
            written: Condvar::new(),
        };
        let mut entries = HashMap::new();
        for file in fs::read_dir(&path).map_err(io)? {
            let file = file.map_err(io)?;
            let name = file.file_name();
            let Some((key, rest)) = name
                .to_str()
                .and_then(|name| name.split_at_checked(KEY_CHARS))
            else {
                continue;
            };
            match rest {
                SUFFIX if is_key(key) => match records.entry(key, &file) {
                    Ok(Some(entry)) => _ = entries.insert(key.to_owned(), entry),
                    Ok(None) => {
                        log::warn!("removing the record of a session that cannot be used: {key}");
                        remove(&file.path());
                    }
                    Err(error) => log::error!("a session cannot be revived: {error}"),
                },
                UNFINISHED if is_key(key) => remove(&file.path()),
                _ => {}
            }
        }
        *records.entries.lock() = entries;
        Ok(records)
    }

    /// A file as a session without a child; `None` if it is damaged or not safe from others.
    fn entry(&self, key: &str, file: &fs::DirEntry) -> Result<Option<Entry>, FileError> {
        let record = match self.read_file(key) {
            Ok(Some(record)) => record,
            Ok(None) | Err(FileError::Exposed { .. } | FileError::Foreign { .. }) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let last_used = file.metadata().and_then(|metadata| metadata.modified());
        let last_used = last_used.map_err(|source| FileError::Io {
            path: file.path(),
            source,
        })?;
        Ok(Some(Entry {
            owner: record.owner,
            last_used,
            is_running: false,
            is_writing: false,
            is_forgotten: false,
        }))
    }

    /// Whose session this is, and when it was last used.
    pub(super) fn find(&self, id: &str) -> Option<(Owner, SystemTime)> {
        let entries = self.entries.lock();
        let entry = entries.get(&key(id)).filter(|entry| !entry.is_forgotten)?;
        Some((entry.owner.clone(), entry.last_used))
    }

    /// Reads a session's file; `None` if there is none, or it is damaged.
    ///
    /// # Errors
    /// [`FileError`] if it cannot be read.
    pub(super) fn read(&self, id: &str) -> Result<Option<Record>, FileError> {
        self.read_file(&key(id))
    }

    fn read_file(&self, key: &str) -> Result<Option<Record>, FileError> {
        match self.dir.read(&format!("{key}{SUFFIX}")) {
            Ok(read) => Ok(read.and_then(|(text, _)| Record::parse(&text))),
            // Not even text.
            Err(FileError::Io { source, .. }) if source.kind() == io::ErrorKind::InvalidData => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes a session down that was last used then; it is safe on disk when this returns. Does
    /// nothing for one that is not new and has been forgotten.
    ///
    /// # Errors
    /// [`RecordError`]; what was written before, if anything, stays.
    pub(super) fn save(
        &self,
        id: &str,
        record: &Record,
        last_used: SystemTime,
        is_new: bool,
    ) -> Result<(), RecordError> {
        let key = key(id);
        let text = record.to_text();
        if text.len() > MAX_RECORD_BYTES {
            return Err(RecordError::TooLarge(text.len()));
        }
        if record.handshake.is_overfull {
            return Err(RecordError::Overfull);
        }
        let Some(surplus) = self.enter(&key, &record.owner, last_used, is_new) else {
            return Ok(());
        };
        if let Some(surplus) = surplus {
            self.forget_key(&surplus);
        }
        let written = self.dir.replace(&format!("{key}{SUFFIX}"), &text);
        self.leave(&key);
        self.note_key(&key, last_used);
        written.map_err(RecordError::File)
    }

    /// The file has been written, or could not be.
    fn leave(&self, key: &str) {
        let is_forgotten = match self.entries.lock().get_mut(key) {
            Some(entry) if entry.is_forgotten => true,
            Some(entry) => {
                entry.is_writing = false;
                false
            }
            None => false,
        };
        if is_forgotten {
            // Nobody else writes it as long as its entry says that somebody does.
            self.remove_file(key);
            self.entries.lock().remove(key);
        }
        self.written.notify_all();
    }

    /// Enters a write once no other is under way, and gives what there is too much of; `None` if
    /// there is nothing to be written.
    fn enter(
        &self,
        key: &str,
        owner: &Owner,
        last_used: SystemTime,
        is_new: bool,
    ) -> Option<Option<String>> {
        let mut entries = self.entries.lock();
        let is_writing = |entries: &mut Entries| entries.get(key).is_some_and(|it| it.is_writing);
        self.written.wait_while(&mut entries, is_writing);
        match entries.get_mut(key) {
            Some(entry) => {
                (entry.is_running, entry.is_writing) = (true, true);
                entry.last_used = last_used;
            }
            None if is_new => {
                let entry = Entry {
                    owner: owner.clone(),
                    last_used,
                    is_running: true,
                    is_writing: true,
                    is_forgotten: false,
                };
                entries.insert(key.to_owned(), entry);
            }
            None => return None,
        }
        let is_own = |entry: &Entry| {
            (&entry.owner.issuer, &entry.owner.subject) == (&owner.issuer, &owner.subject)
        };
        let surplus = |max: usize, counts: &dyn Fn(&Entry) -> bool| {
            let count = entries.values().filter(|entry| counts(entry)).count();
            let resting = entries
                .iter()
                .filter(|(_, entry)| counts(entry) && !entry.is_running);
            let oldest = resting.min_by_key(|(_, entry)| entry.last_used);
            oldest
                .filter(|_| count > max)
                .map(|(oldest, _)| oldest.clone())
        };
        let own = surplus(MAX_PER_PRINCIPAL, &is_own);
        let any = surplus(MAX_RECORDS, &|_| true);
        Some(own.or(any))
    }

    /// The session has a child, or will; false if it has been forgotten.
    pub(super) fn wake(&self, id: &str) -> bool {
        let mut entries = self.entries.lock();
        let entry = entries.get_mut(&key(id));
        entry
            .filter(|entry| !entry.is_forgotten)
            .map(|entry| entry.is_running = true)
            .is_some()
    }

    /// The session has no child any more, and was last used then.
    pub(super) fn rest(&self, id: &str, last_used: SystemTime) {
        let key = key(id);
        if let Some(entry) = self.entries.lock().get_mut(&key) {
            entry.is_running = false;
        }
        self.note_key(&key, last_used);
    }

    /// The session was last used then.
    pub(super) fn note(&self, id: &str, last_used: SystemTime) {
        self.note_key(&key(id), last_used);
    }

    /// Notes another time of last use for each session.
    pub(super) fn move_all(&self, moved: impl Fn(SystemTime) -> SystemTime) {
        let noted: Vec<(String, SystemTime)> = {
            let entries = self.entries.lock();
            let noted = entries.iter();
            noted.map(|(key, it)| (key.clone(), it.last_used)).collect()
        };
        for (key, last_used) in noted {
            self.note_key(&key, moved(last_used));
        }
    }

    fn note_key(&self, key: &str, last_used: SystemTime) {
        match self.entries.lock().get_mut(key) {
            Some(entry) => entry.last_used = last_used,
            None => return,
        }
        let path = self.dir.path(&format!("{key}{SUFFIX}"));
        let noted = fs::File::open(&path).and_then(|file| file.set_modified(last_used));
        if let Err(error) = noted
            && error.kind() != io::ErrorKind::NotFound
        {
            log::warn!("cannot note the use of a session: {error}");
        }
    }

    /// The session is over for good.
    pub(super) fn forget(&self, id: &str) {
        self.forget_key(&key(id));
    }

    fn forget_key(&self, key: &str) {
        {
            let mut entries = self.entries.lock();
            match entries.get_mut(key) {
                None => return,
                Some(entry) if entry.is_writing => return entry.is_forgotten = true,
                Some(_) => entries.remove(key),
            };
        }
        self.remove_file(key);
    }

    /// Forgets the sessions of these principals. Nobody knows which sign-in a session comes from:
    /// so those of one sign-in stay, for the principal's others.
    pub(super) fn forget_principals(&self, principals: &[Principal]) {
        let is_over = |entry: &Entry, it: &Principal| it.grant.is_none() && entry.owner.is(it);
        self.forget_where(|entry| principals.iter().any(|it| is_over(entry, it)));
    }

    /// Forgets the sessions without a child that nobody came back to for as long as their server
    /// says, and those of servers that do not say.
    pub(super) fn expire(&self, revive: impl Fn(&str) -> Option<Duration>, now: SystemTime) {
        self.forget_where(|entry| {
            let unused = now.duration_since(entry.last_used).unwrap_or_default();
            let kept = revive(&entry.owner.server);
            !entry.is_running && kept.is_none_or(|kept| unused >= kept)
        });
    }

    fn forget_where(&self, is_over: impl Fn(&Entry) -> bool) {
        let over: Vec<String> = {
            let entries = self.entries.lock();
            let over = entries.iter().filter(|(_, entry)| is_over(entry));
            over.map(|(key, _)| key.clone()).collect()
        };
        over.iter().for_each(|key| self.forget_key(key));
    }

    /// How many sessions have no child now.
    pub(super) fn resting(&self) -> usize {
        let entries = self.entries.lock();
        entries.values().filter(|entry| !entry.is_running).count()
    }

    fn remove_file(&self, key: &str) {
        remove(&self.dir.path(&format!("{key}{SUFFIX}")));
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        log::warn!("cannot remove {}: {error}", path.display());
    }
}

fn key(id: &str) -> String {
    hex::encode(Sha256::digest(id))
}

fn is_key(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Record {
    fn to_text(&self) -> String {
        let Handshake {
            initialize,
            result,
            log_level,
            subscriptions,
            is_overfull: _,
            children,
        } = &self.handshake;
        let opened = self.opened.duration_since(UNIX_EPOCH).unwrap_or_default();
        json!({
            "version": VERSION,
            "issuer": self.owner.issuer,
            "subject": self.owner.subject,
            "server": self.owner.server,
            "opened": opened.as_secs(),
            "initialize": initialize,
            "result": result,
            "log_level": log_level,
            "subscriptions": subscriptions,
            "children": children,
        })
        .to_string()
    }

    fn parse(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        if value.get("version")?.as_u64()? != VERSION {
            return None;
        }
        let text = |key: &str| value.get(key)?.as_str();
        let subscriptions = value.get("subscriptions")?.as_array()?.iter();
        Some(Self {
            owner: Owner {
                issuer: text("issuer")?.to_owned(),
                subject: text("subject")?.to_owned(),
                server: text("server")?.to_owned(),
            },
            opened: UNIX_EPOCH.checked_add(Duration::from_secs(value.get("opened")?.as_u64()?))?,
            handshake: Handshake {
                initialize: text("initialize")?.into(),
                result: text("result")?.into(),
                log_level: text("log_level").map(Into::into),
                subscriptions: subscriptions
                    .map(|params| params.as_str().map(Into::into))
                    .collect::<Option<_>>()?,
                is_overfull: false,
                children: value.get("children")?.as_u64()?.try_into().ok()?,
            },
        })
    }
}

#[cfg(test)]
mod tests;
