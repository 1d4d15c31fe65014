//! The key under which the broker seals what it must be able to read again: upstream tokens, logins
//! under way, and what it hands to a browser to bring back. ChaCha20-Poly1305 (RFC 8439) with a
//! random nonce; each sealed text is bound to its place, so that none can stand for another.
//!
//! The key comes from the systemd credential `mcp-broker.key` where there is one, else from
//! `STATE/seal.key`, which is made on the first run.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rand::TryRng;
use rand::rngs::SysRng;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::error::StoreError;
use super::schema::{DATABASE, LOCK};
use crate::private_file::{FileError, PrivateDir};

const FILE: &str = "seal.key";
const CREDENTIAL: &str = "mcp-broker.key";

const KEY_BYTES: usize = 32;
/// A key's text and some white space.
const MAX_TEXT_BYTES: u64 = 256;

/// The first byte of what is sealed: how it is sealed.
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 1 + NONCE_LEN;

/// Seals and opens. A copy is the same key. 2^32 texts may be sealed under one key before two random
/// nonces could meet.
#[derive(Clone)]
pub(crate) struct Key(LessSafeKey);

/// What was to be opened was not sealed with this key, for this place, or not at all.
#[derive(Debug)]
pub(crate) struct NotSealed;

impl Key {
    /// Reads the key, or makes one where there is neither a key nor a database that would need the
    /// lost one. `credentials_dir` is `$CREDENTIALS_DIRECTORY` of systemd.
    pub(crate) fn load_or_create(
        state_dir: &Path,
        credentials_dir: Option<&Path>,
    ) -> Result<Self, StoreError> {
        let credential = credentials_dir.map(|directory| directory.join(CREDENTIAL));
        if let Some((path, text)) = credential.map(read_credential).transpose()?.flatten() {
            return Self::parse(&path, &text);
        }
        let directory = PrivateDir::open(state_dir)?;
        let path = directory.path(FILE);
        let _lock = directory.lock(LOCK)?;
        if let Some((text, _)) = directory.read(FILE)? {
            return Self::parse(&path, &text);
        }
        if directory
            .metadata(DATABASE)?
            .is_some_and(|found| found.len() > 0)
        {
            return Err(StoreError::KeyMissing { path });
        }
        let bytes: [u8; KEY_BYTES] = random()?;
        directory.replace(FILE, &format!("{}\n", hex::encode(bytes)))?;
        Self::new(&path, &bytes)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, StoreError> {
        let mut bytes = [0; KEY_BYTES];
        hex::decode_to_slice(text.trim(), &mut bytes).map_err(|_| StoreError::Key {
            path: path.to_owned(),
            why: "is not 64 hexadecimal digits: make one with openssl rand -hex 32",
        })?;
        Self::new(path, &bytes)
    }

    fn new(path: &Path, bytes: &[u8]) -> Result<Self, StoreError> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, bytes).map_err(|_| StoreError::Key {
            path: path.to_owned(),
            why: "has not 32 bytes",
        })?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// `plain`, to be opened with the same `aad` only: the place where it belongs.
    pub(crate) fn seal(&self, aad: &[u8], plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        let nonce: [u8; NONCE_LEN] = random()?;
        let mut sealed = Vec::with_capacity(HEAD_BYTES + plain.len() + CHACHA20_POLY1305.tag_len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let body = sealed.get_mut(HEAD_BYTES..).unwrap_or_default();
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, Aad::from(aad), body)
            .map_err(|_| StoreError::Random("a text too long to be sealed".to_owned()))?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// What was sealed.
    pub(crate) fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, NotSealed> {
        let (head, body) = sealed.split_at_checked(HEAD_BYTES).ok_or(NotSealed)?;
        let (version, nonce) = head.split_first().ok_or(NotSealed)?;
        if *version != VERSION {
            return Err(NotSealed);
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| NotSealed)?;
        let mut body = body.to_vec();
        let plain = self.0.open_in_place(nonce, Aad::from(aad), &mut body);
        let length = plain.map_err(|_| NotSealed)?.len();
        body.truncate(length);
        Ok(body)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

fn random<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0; N];
    SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| StoreError::Random(error.to_string()))?;
    Ok(bytes)
}

/// The text of a credential, `None` where there is none. systemd gives the service its access by an
/// ACL, which shows as the group's: only what is open to everybody is refused.
fn read_credential(path: PathBuf) -> Result<Option<(PathBuf, String)>, StoreError> {
    let io = |source| FileError::Io {
        path: path.clone(),
        source,
    };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error).into()),
    };
    let mode = file.metadata().map_err(io)?.mode() & 0o7777;
    if mode & 0o027 != 0 {
        return Err(FileError::Exposed { path, mode }.into());
    }
    let mut text = String::new();
    file.take(MAX_TEXT_BYTES)
        .read_to_string(&mut text)
        .map_err(io)?;
    Ok(Some((path, text)))
}
