//! cgroup v2: a cgroup for each child, where the broker has been given a part of the hierarchy
//! (`Delegate=yes`). Whatever a child starts stays in it, so `cgroup.kill` ends all of it, without
//! gaps; and its memory and number of processes can be limited.
//!
//! The broker moves itself to the leaf `broker-RUN` of its own cgroup, because processes may only
//! be in leaves, and makes a sibling `child-RUN-LABEL.NUMBER` for each child, which its launcher
//! joins. Nothing outside its own cgroup is touched, and nothing in it that has other names.
//!
//! [`facts`] is what the system says · [`decide`] is whether that will do.

mod child;
mod decide;
mod facts;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub(crate) use child::ChildCgroup;
pub(crate) use decide::Refusal;
use decide::decide;
use facts::Facts;

/// What the broker sets limits with; each may be missing.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];
/// Another broker that starts may take the new leaf for a left-over one, once.
const MOVE_TRIES: usize = 3;
/// Hexadecimal digits.
const RUN_ID_CHARS: usize = 32;
const LEAF: &str = "broker-";
const CHILD: &str = "child-";

/// The bounds of one child and all it starts; `None`: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CgroupLimits {
    /// `memory.max`, in bytes.
    pub(crate) memory_max: Option<u64>,
    /// `pids.max`: processes and threads.
    pub(crate) pids_max: Option<u64>,
}

/// The broker's part of the hierarchy.
pub(crate) struct Cgroups {
    path: PathBuf,
    mount: PathBuf,
    /// As the kernel names it.
    name: String,
    run: String,
    /// Those of [`CONTROLLERS`] that children have.
    controllers: Vec<&'static str>,
}

impl Cgroups {
    /// Takes the broker's part in hand for the run of this id: moves the broker to its leaf, and
    /// ends what the runs of dead brokers have left here; those of `dead` are known to be.
    ///
    /// # Errors
    /// [`Refusal`], which says why there can be no cgroup for children; nothing has changed then.
    pub(crate) fn begin(run: &str, dead: &[String]) -> Result<Self, Refusal> {
        let facts = Facts::gather().map_err(Refusal::Unreadable)?;
        let plan = decide(&facts)?;
        let (path, mount, name) = (plan.path, plan.mount, plan.name);
        let leaf = path.join(format!("{LEAF}{run}"));
        enter(&leaf).map_err(|error| Refusal::failed(&leaf, &error))?;
        for controller in &plan.controllers {
            let control = path.join("cgroup.subtree_control");
            if let Err(error) = fs::write(&control, format!("+{controller}")) {
                // EBUSY: somebody has come into the cgroup, who is not ours.
                leave(&path, &leaf);
                return Err(Refusal::failed(&control, &error));
            }
        }
        let cgroups = Self {
            path,
            mount,
            name,
            run: run.to_owned(),
            controllers: plan.controllers,
        };
        if let Err(error) = cgroups.sweep(dead) {
            log::warn!("cannot look after the cgroups of former runs: {error}");
        }
        Ok(cgroups)
    }

    /// A cgroup for a child that is about to be started; `name` is its own in this run.
    ///
    /// # Errors
    /// The OS error, with the path.
    pub(crate) fn child(&self, name: &str, limits: CgroupLimits) -> io::Result<ChildCgroup> {
        let path = self.path.join(format!("{CHILD}{}-{name}", self.run));
        ChildCgroup::create(path, self.mount.clone(), limits, &self.controllers)
    }

    /// Ends the children of dead runs, and removes their cgroups. A run is dead if nobody is in
    /// its leaf.
    fn sweep(&self, dead: &[String]) -> io::Result<()> {
        let names = fs::read_dir(&self.path)?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let names: Vec<String> = names.collect();
        let mut alive: Vec<&str> = vec![&self.run];
        for leaf in &names {
            let Some(run) = leaf.strip_prefix(LEAF).filter(|run| is_id(run)) else {
                continue;
            };
            let is_dead = dead.iter().any(|it| it == run);
            // The kernel refuses to remove one that anybody is in.
            if run != self.run && fs::remove_dir(self.path.join(leaf)).is_err() && !is_dead {
                alive.push(run);
            }
        }
        for name in &names {
            let run = name.strip_prefix(CHILD).and_then(|it| it.split_once('-'));
            let Some((run, _)) = run.filter(|(run, _)| is_id(run)) else {
                continue;
            };
            if !alive.contains(&run) {
                log::warn!("what a former run has left is killed cgroup={name}");
                drop(ChildCgroup::adopt(self.path.join(name), self.mount.clone()));
            }
        }
        Ok(())
    }
}

/// One line for the start: what is in force.
impl fmt::Display for Cgroups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has = |controller: &str| self.controllers.contains(&controller);
        let limits = match (has("memory"), has("pids")) {
            (true, true) => "memory_max and pids_max in force",
            (true, false) => "memory_max in force, no pids controller for pids_max",
            (false, true) => "pids_max in force, no memory controller for memory_max",
            (false, false) => "no controllers for memory_max and pids_max",
        };
        write!(
            f,
            "(each server ends with all it started: below {}; {limits})",
            self.name
        )
    }
}

/// Whether this may be the id of a run.
fn is_id(text: &str) -> bool {
    text.len() == RUN_ID_CHARS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Makes the leaf, and moves this process there.
fn enter(leaf: &Path) -> io::Result<()> {
    let mut tries = 0;
    loop {
        tries += 1;
        fs::create_dir(leaf)?;
        match fs::write(leaf.join("cgroup.procs"), "0") {
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < MOVE_TRIES => {}
            Err(error) => {
                // Nobody has come to be in it.
                let _ = fs::remove_dir(leaf);
                return Err(error);
            }
            Ok(()) => return Ok(()),
        }
    }
}

/// Takes [`enter`] back.
fn leave(path: &Path, leaf: &Path) {
    let left = fs::write(path.join("cgroup.procs"), "0").and_then(|()| fs::remove_dir(leaf));
    if let Err(error) = left {
        log::warn!("cannot leave {}: {error}", leaf.display());
    }
}
