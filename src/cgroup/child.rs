//! The cgroup of one child.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::CgroupLimits;

/// How long killed processes may take to be gone, so that their cgroup can be removed.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(2);

/// A cgroup that one child and all it starts are in, until [`ChildCgroup::end`].
pub(crate) struct ChildCgroup {
    path: PathBuf,
    mount: PathBuf,
}

impl ChildCgroup {
    /// # Errors
    /// The OS error, with the path; nothing is left then.
    pub(super) fn create(
        path: PathBuf,
        mount: PathBuf,
        limits: CgroupLimits,
        controllers: &[&str],
    ) -> io::Result<Self> {
        let failed = |path: &Path, error: &io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        };
        fs::create_dir(&path).map_err(|error| failed(&path, &error))?;
        let cgroup = Self { path, mount };
        let mut settings: Vec<(&str, u64)> = Vec::new();
        if let Some(bytes) = limits
            .memory_max
            .filter(|_| controllers.contains(&"memory"))
        {
            // All of the child ends then, not whichever process of it is the largest.
            settings.extend([("memory.max", bytes), ("memory.oom.group", 1)]);
            // Else it would go on in swap space. There is no such file without any.
            if cgroup.path.join("memory.swap.max").exists() {
                settings.push(("memory.swap.max", 0));
            }
        }
        if let Some(count) = limits.pids_max.filter(|_| controllers.contains(&"pids")) {
            settings.push(("pids.max", count));
        }
        for (name, value) in settings {
            let file = cgroup.path.join(name);
            fs::write(&file, value.to_string()).map_err(|error| failed(&file, &error))?;
        }
        Ok(cgroup)
    }

    /// One that a former run has left.
    pub(super) fn adopt(path: PathBuf, mount: PathBuf) -> Self {
        Self { path, mount }
    }

    /// What the child's launcher is to join.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the whole hierarchy is.
    pub(crate) fn mount(&self) -> &Path {
        &self.mount
    }

    /// Whether a process was killed because of the memory limit.
    pub(crate) fn is_out_of_memory(&self) -> bool {
        let events = fs::read_to_string(self.path.join("memory.events"));
        events.is_ok_and(|events| counted(&events, "oom_kill") > 0)
    }

    /// Sends SIGKILL to all processes that are in it.
    pub(crate) fn kill(&self) {
        if let Err(error) = fs::write(self.path.join("cgroup.kill"), "1")
            && error.kind() != io::ErrorKind::NotFound
        {
            log::error!("cannot end all of {}: {error}", self.path.display());
        }
    }

    /// Ends what is left in it, and removes it; does nothing if that has been done. Waits a little,
    /// because the dying are still in it.
    pub(crate) fn end(&self) {
        let deadline = Instant::now() + REMOVE_TIMEOUT;
        loop {
            self.kill();
            match remove(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return,
                Err(_) if Instant::now() < deadline => thread::sleep(PAUSE),
                Err(error) => {
                    log::error!("cannot remove {}: {error}", self.path.display());
                    return;
                }
                Ok(()) => return,
            }
        }
    }
}

impl Drop for ChildCgroup {
    fn drop(&mut self) {
        self.end();
    }
}

/// Removes a cgroup, and those that a child may have made in it.
fn remove(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

/// The count of this name in a file of `NAME COUNT` lines.
fn counted(text: &str, name: &str) -> u64 {
    let of_name = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
    text.lines().find_map(of_name).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_found_by_its_whole_name() {
        let events = "low 0\nhigh 3\nmax 8\noom 2\noom_kill 1\noom_group_kill 4\n";
        for (name, expected) in [
            ("oom_kill", 1),
            ("oom", 2),
            ("max", 8),
            ("kill", 0),
            ("", 0),
        ] {
            assert_eq!(counted(events, name), expected, "{name}");
        }
    }
}
