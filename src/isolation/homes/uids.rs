//! Who still runs under a uid. A process that has left its group is not ended with its session; as
//! long as it lives, its uid must not become another user's.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A file for each uid that systemd has given to a service for as long as it runs; they are of the
/// same range as those that the broker gives unless told otherwise.
const OF_SERVICES: &str = "/run/systemd/dynamic-uid";

/// The uids of all processes, and those that systemd has given away.
///
/// # Errors
/// The OS error: `/proc` cannot be read.
pub(super) fn in_use() -> io::Result<HashSet<u32>> {
    // Without systemd there is no such directory.
    let services = fs::read_dir(OF_SERVICES).into_iter().flatten().flatten();
    let of_services = services.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(of_processes()?.chain(of_services).collect())
}

/// The effective uids of all processes that have not ended. They are met in the order of their
/// ids, so one that forks and ends all the time is too.
fn of_processes() -> io::Result<impl Iterator<Item = u32>> {
    let entries = fs::read_dir("/proc")?;
    Ok(entries.filter_map(|entry| {
        let entry = entry.ok()?;
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        let uid = entry.metadata().ok()?.uid();
        // Root's are not asked for, and there are many.
        (uid != 0 && !has_ended(&entry.path())).then_some(uid)
    }))
}

/// One that nobody has waited for yet.
fn has_ended(process: &Path) -> bool {
    let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, from_third)| from_third);
    state.is_none_or(|state| state.starts_with(['Z', 'X']))
}
