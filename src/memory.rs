//! How much memory there is left for another process.

use std::fs;

/// What can be given out without swapping, in bytes: the machine's `MemAvailable`, or what the
/// control group (v2) of the broker has left, whichever is less. `None` where neither is known.
pub(crate) fn available() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok();
    let machine = machine.and_then(|text| mem_available(&text));
    match (machine, group_available()) {
        (Some(machine), Some(group)) => Some(machine.min(group)),
        (machine, group) => machine.or(group),
    }
}

/// proc_meminfo(5).
fn mem_available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// cgroups(7): `memory.max` less `memory.current`, of which unused file pages can be had back.
fn group_available() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let read = |name: &str| fs::read_to_string(format!("/sys/fs/cgroup/{path}/{name}")).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let inactive = read("memory.stat").and_then(|stat| inactive_file(&stat));
    let left = number("memory.max")?.saturating_sub(number("memory.current")?);
    Some(left.saturating_add(inactive.unwrap_or(0)))
}

fn inactive_file(stat: &str) -> Option<u64> {
    let line = stat
        .lines()
        .find_map(|line| line.strip_prefix("inactive_file "))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let meminfo = "MemTotal:       24554140 kB\nMemAvailable:   23999048 kB\nHugePages: 0\n";
        assert_eq!(mem_available(meminfo), Some(23_999_048 * 1024));
        assert_eq!(mem_available("MemTotal: 1 kB\n"), None);
        assert_eq!(
            inactive_file("anon 1\ninactive_file 4096\nactive_file 2\n"),
            Some(4096)
        );
        assert!(available().is_some_and(|bytes| bytes > 0));
    }
}
