//! What the tests share: a running broker, an HTTP client, a session over it, a look at processes.
//!
//! Every wait is for an event and has a deadline; nothing sleeps for a fixed time and hopes.

pub(crate) mod broker;
pub(crate) mod http;
pub(crate) mod modern;
pub(crate) mod process;
pub(crate) mod session;
pub(crate) mod sign_in;
pub(crate) mod user;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub(crate) use broker::{Broker, Run, run};
pub(crate) use http::{Connection, Events, Request, Response};
pub(crate) use session::Session;

/// How long anything may take that should happen at once; generous, for machines under load.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);

/// Waits until `condition` holds; `what` says in a failure what was waited for.
#[track_caller]
pub(crate) fn eventually(what: &str, condition: impl FnMut() -> bool) {
    within(DEADLINE, what, condition);
}

/// [`eventually`] with a deadline that is part of what is tested.
#[track_caller]
pub(crate) fn within(time: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + time;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {time:?}: {what}");
        std::thread::sleep(POLL);
    }
}

/// Tells whoever reads the output of a test something that is no failure.
pub(crate) fn say(what: &str) {
    let _ = writeln!(io::stderr(), "{what}");
}

/// The path of the fixture child.
pub(crate) fn fake_mcp() -> String {
    example("fake_mcp")
}

/// The path of one of the test programs.
pub(crate) fn example(name: &str) -> String {
    let broker = Path::new(env!("CARGO_BIN_EXE_mcp-broker"));
    let path = broker.with_file_name("examples").join(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo test`, which builds it",
        path.display()
    );
    path.to_str().expect("a path in UTF-8").to_owned()
}

/// A directory of one test, only for this user, removed at its end.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let no = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mcp-broker-it-{}-{no}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a new directory for this test");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("mode 0700");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file, readable for this user only.
    pub(crate) fn write(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = self.0.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // A test that failed may have left a process behind that still writes here.
        let _ = fs::remove_dir_all(&self.0);
    }
}
