//! Landlock: the process, and all it will start, gets a domain of its own. From inside it the
//! kernel refuses what a debugger does (`/proc/PID/environ` and `mem`, `ptrace`) towards every
//! process outside, where it knows how also signals and abstract Unix sockets, and what is in the
//! hidden directories.
//!
//! Landlock can only allow, and what is allowed for a directory is allowed for all below. So all is
//! allowed except the directories on the way down to a hidden one: of those everything that is in
//! them now is allowed by itself. It follows that in exactly these directories (`/`, `/var`,
//! `/var/lib` above `/var/lib/mcp-broker`) a child can make, rename and remove nothing, and cannot
//! open what others make there after its start; what lies in the directories beside the way is as
//! ever. Directories can be listed everywhere, hidden ones too: that right is not asked for.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, LandlockStatus, PathBeneath,
    RestrictSelf, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};
use rustix::fs::OFlags;

/// What is kept from a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Confinement {
    /// What the kernel is asked for: all that this version of Landlock has.
    pub(crate) abi: i32,
    /// Directories out of reach, each as its real path.
    pub(crate) hidden: Vec<PathBuf>,
    /// Directories inside hidden ones that are within reach all the same.
    pub(crate) allowed: Vec<PathBuf>,
    /// Directories inside hidden ones, or hidden ones, whose files may be read.
    pub(crate) readable: Vec<PathBuf>,
}

/// The newest version of Landlock that both the kernel and this program know; `None`: the kernel
/// has none, or it is switched off.
pub(crate) fn kernel_abi() -> Option<i32> {
    // Applies nothing: no flag is set.
    let status = RestrictSelf::default().no_new_privs(false).apply().ok()?;
    match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => Some(effective_abi as i32),
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => None,
    }
}

/// A domain that is ready to be entered.
pub(super) struct Domain(RulesetCreated);

impl Domain {
    /// Looks at the file system, and must therefore be made with the rights of the broker.
    pub(super) fn new(confinement: &Confinement) -> Result<Self, String> {
        Self::build(confinement).map_err(|error| format!("cannot confine it: {error}"))
    }

    fn build(confinement: &Confinement) -> Result<Self, RulesetError> {
        let abi = ABI::from(confinement.abi);
        let access = handled(abi);
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(access)?;
        let scopes = Scope::from_all(abi);
        if !scopes.is_empty() {
            ruleset = ruleset.scope(scopes)?;
        }
        let mut ruleset = ruleset.create()?;
        for path in reachable(confinement) {
            // What has gone meanwhile, or is closed even for the broker, need not be allowed.
            let Ok((file, is_directory)) = open(&path) else {
                continue;
            };
            let access = match is_directory {
                true => access,
                false => access & AccessFs::from_file(abi),
            };
            ruleset = ruleset.add_rule(PathBeneath::new(file, access))?;
        }
        for path in &confinement.readable {
            if let Ok((file, true)) = open(path) {
                ruleset = ruleset.add_rule(PathBeneath::new(file, AccessFs::ReadFile))?;
            }
        }
        Ok(Self(ruleset))
    }

    pub(super) fn enter(self) -> Result<(), String> {
        let entered = self.0.restrict_self();
        let entered = entered.map_err(|error| format!("cannot confine it: {error}"))?;
        match entered.ruleset {
            landlock::RulesetStatus::FullyEnforced => Ok(()),
            status => Err(format!("cannot confine it: Landlock is {status:?}")),
        }
    }
}

/// All rights to files but two: to list a directory, because the names in the hidden ones are no
/// secret, and to drive devices, which has nothing to do with files.
fn handled(abi: ABI) -> BitFlags<AccessFs> {
    AccessFs::from_all(abi) & !(AccessFs::ReadDir | AccessFs::IoctlDev)
}

/// Everything that is not hidden: `/`, or the neighbours of all that leads to something hidden.
fn reachable(confinement: &Confinement) -> BTreeSet<PathBuf> {
    let mut found: BTreeSet<PathBuf> = confinement.allowed.iter().cloned().collect();
    let ways: BTreeSet<&Path> = confinement
        .hidden
        .iter()
        .flat_map(|it| it.ancestors())
        .collect();
    if ways.is_empty() {
        found.insert(PathBuf::from("/"));
    }
    let inside = |path: &Path| confinement.hidden.iter().any(|it| path.starts_with(it));
    for way in ways.iter().filter(|way| !inside(way)) {
        // One that cannot be read even by the broker leads nowhere else for the child.
        let entries = fs::read_dir(way).into_iter().flatten().flatten();
        let beside = entries.map(|entry| entry.path());
        found.extend(beside.filter(|path| !ways.contains(path.as_path())));
    }
    found
}

/// Opens it as a place, not for what is in it. Not through a link: where that leads is allowed or
/// hidden by itself.
fn open(path: &Path) -> io::Result<(File, bool)> {
    let flags = (OFlags::PATH | OFlags::NOFOLLOW).bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    let kind = file.metadata()?.file_type();
    match kind.is_symlink() {
        true => Err(io::ErrorKind::NotFound.into()),
        false => Ok((file, kind.is_dir())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_hidden_is_reachable() {
        let all = reachable(&Confinement::default());
        assert_eq!(all, BTreeSet::from([PathBuf::from("/")]));

        let base = std::env::temp_dir().join(format!("mcp-broker-confine-{}", std::process::id()));
        let base = {
            fs::create_dir_all(base.join("a/hidden/own")).unwrap();
            fs::create_dir_all(base.join("a/beside/deep")).unwrap();
            fs::create_dir_all(base.join("b/deep")).unwrap();
            fs::write(base.join("a/file"), "").unwrap();
            base.canonicalize().unwrap()
        };
        let found = reachable(&Confinement {
            abi: 1,
            hidden: vec![base.join("a/hidden"), base.join("a/hidden/own/other")],
            allowed: vec![base.join("a/hidden/own")],
            readable: vec![],
        });
        let here: Vec<_> = found
            .iter()
            .filter_map(|it| it.strip_prefix(&base).ok())
            .collect();
        let expected = ["a/beside", "a/file", "a/hidden/own", "b"].map(Path::new);
        assert_eq!(here, expected);
        assert!(found.contains(Path::new("/proc")));
        assert!(!found.contains(Path::new("/")));
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn a_link_is_not_followed() {
        assert!(open(Path::new("/proc/self")).is_err());
        assert!(open(Path::new("/nonexistent")).is_err());
        assert!(open(Path::new("/proc")).is_ok_and(|(_, is_directory)| is_directory));
        assert!(open(Path::new("/proc/version")).is_ok_and(|(_, is_directory)| !is_directory));
    }
}
