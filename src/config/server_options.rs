//! What the broker may be told about one server: the `broker` object of its entry.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::json::{Entry, Fault, Node};
use super::nearest::nearest;
use super::units;

/// How the children of one server are treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerOptions {
    /// For how long a session without a child can be given a new one. `None`: it ends with its
    /// child.
    pub(crate) revive: Option<Duration>,
    /// How long the child of an ended session waits for the next one. `None`: it ends.
    pub(crate) park: Option<Duration>,
    /// What becomes of a child when its user's token is refreshed.
    pub(crate) on_refresh: OnRefresh,
    /// Which era of the protocol its children are spoken to in.
    pub(crate) era: EraChoice,
    /// Whether children are kept from what is not theirs (Landlock).
    pub(crate) isolate: bool,
    pub(crate) limits: ChildLimits,
}

/// What becomes of a child that was started with a token which is not the newest any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OnRefresh {
    /// Another one takes its place as soon as nothing is in flight.
    #[default]
    Respawn,
    /// It stays: it needs the token only at its start, or can wait for the end of its session.
    Keep,
}

/// How it is known which eras a server's program speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum EraChoice {
    /// It is found out, in a process of its own.
    #[default]
    Auto,
    /// `initialize`, up to 2025-11-25.
    Legacy,
    /// Nothing but 2026-07-28.
    Modern,
}

/// What one child may use; `None` means no limit of the broker's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChildLimits {
    /// cgroup v2 `memory.max`, in bytes: of the child and all it starts.
    pub(crate) memory_max: Option<u64>,
    /// cgroup v2 `pids.max`: the processes and threads of the child and all it starts.
    pub(crate) pids_max: Option<u64>,
    /// `RLIMIT_FSIZE`, in bytes: the largest file it may write.
    pub(crate) file_size_max: Option<u64>,
    /// `RLIMIT_NOFILE`: descriptors of one process. `None`: as many as the broker was given.
    pub(crate) open_files_max: Option<u64>,
}

/// How long `"revive": true` means.
const DEFAULT_REVIVE: Duration = Duration::from_hours(7 * 24);
const DEFAULT_PIDS_MAX: u64 = 512;

const REVIVE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(365 * 24);
const PARK: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(24);
const MEMORY_BYTES: RangeInclusive<usize> = 1 << 20..=1 << 40;
const FILE_BYTES: RangeInclusive<usize> = 0..=1 << 50;
const PIDS: RangeInclusive<usize> = 0..=1 << 22;
const OPEN_FILES: RangeInclusive<usize> = 16..=1 << 20;

const KEYS: [&str; 9] = [
    "revive",
    "park",
    "on_refresh",
    "era",
    "isolate",
    "memory_max",
    "pids_max",
    "file_size_max",
    "open_files_max",
];

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            revive: None,
            park: None,
            on_refresh: OnRefresh::Respawn,
            era: EraChoice::Auto,
            isolate: true,
            limits: ChildLimits {
                memory_max: None,
                pids_max: Some(DEFAULT_PIDS_MAX),
                file_size_max: None,
                open_files_max: None,
            },
        }
    }
}

impl ServerOptions {
    pub(super) fn read(object: &Node<'_>) -> Result<Self, Fault> {
        let mut options = Self::default();
        for entry in object.entries()? {
            options.take(&entry)?;
        }
        Ok(options)
    }

    fn take(&mut self, entry: &Entry<'_>) -> Result<(), Fault> {
        let (key, value) = (entry.key.as_str(), &entry.value);
        let fault = |why: String| value.fault(format!("{key}: {why}"));
        let time = |allowed| units::duration(&value.scalar()?, allowed).map_err(fault);
        let size = |allowed| units::size(&value.scalar()?, allowed).map_err(fault);
        let count = |allowed| units::count(&value.scalar()?, allowed).map_err(fault);
        // 0 means unlimited.
        let limit = |amount: usize| (amount > 0).then_some(amount as u64);
        match key {
            "revive" => {
                self.revive = match value.boolean() {
                    Ok(wanted) => wanted.then_some(DEFAULT_REVIVE),
                    Err(_) => Some(time(REVIVE)?),
                };
            }
            "park" => self.park = Some(time(PARK)?).filter(|time| !time.is_zero()),
            "on_refresh" => self.on_refresh = OnRefresh::parse(&value.string()?).map_err(fault)?,
            "era" => self.era = EraChoice::parse(&value.string()?).map_err(fault)?,
            "isolate" => self.isolate = value.boolean()?,
            "memory_max" => self.limits.memory_max = limit(size(MEMORY_BYTES)?),
            "pids_max" => self.limits.pids_max = limit(count(PIDS)?),
            "file_size_max" => self.limits.file_size_max = limit(size(FILE_BYTES)?),
            "open_files_max" => self.limits.open_files_max = limit(count(OPEN_FILES)?),
            _ => return Err(entry.unknown(KEYS)),
        }
        Ok(())
    }
}

impl OnRefresh {
    fn parse(text: &str) -> Result<Self, String> {
        const NAMES: [&str; 2] = ["respawn", "keep"];
        match text {
            "respawn" => Ok(Self::Respawn),
            "keep" => Ok(Self::Keep),
            _ => {
                let mut why = format!("{text:?} is neither respawn nor keep");
                if let Some(meant) = nearest(text, NAMES) {
                    why.push_str(&format!(", did you mean {meant:?}?"));
                }
                Err(why)
            }
        }
    }
}

impl EraChoice {
    const ALL: [(Self, &str); 3] = [
        (Self::Auto, "auto"),
        (Self::Legacy, "legacy"),
        (Self::Modern, "modern"),
    ];

    fn parse(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(_, name)| *name == text);
        found.map(|(era, _)| *era).ok_or_else(|| {
            let mut why = format!("{text:?} is not auto, legacy or modern");
            if let Some(meant) = nearest(text, Self::ALL.map(|(_, name)| name)) {
                why.push_str(&format!(", did you mean {meant:?}?"));
            }
            why
        })
    }
}
