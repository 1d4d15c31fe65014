//! Whom a broker and its children run as, where the tests are run by root, as they are in a
//! container. Programs under `target` may be out of reach for anybody else.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::geteuid;

use super::TempDir;
use super::broker::PROGRAM;

/// A uid that nobody has: those of systemd end below it, those of containers begin above.
const ORDINARY: u32 = 65530;

pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// The options of `serve` and `check` that let children run as whoever runs the tests.
pub(crate) fn as_ourselves() -> &'static [&'static str] {
    match is_root() {
        true => &["--run-as", "root"],
        false => &[],
    }
}

/// A directory that everybody can enter, with copies of both programs.
pub(crate) struct Programs(TempDir);

impl Programs {
    pub(crate) fn copy() -> Self {
        let dir = TempDir::new();
        let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755));
        open(dir.path()).expect("mode 0755");
        for program in [PROGRAM, &super::fake_mcp()] {
            let copy = dir
                .path()
                .join(Path::new(program).file_name().expect("a name"));
            fs::copy(program, &copy).expect("a copy");
            open(&copy).expect("mode 0755");
        }
        Self(dir)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn fake_mcp(&self) -> String {
        let path = self.path("fake_mcp");
        path.to_str().expect("a path in UTF-8").to_owned()
    }

    /// The broker's program, to be run by an ordinary user: another one if that is root.
    pub(crate) fn broker(&self, is_ordinary: bool) -> Command {
        let program = self.path("mcp-broker");
        if !is_ordinary || !is_root() {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command
            .args([format!("--reuid={ORDINARY}"), format!("--regid={ORDINARY}")])
            .args(["--clear-groups", "--"])
            .arg(program);
        command
    }
}

/// Gives these to the user of [`Programs::broker`].
pub(crate) fn give(paths: &[&Path]) {
    for path in paths.iter().filter(|_| is_root()) {
        chown(path, Some(ORDINARY), Some(ORDINARY)).expect("a new owner");
    }
}
