//! What the system says about the broker's own cgroup.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access, getxattr};
use rustix::process::geteuid;

/// Of the namespace that the machine starts with (`PROC_CGROUP_INIT_INO`).
const FIRST_NAMESPACE: &str = "cgroup:[4026531835]";
/// What systemd marks a delegated cgroup with: the manager of the system, and those of users.
const DELEGATION_MARKS: [&str; 2] = ["trusted.delegate", "user.delegate"];

/// All that [`super::decide`] needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// The broker's own cgroup as the kernel names it; `None` without cgroup v2.
    pub(super) own: Option<String>,
    /// Where the hierarchy is; `None` if the own cgroup can be seen nowhere.
    pub(super) mount: Option<PathBuf>,
    /// The directory of the own cgroup.
    pub(super) path: Option<PathBuf>,
    /// It has no parent, on the machine as a whole.
    pub(super) is_root_cgroup: bool,
    /// The outermost one of a namespace, of a container that is.
    pub(super) is_of_container: bool,
    /// Root may write everywhere: that says nothing.
    pub(super) is_root_user: bool,
    pub(super) is_marked_delegated: bool,
    /// Whether cgroups can be made, joined and given controllers.
    pub(super) is_writable: bool,
    pub(super) has_kill: bool,
    pub(super) controllers: Vec<String>,
    /// Processes in it beside the broker.
    pub(super) others: usize,
}

impl Facts {
    /// # Errors
    /// The OS error if `/proc` cannot be read.
    pub(super) fn gather() -> io::Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let own = own_cgroup(&own).map(str::to_owned);
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let (mount, path) = own.as_deref().and_then(|own| mounted(&mounts, own)).unzip();
        let namespace = fs::read_link("/proc/self/ns/cgroup")?;
        let read = |name: &str| {
            let file = path.as_ref().map(|path| path.join(name));
            file.and_then(|file| fs::read_to_string(file).ok())
        };
        let has = |name: &str| path.as_ref().is_some_and(|path| path.join(name).exists());
        let pid = std::process::id().to_string();
        Ok(Self {
            is_root_cgroup: path.is_some() && !has("cgroup.type"),
            is_of_container: own.as_deref() == Some("/") && namespace != Path::new(FIRST_NAMESPACE),
            is_root_user: geteuid().is_root(),
            is_marked_delegated: path.as_deref().is_some_and(is_marked_delegated),
            is_writable: path.as_deref().is_some_and(is_writable),
            has_kill: has("cgroup.kill"),
            controllers: read("cgroup.controllers")
                .unwrap_or_default()
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
            others: read("cgroup.procs")
                .unwrap_or_default()
                .lines()
                .filter(|line| *line != pid)
                .count(),
            own,
            mount,
            path,
        })
    }
}

/// From `/proc/PID/cgroup` (cgroups(7)): hierarchy 0 is version 2.
pub(super) fn own_cgroup(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

/// From `/proc/PID/mountinfo` (proc_pid_mountinfo(5)): where a hierarchy of version 2 is mounted,
/// and the directory of this cgroup in it.
pub(super) fn mounted(mountinfo: &str, cgroup: &str) -> Option<(PathBuf, PathBuf)> {
    mountinfo.lines().find_map(|line| {
        let (mount, rest) = line.split_once(" - ")?;
        if rest.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (unescaped(fields.next()?), unescaped(fields.next()?));
        let below = Path::new(cgroup).strip_prefix(root).ok()?;
        let point = PathBuf::from(point);
        // Joining nothing would add a slash.
        let path = point.components().chain(below.components()).collect();
        Some((point, path))
    })
}

/// Blanks, newlines and backslashes in paths are written as `\OOO`.
fn unescaped(path: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(path.to_owned(), |path, (code, c)| path.replace(code, c))
}

fn is_marked_delegated(path: &Path) -> bool {
    DELEGATION_MARKS.into_iter().any(|name| {
        let mut value = [0; 8];
        matches!(getxattr(path, name, &mut value), Ok(len) if value[..len] == *b"1")
    })
}

fn is_writable(path: &Path) -> bool {
    let files = ["", "cgroup.procs", "cgroup.subtree_control"];
    files
        .iter()
        .all(|name| access(path.join(name), Access::WRITE_OK).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_cgroup_is_that_of_hierarchy_0() {
        for (text, expected) in [
            ("0::/user.slice/a b\n", Some("/user.slice/a b")),
            ("4:memory:/x\n1:name=systemd:/y\n0::/\n", Some("/")),
            ("4:memory:/x\n10::/y\n", None),
            ("", None),
        ] {
            assert_eq!(own_cgroup(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_directory_of_a_cgroup_is_found_among_the_mounts() {
        const V1: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        const V2: &str = "41 31 0:38 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        const PART: &str = "41 31 0:38 /a/b /mnt/a\\040part rw - cgroup2 none rw\n";
        let check = |mounts: &[&str], own: &str, expected: Option<&str>| {
            let found = mounted(&mounts.concat(), own).map(|(_, path)| path);
            assert_eq!(
                found.as_deref(),
                expected.map(Path::new),
                "{own} in {mounts:?}"
            );
            // Equal paths may be written with a slash more.
            let text = found.and_then(|path| path.to_str().map(str::to_owned));
            assert_eq!(text.as_deref(), expected, "{own} in {mounts:?}");
        };
        check(&[V1, V2], "/", Some("/sys/fs/cgroup"));
        check(
            &[V2],
            "/system.slice/x.service",
            Some("/sys/fs/cgroup/system.slice/x.service"),
        );
        check(&[V1], "/", None);
        check(&[PART], "/a/b/c", Some("/mnt/a part/c"));
        check(&[PART], "/a/b", Some("/mnt/a part"));
        check(&[PART], "/a/bc", None);
        check(&[PART, V2], "/a/bc", Some("/sys/fs/cgroup/a/bc"));
        check(&["nonsense\n"], "/", None);
    }
}
