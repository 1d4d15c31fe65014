//! While the broker lives: it is the subreaper of its descendants, so what leaves its process group
//! and loses its parent becomes the broker's child. The watch knows which child each descendant
//! comes from, ends those whose child has ended, and reaps.
//!
//! A look goes through all of `/proc`, so it is taken when a child has ended or something waits to
//! be reaped, and otherwise at long intervals; never for more than a small part of a processor.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::time::{ClockId, clock_gettime};

use super::kin::{Family, Named, View};
use super::process::{self, Id, Process, Table, line_of};
use super::run_dir;

/// Between looks without a cause: what clears its environment and leaves within this time, and
/// then loses its parent, cannot be told from another session's.
const INTERVAL: Duration = Duration::from_secs(5);
/// Between questions whether anything waits to be reaped. The kernel answers them by going through
/// all threads of the broker.
const ZOMBIE_INTERVAL: Duration = Duration::from_secs(1);
/// A look without a cause may cost a 500th of a processor, one with a cause a 20th.
const IDLE_SHARE: u32 = 500;
const BUSY_SHARE: u32 = 20;
/// However much it costs, orphans do not live longer.
const BUSY_INTERVAL_MAX: Duration = Duration::from_secs(2);

/// The descendants of the broker that are not its own children.
pub(super) struct Watch {
    family: Arc<Family>,
    own_pid: i32,
    /// Whether all children that were not spawned here descend from those that were. Not so for
    /// pid 1, which gets the orphans of others too, and not if there were children before.
    is_sole_parent: bool,
    known: HashMap<Id, Known>,
    told: HashSet<Id>,
    last_look: Option<Look>,
    last_question: Option<Instant>,
    /// The last look has left something to be done.
    is_unsettled: bool,
}

#[derive(Clone, Copy)]
struct Look {
    ended: Instant,
    /// Time of a processor.
    cost: Duration,
}

/// What is known of a descendant.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    origin: Origin,
    is_written_down: bool,
}

/// Which child a process comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    Child(Named),
    /// From one of a number below this.
    OneBefore(u64),
    /// Not known to be from any.
    Foreign,
}

impl Watch {
    /// # Errors
    /// The OS error if `/proc` cannot be read.
    pub(super) fn new(family: Arc<Family>) -> io::Result<Self> {
        let own_pid = std::process::id().cast_signed();
        let has_children = process::all()?.values().any(|it| it.parent == own_pid);
        Ok(Self {
            family,
            own_pid,
            is_sole_parent: own_pid != 1 && !has_children,
            known: HashMap::new(),
            told: HashSet::new(),
            last_look: None,
            last_question: None,
            is_unsettled: false,
        })
    }

    /// Looks if there may be something to do.
    pub(super) fn tick(&mut self, now: Instant) {
        let is_time = |last| now.saturating_duration_since(last) >= ZOMBIE_INTERVAL;
        if self.last_question.is_none_or(is_time) {
            self.last_question = Some(now);
            self.is_unsettled |= has_zombie();
        }
        self.is_unsettled |= self.family.take_ended();
        if !self.is_due(now) {
            return;
        }
        if let Err(error) = self.look() {
            log::error!("cannot look for orphans: {error}");
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        let Some(Look { ended, cost }) = self.last_look else {
            return self.is_unsettled || self.family.has_children();
        };
        let since = now.saturating_duration_since(ended);
        if self.is_unsettled {
            return since >= BUSY_INTERVAL_MAX.min(cost * BUSY_SHARE);
        }
        since >= INTERVAL.max(cost * IDLE_SHARE)
            && (self.family.has_children() || !self.known.is_empty())
    }

    /// Kills and reaps what is to be. True if nothing of that kind is left.
    ///
    /// # Errors
    /// The OS error if `/proc` cannot be read.
    pub(super) fn look(&mut self) -> io::Result<bool> {
        let begun = cpu_time();
        let table = process::all()?;
        // After the table: all children that it holds are in the account by now, or are being
        // spawned.
        let view = self.family.view();
        self.known = self.descendants(&table, &view);
        self.told.retain(|id| self.known.contains_key(id));
        let mut is_settled = !view.is_spawning;
        for (id, known) in &self.known {
            let Some(process) = table.get(&id.pid) else {
                continue;
            };
            if process.is_zombie {
                if process.parent == self.own_pid {
                    self.family.reap(id.pid);
                }
            } else if is_orphan(&known.origin, &view) {
                is_settled = false;
                kill(process, &known.origin, &mut self.told);
            }
        }
        self.is_unsettled = !is_settled;
        self.last_look = Some(Look {
            ended: Instant::now(),
            cost: cpu_time().saturating_sub(begun),
        });
        Ok(is_settled)
    }

    /// All processes below this one, except the children in the account.
    fn descendants(&self, table: &Table, view: &View) -> HashMap<Id, Known> {
        let mut found = HashMap::new();
        for process in table.values() {
            let is_direct = |it: &Process| it.parent == self.own_pid;
            let in_account = view.direct.contains_key(&process.id.pid) && is_direct(process);
            if in_account || !line_of(table, process).any(|it| is_direct(&it)) {
                continue;
            }
            if is_direct(process) && view.is_spawning && !self.known.contains_key(&process.id) {
                continue; // perhaps the one that is being spawned
            }
            let known = self.known.get(&process.id).cloned();
            let known = known.unwrap_or_else(|| self.identify(table, view, process));
            found.insert(process.id, known);
        }
        for (id, known) in &self.known {
            if known.is_written_down && !found.contains_key(id) {
                run_dir::forget(self.family.dir(), id.pid);
            }
        }
        found
    }

    /// Finds out where a process comes from that was not seen before, and writes it down if the
    /// next broker could not tell.
    fn identify(&self, table: &Table, view: &View, process: &Process) -> Known {
        let marker = process.marker();
        let marked = marker.and_then(|marker| self.family.named_in(&marker));
        let is_marked = marked.is_some();
        let inherited = || {
            line_of(table, process).find_map(|it| {
                let child = view.direct.get(&it.id.pid).cloned().map(Origin::Child);
                child.or_else(|| Some(self.known.get(&it.id)?.origin.clone()))
            })
        };
        let unknown = match self.is_sole_parent {
            true => Origin::OneBefore(view.next_number),
            false => Origin::Foreign,
        };
        let origin = marked.map(Origin::Child).or_else(inherited);
        let origin = origin.unwrap_or(unknown);
        let is_written_down = match &origin {
            Origin::Child(child) if !is_marked && !process.is_zombie => {
                run_dir::write(self.family.dir(), process.id, &child.label).is_ok()
            }
            _ => false,
        };
        Known {
            origin,
            is_written_down,
        }
    }
}

fn is_orphan(origin: &Origin, view: &View) -> bool {
    match origin {
        Origin::Child(child) => !view.alive.contains(&child.number),
        Origin::OneBefore(number) => view.alive.first().is_none_or(|first| first >= number),
        Origin::Foreign => false,
    }
}

fn kill(process: &Process, origin: &Origin, told: &mut HashSet<Id>) {
    let killed = process.kill();
    if !told.insert(process.id) {
        return;
    }
    let (pid, label) = match origin {
        Origin::Child(child) => (process.id.pid, &*child.label),
        Origin::OneBefore(_) | Origin::Foreign => (process.id.pid, "?"),
    };
    match killed {
        Ok(true) => log::info!("orphan killed pid={pid} of session={label}"),
        Ok(false) => {}
        Err(error) => log::error!("orphan pid={pid} of session={label} cannot be killed: {error}"),
    }
}

/// What this thread has used.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Whether any child, adopted or not, waits to be reaped.
fn has_zombie() -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    matches!(waitid(WaitId::All, options), Ok(Some(_)))
}
