//! Whether the broker's own cgroup is the broker's to divide. Pure.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::CONTROLLERS;
use super::facts::Facts;

/// Why there is no cgroup for children: one line, with what to do about it.
#[derive(Debug)]
pub(crate) enum Refusal {
    Unreadable(io::Error),
    NoVersion2,
    NotMounted(String),
    NotDelegated(String),
    /// Others are in it; how many.
    Shared(String, usize),
    NoKill,
    Failed(String),
}

impl Refusal {
    pub(super) fn failed(path: &Path, error: &io::Error) -> Self {
        Self::Failed(format!("{}: {error}", path.display()))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "the own cgroup cannot be found: {error}"),
            Self::NoVersion2 => f.write_str("this system has no cgroup v2"),
            Self::NotMounted(own) => write!(f, "cgroup {own} is not mounted here"),
            Self::NotDelegated(own) => write!(
                f,
                "cgroup {own} is not delegated to the broker: Delegate=yes and \
                 ProtectControlGroups=no in the unit"
            ),
            Self::Shared(own, others) => write!(
                f,
                "cgroup {own} has {others} other processes in it: run the broker as a unit of its \
                 own, with Delegate=yes"
            ),
            Self::NoKill => f.write_str("cgroup.kill needs Linux 5.14"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

/// What is to be divided.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) path: PathBuf,
    pub(super) mount: PathBuf,
    pub(super) name: String,
    /// Those that are there, of the ones the broker uses.
    pub(super) controllers: Vec<&'static str>,
}

/// # Errors
/// [`Refusal`] if the cgroup is not the broker's own, or of no use.
pub(super) fn decide(facts: &Facts) -> Result<Plan, Refusal> {
    let Some(own) = facts.own.clone() else {
        return Err(Refusal::NoVersion2);
    };
    let Some((mount, path)) = facts.mount.clone().zip(facts.path.clone()) else {
        return Err(Refusal::NotMounted(own));
    };
    // That root may write says nothing; a mark, or a container's boundary, does.
    let is_given = !facts.is_root_user || facts.is_marked_delegated || facts.is_of_container;
    if facts.is_root_cgroup || !is_given || !facts.is_writable {
        return Err(Refusal::NotDelegated(own));
    }
    if facts.others > 0 {
        return Err(Refusal::Shared(own, facts.others));
    }
    if !facts.has_kill {
        return Err(Refusal::NoKill);
    }
    let is_there = |name: &&str| facts.controllers.iter().any(|it| it == name);
    Ok(Plan {
        path,
        mount,
        name: own,
        controllers: CONTROLLERS.into_iter().filter(is_there).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What systemd gives an ordinary user with `Delegate=yes`.
    fn delegated() -> Facts {
        Facts {
            own: Some("/system.slice/mcp-broker.service".to_owned()),
            mount: Some("/sys/fs/cgroup".into()),
            path: Some("/sys/fs/cgroup/system.slice/mcp-broker.service".into()),
            is_root_cgroup: false,
            is_of_container: false,
            is_root_user: false,
            is_marked_delegated: true,
            is_writable: true,
            has_kill: true,
            controllers: ["cpu", "memory", "pids"].map(str::to_owned).to_vec(),
            others: 0,
        }
    }

    #[test]
    fn only_what_is_the_brokers_own_is_divided() {
        type Change = fn(&mut Facts);
        let root: Change = |it| (it.is_root_user, it.is_marked_delegated) = (true, false);
        let cases: [(&str, Change, &str); 13] = [
            ("as it should be", |_| (), "memory pids"),
            (
                "no version 2",
                |it| it.own = None,
                "this system has no cgroup v2",
            ),
            ("not mounted", |it| it.mount = None, "is not mounted here"),
            (
                "not writable",
                |it| it.is_writable = false,
                "is not delegated",
            ),
            (
                "a user's without a mark",
                |it| it.is_marked_delegated = false,
                "memory pids",
            ),
            ("root without a mark", root, "is not delegated"),
            (
                "root with a mark",
                |it| it.is_root_user = true,
                "memory pids",
            ),
            (
                "root of a container",
                |it| {
                    (it.is_root_user, it.is_marked_delegated) = (true, false);
                    it.is_of_container = true;
                },
                "memory pids",
            ),
            (
                "the machine's own",
                |it| it.is_root_cgroup = true,
                "is not delegated",
            ),
            (
                "a login session",
                |it| it.others = 2,
                "has 2 other processes",
            ),
            (
                "an old kernel",
                |it| it.has_kill = false,
                "cgroup.kill needs Linux 5.14",
            ),
            ("no controllers", |it| it.controllers.clear(), ""),
            (
                "one controller",
                |it| it.controllers = vec!["pids".to_owned()],
                "pids",
            ),
        ];
        for (what, change, expected) in cases {
            let mut facts = delegated();
            change(&mut facts);
            match decide(&facts) {
                Ok(plan) => assert_eq!(plan.controllers.join(" "), expected, "{what}"),
                Err(refusal) => {
                    let text = refusal.to_string();
                    assert!(
                        text.contains(expected) && !expected.is_empty(),
                        "{what}: {text}"
                    );
                }
            }
        }
    }
}
