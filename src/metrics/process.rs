//! What the kernel says about the broker and its children, read from `/proc` (proc(5)).

use std::collections::HashSet;
use std::fs;

use rustix::process::{Resource, getrlimit};

use super::Page;

/// Writes what is known about the broker's own process. What cannot be read is left out.
pub(crate) fn write_own(page: &mut Page) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(threads) = field(&status, "Threads:") {
        page.gauge("threads", "Threads of the broker.", threads);
    }
    if let Some(kib) = field(&status, "VmRSS:") {
        let help = "Resident memory of the broker.";
        page.gauge("resident_memory_bytes", help, kib * 1024);
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        // The directory that is being read has one too.
        let open = entries.count().saturating_sub(1);
        page.gauge("open_fds", "Open descriptors of the broker.", open);
    }
    if let Some(max) = getrlimit(Resource::Nofile).current {
        page.gauge("max_fds", "Descriptors that the broker may open.", max);
    }
}

/// The first number of a line of `/proc/PID/status`.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Resident bytes of all processes in these groups: a server is often several, and what was
/// started first is just a wrapper. Pages that they share count for each of them.
pub(crate) fn resident_bytes(groups: &HashSet<u32>) -> u64 {
    if groups.is_empty() {
        return 0;
    }
    let Ok(entries) = fs::read_dir("/proc") else {
        return 0;
    };
    let pages: u64 = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            path.file_name()?.to_str()?.parse::<u32>().ok()?;
            // It may have ended meanwhile.
            let stat = fs::read_to_string(path.join("stat")).ok()?;
            let (group, pages) = group_and_pages(&stat)?;
            groups.contains(&group).then_some(pages)
        })
        .sum();
    pages * rustix::param::page_size() as u64
}

/// Fields 5 and 24 of `/proc/PID/stat`.
fn group_and_pages(stat: &str) -> Option<(u32, u64)> {
    // The name, the second field, stands in brackets and may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let group = fields.nth(2)?.parse().ok()?;
    let pages = fields.nth(18)?.parse().ok()?;
    Some((group, pages))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_group_and_memory_whatever_the_name() {
        let stat = "12 (a) b (c) S 1 77 12 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 99 1000 345 \
                    18446744073709551615 1 1 0\n";
        assert_eq!(group_and_pages(stat), Some((77, 345)));
        assert_eq!(group_and_pages("12 (a"), None);
        assert_eq!(group_and_pages("12 (a) S 1"), None);
    }

    #[test]
    fn counts_this_process() {
        let own = std::process::id();
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let (group, _) = group_and_pages(&stat).unwrap();
        let bytes = resident_bytes(&HashSet::from([group]));
        assert!(bytes > 64 * 1024, "{bytes} of {own}");
        assert_eq!(resident_bytes(&HashSet::from([u32::MAX])), 0);
        assert_eq!(field("Name:\tx\nThreads:\t12\n", "Threads:"), Some(12));
        assert_eq!(field("VmRSS:\t  34 kB\n", "VmRSS:"), Some(34));
    }
}
