//! No process outlives its session, or the broker, however it tries and however the broker ends.
//!
//! The stop ladder of `supervisor` ends a child and its process group. This module sees to what is
//! left then: what has left its group (the broker is the subreaper of its descendants, and
//! [`Run::tick`] ends those whose child has ended), and what a killed broker could not end any more
//! ([`Run::begin`] sweeps it at the next start). It knows processes by `/proc`, by a marker in
//! their environment and by what was written down in the run directory; nothing of sessions but
//! their labels. Where cgroup v2 is delegated, `cgroup` does the same without gaps.

mod kin;
mod process;
mod run_dir;
mod sweep;
mod watch;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::TryRng;
use rand::rngs::SysRng;
use rustix::process::{getpid, set_child_subreaper};

use kin::Family;
pub(crate) use kin::Kin;
use run_dir::{RunDir, Runs};
use watch::Watch;

/// How long adopted processes may take to die at the broker's end.
const END_TIMEOUT: Duration = Duration::from_secs(2);
const END_PAUSE: Duration = Duration::from_millis(5);

/// One life of a broker. Without children it may be dropped at any time.
pub(crate) struct Run {
    dir: RunDir,
    dead: Vec<String>,
    family: Arc<Family>,
    /// For the thread that ticks, and then for the one that ends: a lock that nobody waits for.
    watch: Mutex<Watch>,
    /// The directory is the next broker's to read.
    is_left: AtomicBool,
}

impl Run {
    /// Ends what dead brokers of this state directory have left, and begins a run of its own.
    ///
    /// # Errors
    /// The OS error if the directory cannot be written, `/proc` cannot be read, or there are no
    /// random bytes.
    pub(crate) fn begin(state_dir: &Path) -> io::Result<Self> {
        set_child_subreaper(Some(getpid()))?;
        let runs = Runs::open(state_dir)?;
        let left = runs.left()?;
        sweep::sweep(&left)?;
        let dead = left.into_iter().map(|dir| dir.id).collect();
        let mut id = [0; run_dir::ID_BYTES];
        SysRng
            .try_fill_bytes(&mut id)
            .map_err(|error| io::Error::other(error.to_string()))?;
        let dir = runs.create(hex::encode(id))?;
        let family = Family::new(dir.id.clone(), dir.path.clone());
        let watch = Watch::new(Arc::clone(&family))?;
        Ok(Self {
            dir,
            dead,
            family,
            watch: Mutex::new(watch),
            is_left: AtomicBool::new(false),
        })
    }

    /// Random, and no secret.
    pub(crate) fn id(&self) -> &str {
        &self.dir.id
    }

    /// The runs whose brokers were found dead.
    pub(crate) fn dead(&self) -> &[String] {
        &self.dead
    }

    /// To be called before a child of this session is spawned.
    pub(crate) fn kin(&self, label: &str) -> Kin {
        self.family.kin(label)
    }

    /// Ends and reaps what has lost its child, if there may be something; cheap otherwise.
    pub(crate) fn tick(&self, now: Instant) {
        self.watch.lock().tick(now);
    }

    /// Ends and reaps all that is left; to be called last. All children have been reaped by now,
    /// and no other will be started.
    pub(crate) fn end(&self) {
        let deadline = Instant::now() + END_TIMEOUT;
        let mut watch = self.watch.lock();
        loop {
            match watch.look() {
                Ok(true) => break,
                Ok(false) if Instant::now() < deadline => thread::sleep(END_PAUSE),
                Ok(false) => return self.leave_it("some processes do not die"),
                Err(error) => return self.leave_it(&error.to_string()),
            }
        }
    }

    fn leave_it(&self, why: &str) {
        log::error!("processes may be left, the next start looks again: {why}");
        self.is_left.store(true, Ordering::Relaxed);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.is_left.load(Ordering::Relaxed) {
            self.dir.remove();
        }
    }
}

/// Writes down this process in a run directory, with the session that its marker names: what is
/// written down is ended at the next start of a broker, should this one be killed.
///
/// # Errors
/// The OS error.
pub(crate) fn write_down(dir: &Path) -> io::Result<()> {
    let marker = std::env::var(process::MARKER).unwrap_or_default();
    let label = marker
        .split_once(':')
        .map_or("?", |(_, rest)| label_of(rest));
    run_dir::write(dir, run_dir::own_id()?, label)
}

/// The session's label in `LABEL.NUMBER`.
fn label_of(text: &str) -> &str {
    text.rsplit_once('.').map_or(text, |(label, _)| label)
}
