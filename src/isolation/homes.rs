//! A private `HOME` and `TMPDIR` for each principal, for as long as one of its children lives.
//!
//! ```text
//! BASE/4f2a6c0913b7d85e/home      mode 0700, the child's
//! BASE/4f2a6c0913b7d85e/tmp       mode 0700, the child's
//! BASE/4f2a6c0913b7d85e           the broker's; the child may pass through
//! ```
//!
//! Nothing is counted here: whoever uses a home holds a shared lock (flock(2)) on a file in it, so
//! the last one out is the one who gets it alone, also where two brokers work in one state
//! directory, and a broker that was killed holds nothing. What is made, given or taken away is so
//! under a lock on such a file in BASE. Not on the directories: a child with the broker's uid can
//! open those, and what it locked would never be free again. Where each principal has a uid, the
//! directories say which: it is the group of what is in BASE, so no uid is given twice and a kept
//! home keeps its own. Nor is a uid given that a process has: a child may have left one behind.
//!
//! BASE is in the state directory, which children with other uids may then pass through but not
//! list (mode 0711). Where they cannot even get there, because it is in root's own home, BASE is in
//! `/var/lib`: a home may hold gigabytes of what npx has downloaded, so `/run` is not the place.

mod tree;
mod uids;

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::{
    DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown, lchown,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use super::IsolationError;
use super::decision::Identity;
use crate::auth::Principal;
use crate::launcher::Ids;

/// The name of BASE in a state directory.
const IN_STATE: &str = "homes";
/// Where it is for children that cannot get to the state directory.
const ELSEWHERE: &str = "/var/lib/mcp-broker-homes";
/// Begins the names of what is about to be removed.
const GONE: &str = "gone-";
/// The file that is locked, in BASE and in each home.
const LOCK: &str = ".lock";
/// How often something is tried that others can get in the way of.
const TRIES: u64 = 16;
/// Hex digits of a directory's name.
const NAME_DIGITS: usize = 16;

/// All homes of a broker.
#[derive(Debug)]
pub(super) struct Homes {
    base: PathBuf,
    identity: Identity,
    keep: bool,
}

/// The directories of one child.
#[derive(Debug)]
pub(crate) struct Home {
    base: PathBuf,
    name: String,
    ids: Option<Ids>,
    keep: bool,
    /// HOME and TMPDIR.
    directories: [PathBuf; 2],
    /// Shared by all who use it.
    lock: Option<File>,
}

impl Homes {
    /// In the state directory, if children can get there. Removes what killed brokers have left.
    pub(super) fn in_state(
        state_dir: &Path,
        identity: Identity,
        keep: bool,
    ) -> Result<Self, IsolationError> {
        let base = match identity {
            Identity::Own => state_dir.join(IN_STATE),
            _ if is_passable(state_dir) => {
                let mode = mode(state_dir).map_err(at(state_dir))?;
                fs::set_permissions(state_dir, Permissions::from_mode(mode | 0o011))
                    .map_err(at(state_dir))?;
                state_dir.join(IN_STATE)
            }
            // Two brokers have two state directories; both may know a user of one name.
            _ => Path::new(ELSEWHERE).join(digest([state_dir.as_os_str().as_encoded_bytes()])),
        };
        let homes = Self {
            base,
            identity,
            keep,
        };
        homes.sweep().map_err(at(&homes.base))?;
        Ok(homes)
    }

    /// In the directory for temporary files, for a while.
    pub(super) fn passing(identity: Identity) -> Result<Self, IsolationError> {
        let parent = std::env::temp_dir();
        let name = |no: u64| format!("mcp-broker-check-{}-{no}", std::process::id());
        // Everybody may write there: one that exists is not ours.
        let is_taken = |base: &PathBuf| fs::symlink_metadata(base).is_ok();
        let mut bases = (0..TRIES).map(|no| parent.join(name(no)));
        let base = bases.find(|it| !is_taken(it)).unwrap_or(parent);
        let made = DirBuilder::new().mode(0o700).create(&base);
        made.map_err(at(&base))?;
        Ok(Self {
            base,
            identity,
            keep: false,
        })
    }

    /// The real path of the directory that all homes are in.
    pub(super) fn base(&self) -> &Path {
        &self.base
    }

    /// Makes the home of `principal`, or opens it if there is one.
    ///
    /// # Errors
    /// One line.
    pub(super) fn open(&self, principal: &Principal) -> Result<Home, String> {
        let name = digest([principal.issuer.as_bytes(), principal.subject.as_bytes()]);
        let path = self.base.join(&name);
        let cannot = |error: io::Error| format!("cannot make {}: {error}", path.display());
        let _base = self.lock().map_err(cannot)?;
        let ids = self.ids(&name)?;
        let directories = ["home", "tmp"].map(|it| path.join(it));
        let lock = make(&path, &directories, ids).map_err(cannot)?;
        Ok(Home {
            base: self.base.clone(),
            name,
            ids,
            keep: self.keep,
            directories,
            lock: Some(lock),
        })
    }

    /// Who shall own the home of this name. To be called under the lock.
    fn ids(&self, name: &str) -> Result<Option<Ids>, String> {
        let uids = match &self.identity {
            Identity::Own => return Ok(None),
            Identity::One(ids) => return Ok(Some(*ids)),
            Identity::Each(uids) => uids,
        };
        let homes = list(&self.base);
        let homes =
            homes.map_err(|error| format!("cannot list {}: {error}", self.base.display()))?;
        let in_use = uids::in_use().map_err(|error| format!("cannot list /proc: {error}"))?;
        let uid = choose(uids, name, &homes, &in_use)?;
        Ok(Some(Ids { uid, gid: uid }))
    }

    /// Waits for the lock on BASE, and holds it for as long as the file lives.
    fn lock(&self) -> io::Result<File> {
        // Another broker may remove it at any moment before, if it is empty.
        for _ in 0..TRIES {
            match self.try_lock() {
                Ok(Some(file)) => return Ok(file),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        self.try_lock()?.ok_or(io::ErrorKind::NotFound.into())
    }

    fn try_lock(&self) -> io::Result<Option<File>> {
        make_base(&self.base, self.identity != Identity::Own)?;
        let path = self.base.join(LOCK);
        let file = open_lock(&path)?;
        file.lock()?;
        let is_it = fs::symlink_metadata(&path)?.ino() == file.metadata()?.ino();
        Ok(is_it.then_some(file))
    }

    /// Takes away what nobody uses: homes that are not to be kept, `tmp` of those that are.
    fn sweep(&self) -> io::Result<()> {
        let mut gone = Vec::new();
        let base = self.lock()?;
        for (name, _) in list(&self.base)? {
            let path = self.base.join(&name);
            if name.starts_with(GONE) {
                gone.push(path);
            } else if let Ok(file) = open_lock(&path.join(LOCK))
                && file.try_lock().is_ok()
            {
                gone.extend(put_aside(&self.base, &name, self.keep));
            }
        }
        drop(base);
        for path in gone {
            tree::remove(&path);
        }
        Ok(())
    }
}

impl Drop for Homes {
    fn drop(&mut self) {
        // They go if they are empty.
        if let Ok(_lock) = self.lock()
            && list(&self.base).is_ok_and(|homes| homes.is_empty())
        {
            let _ = fs::remove_file(self.base.join(LOCK));
            let _ = fs::remove_dir(&self.base);
        }
        let _ = fs::remove_dir(ELSEWHERE);
    }
}

impl fmt::Display for Homes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let until = match self.keep {
            true => "kept",
            false => "removed after a user's last session",
        };
        let base = self.base.display();
        write!(
            f,
            "home=on (HOME and TMPDIR of each user in {base}, {until})"
        )
    }
}

impl Home {
    /// HOME and TMPDIR.
    pub(crate) fn directories(&self) -> &[PathBuf; 2] {
        &self.directories
    }

    /// Whose they are. `None`: the broker's own.
    pub(crate) fn ids(&self) -> Option<Ids> {
        self.ids
    }

    /// What is to be removed, if nobody else uses the home.
    fn leave(&mut self) -> io::Result<Option<PathBuf>> {
        let base = open_lock(&self.base.join(LOCK))?;
        base.lock()?;
        let Some(lock) = self.lock.take() else {
            return Ok(None);
        };
        // From shared to exclusive: only the last one gets that.
        match lock.try_lock() {
            Ok(()) => Ok(put_aside(&self.base, &self.name, self.keep)),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Drop for Home {
    /// Removes it after the last one; that can take a while.
    fn drop(&mut self) {
        match self.leave() {
            Ok(Some(path)) => tree::remove(&path),
            Ok(None) => {}
            Err(error) => log::warn!("cannot remove the home {}: {error}", self.name),
        }
    }
}

/// Makes what is missing of a home, and takes a shared lock on it.
fn make(path: &Path, directories: &[PathBuf; 2], ids: Option<Ids>) -> io::Result<File> {
    make_directory(path, 0o700)?;
    let lock = open_lock(&path.join(LOCK))?;
    lock.lock_shared()?;
    if let Some(Ids { gid, .. }) = ids {
        let own = open(path)?;
        fchown(&own, None, Some(gid))?;
        own.set_permissions(Permissions::from_mode(0o710))?;
    }
    for directory in directories {
        let is_new = make_directory(directory, 0o700)?;
        let Some(Ids { uid, gid }) = ids else {
            continue;
        };
        if is_new {
            lchown(directory, Some(uid), Some(gid))?;
        } else if fs::symlink_metadata(directory)?.uid() != uid {
            return Err(io::Error::other(format!(
                "{} was kept for another uid than {uid}",
                directory.display()
            )));
        }
    }
    Ok(lock)
}

/// Renames what is to be removed, which takes no time, so that a new one can take its place at
/// once. To be called with both locks.
fn put_aside(base: &Path, name: &str, keep: bool) -> Option<PathBuf> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let no = COUNT.fetch_add(1, Ordering::Relaxed);
    let gone = base.join(format!("{GONE}{}-{no}", std::process::id()));
    let old = match keep {
        true => base.join(name).join("tmp"),
        false => base.join(name),
    };
    let mut renamed = fs::rename(&old, &gone);
    let is_denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    if renamed.as_ref().is_err_and(is_denied) {
        // To move a directory takes the right to write in it.
        tree::open_up(&old);
        renamed = fs::rename(&old, &gone);
    }
    match renamed {
        Ok(()) => Some(gone),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            log::warn!("cannot remove {}: {error}", old.display());
            None
        }
    }
}

/// The uid of the home of this name: the one it has, or the lowest that no other has, and no
/// process either.
fn choose(
    uids: &RangeInclusive<u32>,
    name: &str,
    homes: &[(String, u32)],
    in_use: &HashSet<u32>,
) -> Result<u32, String> {
    let own = homes.iter().find(|(home, _)| home == name);
    if let Some((_, uid)) = own.filter(|(_, uid)| uids.contains(uid)) {
        return Ok(*uid);
    }
    let mut free = uids
        .clone()
        .filter(|uid| homes.iter().all(|(_, taken)| taken != uid))
        .filter(|uid| !in_use.contains(uid));
    free.next().ok_or_else(|| {
        let (first, last) = (uids.start(), uids.end());
        format!("no uid of {first}-{last} is free: a wider range in run_as has more")
    })
}

/// What is in BASE: names, and the group of each.
fn list(base: &Path) -> io::Result<Vec<(String, u32)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(base)? {
        let entry = entry?;
        // One that has gone meanwhile has no owner.
        if let (Ok(name), Ok(metadata)) = (entry.file_name().into_string(), entry.metadata())
            && name != LOCK
        {
            found.push((name, metadata.gid()));
        }
    }
    Ok(found)
}

/// BASE, and above it what is missing; others may pass through if children have other uids.
fn make_base(base: &Path, passable: bool) -> io::Result<()> {
    let mode = if passable { 0o711 } else { 0o700 };
    for directory in base.parent().into_iter().chain([base]) {
        if make_directory(directory, mode)? {
            // Whatever the umask says.
            fs::set_permissions(directory, Permissions::from_mode(mode))?;
        }
    }
    match passable {
        // It may have been made when children had the broker's uid.
        true => fs::set_permissions(base, Permissions::from_mode(mode)),
        false => Ok(()),
    }
}

/// Whether it was not there.
fn make_directory(path: &Path, mode: u32) -> io::Result<bool> {
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens a file to be locked, made for its owner alone if it is not there.
fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options.open(path)
}

/// Opens a directory, but no link to one.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags.bits().cast_signed());
    options.open(path)
}

fn mode(path: &Path) -> io::Result<u32> {
    Ok(fs::metadata(path)?.mode() & 0o7777)
}

/// Whether every user can get to the directory, up to its own door.
fn is_passable(path: &Path) -> bool {
    let mut above = path.ancestors().skip(1);
    above.all(|it| mode(it).is_ok_and(|mode| mode & 0o001 != 0))
}

fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        // With its length, so that no two lists of parts are alike.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut digits = hex::encode(hash.finalize());
    digits.truncate(NAME_DIGITS);
    digits
}

fn at(path: &Path) -> impl Fn(io::Error) -> IsolationError {
    let path = path.to_owned();
    move |source| IsolationError::Directory {
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests;
