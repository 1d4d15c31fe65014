//! From what is configured and what the machine has to what will be in force. Pure.

use std::ops::RangeInclusive;

use super::facts::Facts;
use crate::config::RunAs;
use crate::launcher::Ids;

/// For the children of a root that was not told otherwise: the uids that systemd gives to services
/// whose user exists only while they run. No person and no package has one of them.
const DEFAULT_UIDS: RangeInclusive<u32> = 61184..=65519;

/// Landlock's versions, and what each has brought that is of use here.
const FEATURES: [(i32, &str); 5] = [
    (1, "files, ptrace"),
    (2, "links and renames"),
    (3, "truncation"),
    (6, "signals, abstract sockets"),
    (9, "named sockets"),
];

/// Whose rights children have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// The broker's.
    Own,
    /// One for all children.
    One(Ids),
    /// A uid for each principal, with the gid of the same number.
    Each(RangeInclusive<u32>),
}

/// What will be in force.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) identity: Identity,
    /// The version that is used; `None`: not used.
    pub(super) landlock: Option<i32>,
    pub(super) lines: Vec<Line>,
}

/// What the operator is told about one protection.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) is_on: bool,
    pub(super) text: String,
}

impl Line {
    fn on(text: impl Into<String>) -> Self {
        Self {
            is_on: true,
            text: text.into(),
        }
    }

    fn off(text: impl Into<String>) -> Self {
        Self {
            is_on: false,
            text: text.into(),
        }
    }
}

impl Decision {
    /// One line for each protection; a warning where there is none.
    pub(super) fn log(&self) {
        for Line { is_on, text } in &self.lines {
            match is_on {
                true => log::info!("protection {text}"),
                false => log::warn!("protection {text}"),
            }
        }
    }
}

/// `open` are the servers whose `isolate` is false.
///
/// # Errors
/// One line that says what cannot be done, and what can.
pub(super) fn decide(
    run_as: Option<&RunAs>,
    open: &[&str],
    facts: &Facts,
) -> Result<Decision, String> {
    let identity = identity(run_as, facts)?;
    let mut lines = vec![
        Line::on("parent-death=on (children end with the broker, however it ends)"),
        Line::on("no-new-privs=on (no child gains rights by a set-uid program)"),
        Line::on("core-files=off (no child leaves its memory in a file)"),
    ];
    lines.push(uid_line(&identity, facts));
    lines.push(landlock_line(&identity, facts));
    let is_root = identity == Identity::Own && facts.uid == 0;
    if facts.landlock.is_some() && !is_root {
        let each = matches!(identity, Identity::Each(_));
        lines.extend(open.iter().map(|name| open_line(name, each)));
    }
    Ok(Decision {
        identity,
        landlock: facts.landlock,
        lines,
    })
}

fn identity(run_as: Option<&RunAs>, facts: &Facts) -> Result<Identity, String> {
    let is_root = facts.uid == 0;
    let missing = facts.missing_capabilities().join(", ");
    let run_as = match run_as {
        None if !is_root => return Ok(Identity::Own),
        None if missing.is_empty() => return Ok(Identity::Each(DEFAULT_UIDS)),
        None => {
            return Err(format!(
                "the broker runs as root without {missing}, so it cannot start servers as \
                 anybody else: start it as another user, or with --run-as root"
            ));
        }
        Some(run_as) => run_as,
    };
    if !is_root {
        return Err(format!(
            "run_as is {run_as}, but the broker is not root: start it as root, or without run_as"
        ));
    }
    if *run_as == RunAs::Root {
        return Ok(Identity::Own);
    }
    if !missing.is_empty() {
        return Err(format!(
            "run_as is {run_as}, but the broker runs without {missing}"
        ));
    }
    match run_as {
        RunAs::Uids(uids) => Ok(Identity::Each(uids.clone())),
        RunAs::Ids { uid, gid } => Ok(Identity::One(Ids {
            uid: *uid,
            gid: *gid,
        })),
        RunAs::User(name) => match facts.user(name) {
            Some(Ids { uid: 0, .. }) => Err(format!(
                "run_as is {name}, who is root by another name: write root if that is meant"
            )),
            Some(ids) => Ok(Identity::One(ids)),
            None => Err(format!(
                "run_as is {name}, whom /etc/passwd does not have: write UID:GID for a user from \
                 elsewhere"
            )),
        },
        RunAs::Root => Ok(Identity::Own),
    }
}

fn uid_line(identity: &Identity, facts: &Facts) -> Line {
    match identity {
        Identity::Own if facts.uid == 0 => Line::off(
            "uid=off: every server runs as root, which nothing holds back from what other users' \
             servers hold: leave run_as out, or name users",
        ),
        Identity::Own => Line::on(format!("uid={} (the broker's, for all servers)", facts.uid)),
        Identity::One(Ids { uid, gid }) => {
            Line::on(format!("uid={uid} gid={gid} (for all servers)"))
        }
        Identity::Each(uids) => Line::on(format!(
            "uid={}-{} (one for each user)",
            uids.start(),
            uids.end()
        )),
    }
}

fn landlock_line(identity: &Identity, facts: &Facts) -> Line {
    let Some(abi) = facts.landlock else {
        let what = "landlock=off: this kernel has none (Linux 5.13 and newer, with landlock in \
                    /sys/kernel/security/lsm)";
        return match identity {
            // The uid does the same for processes and homes.
            Identity::Each(_) => Line::off(what),
            Identity::Own | Identity::One(_) => Line::off(format!(
                "{what}; ONE USER'S SERVER CAN READ THE SECRETS OF ANOTHER'S: start the broker as \
                 root with a range of uids as run_as, or one broker for each user"
            )),
        };
    };
    let features = FEATURES.iter().filter(|(since, _)| *since <= abi);
    let features: Vec<&str> = features.map(|(_, what)| *what).collect();
    let features = features.join(", ");
    match identity {
        Identity::Own if facts.uid == 0 => Line::off(format!(
            "landlock=partly abi={abi} ({features}): it does not keep root from reading the \
             environment, and so the secrets, of other users' servers"
        )),
        _ => Line::on(format!("landlock=on abi={abi} ({features})")),
    }
}

fn open_line(server: &str, each: bool) -> Line {
    let what = format!("landlock=off server={server}: its \"isolate\" is false");
    match each {
        true => Line::off(what),
        false => Line::off(format!(
            "{what}, so it can read the secrets of other users' servers"
        )),
    }
}
