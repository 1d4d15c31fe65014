//! Removes a directory with all that is in it, however its owner has left it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// How deep directories without rights are looked for.
const MAX_DEPTH: usize = 64;

/// Removes it, without following links out of it. What cannot be removed is logged: it is tried
/// again when the broker starts next.
pub(super) fn remove(path: &Path) {
    let mut removed = fs::remove_dir_all(path);
    if removed.as_ref().is_err_and(is_denied) {
        // Package managers take the right to write from directories that they have filled.
        open_up(path, MAX_DEPTH);
        removed = fs::remove_dir_all(path);
    }
    match removed {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => log::warn!("cannot remove {}: {error}", path.display()),
    }
}

pub(super) fn is_denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// Gives the owner all rights to the directories so many levels down. Only an owner other than root
/// needs that, and only to what is its own anyway.
pub(super) fn open_up(path: &Path, depth: usize) {
    let is_directory = fs::symlink_metadata(path).is_ok_and(|it| it.is_dir());
    if depth == 0 || !is_directory {
        return;
    }
    // What fails here fails again, and is told, when it is removed.
    let _ = fs::set_permissions(path, Permissions::from_mode(0o700));
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        open_up(&entry.path(), depth - 1);
    }
}
