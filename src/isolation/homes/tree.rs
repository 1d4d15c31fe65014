//! Removes a directory with all that is in it, however its owner has left it.
//!
//! What is in it was made by a program that may wish the broker ill. So nothing here recurses, or
//! holds a descriptor for each level: directories that are nested a thousand times would take the
//! stack, and with it the broker. Every directory is moved up to the first level before it is
//! emptied. And everything is done through descriptors that were opened without following links.

use std::ffi::CStr;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;
use rustix::path::Arg;

/// Removes it, without following links out of it. What cannot be removed is logged: it is tried
/// again when the broker starts next.
pub(super) fn remove(path: &Path) {
    match try_remove(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => log::warn!("cannot remove {}: {error}", path.display()),
    }
}

/// Gives the owner all rights to the directory.
pub(super) fn open_up(path: &Path) {
    // What fails here fails again, and is told, when it is removed.
    let _ = open(CWD, path);
}

fn try_remove(path: &Path) -> io::Result<()> {
    let top = open(CWD, path)?;
    let mut last_no = 0;
    loop {
        let mut is_empty = true;
        for entry in Dir::read_from(&top)? {
            let entry = entry?;
            if !is_dots(entry.file_name()) {
                is_empty = false;
                remove_entry(&top, entry.file_name(), &mut last_no)?;
            }
        }
        if is_empty {
            return fs::remove_dir(path);
        }
    }
}

/// Removes a file, or a directory whose own directories move to `top`.
fn remove_entry(top: &OwnedFd, name: &CStr, last_no: &mut u64) -> io::Result<()> {
    if unlink(top, name)? {
        return Ok(());
    }
    let directory = open(top, name)?;
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let inner = entry.file_name();
        if !is_dots(inner) && !unlink(&directory, inner)? {
            // To move a directory takes the right to write in it.
            open(&directory, inner)?;
            move_up(&directory, inner, top, last_no)?;
        }
    }
    match unlinkat(top, name, AtFlags::REMOVEDIR) {
        // Something was overlooked, or made meanwhile: its turn comes again.
        Ok(()) | Err(Errno::NOTEMPTY) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Under a name that nothing has: the owner may have used any.
fn move_up(from: &OwnedFd, name: &CStr, top: &OwnedFd, last_no: &mut u64) -> io::Result<()> {
    loop {
        *last_no += 1;
        match renameat(from, name, top, last_no.to_string()) {
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
            renamed => return Ok(renamed?),
        }
    }
}

/// False for a directory.
fn unlink(directory: &OwnedFd, name: &CStr) -> io::Result<bool> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::ISDIR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Opens a directory, but no link to one, with all rights for its owner: package managers take the
/// right to write from those that they have filled.
fn open(parent: impl AsFd, name: impl Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = openat(parent, name, flags | OFlags::PATH, Mode::empty())?;
    // The name may be a link by now; this one leads to what was opened.
    let itself = format!("/proc/self/fd/{}", place.as_raw_fd());
    // What fails here fails again, and is told, below.
    let _ = fs::set_permissions(itself, Permissions::from_mode(0o700));
    Ok(openat(&place, c".", flags | OFlags::RDONLY, Mode::empty())?)
}

fn is_dots(name: &CStr) -> bool {
    name == c"." || name == c".."
}
