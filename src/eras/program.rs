//! Which program a server runs, so that what was learned of it holds for as long as it is the same:
//! its command line, where that runs, the environment as it is configured, and the files behind it.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::auth::Principal;
use crate::config::{Server, ServerCommand};

/// Bytes of a SHA-256 in hexadecimal.
pub(super) const DIGITS: usize = 64;
/// Where programs are looked for that have no `PATH` (exec(3)).
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// A hash over all of it: no argument can be read from it, for people do write secrets there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Program(String);

impl Program {
    /// What `server` would run now. `None`: the server that is built in.
    pub(super) fn of(server: &Server) -> Option<Self> {
        let ServerCommand::Program { command, args } = &server.command else {
            return None;
        };
        let path = search_path(server);
        let env = server.env.iter();
        let env = env.map(|(key, value)| (key.as_str(), value.to_bytes()));
        Some(Self::from_parts(
            command,
            args,
            env.collect(),
            server.cwd.as_deref(),
            &path,
        ))
    }

    fn from_parts(
        command: &str,
        args: &[String],
        env: Vec<(&str, Vec<u8>)>,
        cwd: Option<&Path>,
        path: &str,
    ) -> Self {
        let base = cwd.unwrap_or(Path::new(""));
        let file = find(command, base, path);
        // The usual form is `node server.js`.
        let script = args
            .iter()
            .map(|arg| base.join(arg))
            .find(|it| it.is_file());
        let mut parts: Vec<Vec<u8>> = vec![
            command.into(),
            path_bytes(file.as_deref()),
            path_bytes(cwd),
            identity(file.as_deref()),
            identity(script.as_deref()),
            env.len().to_be_bytes().to_vec(),
        ];
        for (key, value) in env {
            parts.extend([key.into(), value]);
        }
        parts.extend(args.iter().map(|arg| arg.clone().into_bytes()));
        let mut hash = Sha256::new();
        for part in parts {
            // With its length, so that no two lists of parts are alike.
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hex::encode(hash.finalize()))
    }

    /// What was written down as text.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let is_hash = text.len() == DIGITS && text.bytes().all(is_digit);
        is_hash.then(|| Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The `PATH` of the server's processes: the broker's own, if its `env` has none, or has one that
/// is another for each user.
fn search_path(server: &Server) -> String {
    let broker_env = |key: &str| std::env::var(key).ok();
    let own = server.env.iter().rfind(|(key, _)| key == "PATH");
    let filled = own.and_then(|(_, it)| it.fill(&Principal::anonymous(), None, &broker_env).ok());
    filled
        .map(|it| it.value)
        .or_else(|| broker_env("PATH"))
        .unwrap_or_else(|| DEFAULT_PATH.to_owned())
}

/// As exec(3) looks for it, from `base`.
fn find(command: &str, base: &Path, path: &str) -> Option<PathBuf> {
    if command.contains('/') {
        return Some(base.join(command));
    }
    let files = path.split(':').map(|it| base.join(it).join(command));
    files.into_iter().find(|it| is_program(it))
}

fn is_program(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|it| it.is_file() && it.mode() & 0o111 != 0)
}

fn path_bytes(path: Option<&Path>) -> Vec<u8> {
    path.map_or_else(Vec::new, |path| {
        path.as_os_str().as_encoded_bytes().to_vec()
    })
}

/// Of the file that a path leads to. One that cannot be looked at is like any other such.
fn identity(path: Option<&Path>) -> Vec<u8> {
    let file = path.and_then(|path| fs::metadata(path).ok());
    let numbers = |file: Metadata| {
        let ids = [file.dev(), file.ino(), file.size()].map(u64::to_be_bytes);
        let times = [file.mtime(), file.mtime_nsec()].map(i64::to_be_bytes);
        [ids.as_flattened(), times.as_flattened()].concat()
    };
    file.map_or_else(Vec::new, numbers)
}

#[cfg(test)]
mod tests;
