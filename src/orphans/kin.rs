//! Who of this broker's children lives: the account that spawning threads keep and the watch reads.
//!
//! The watch may reap only what std does not wait for. So a child is in the account from before it
//! is spawned until its exit status has been taken: a process that is this one's child, is not in
//! the account, and was seen while nothing was being spawned, has been adopted.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::process::MARKER;
use super::run_dir;

/// The account of one run.
pub(super) struct Family {
    run: String,
    dir: PathBuf,
    account: Mutex<Account>,
}

#[derive(Default)]
struct Account {
    last_number: u64,
    /// Spawns under way.
    births: usize,
    /// Numbers of the children whose processes may run.
    alive: BTreeSet<u64>,
    /// Children that are known to the operating system.
    direct: HashMap<i32, Named>,
    /// One has ended since the watch looked last.
    has_ended: bool,
}

/// A child of this run, whether it lives or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) number: u64,
    /// Of its session.
    pub(super) label: Arc<str>,
}

/// What the watch sees of the account.
pub(super) struct View {
    pub(super) alive: BTreeSet<u64>,
    pub(super) direct: HashMap<i32, Named>,
    /// Whether children could exist that are not in the account.
    pub(super) is_spawning: bool,
    pub(super) next_number: u64,
}

/// One child, from before it is spawned until it has been reaped ([`Kin::reaped`]).
pub(crate) struct Kin {
    family: Arc<Family>,
    named: Named,
    pid: Option<i32>,
    is_forgotten: AtomicBool,
}

impl Family {
    pub(super) fn new(run: String, dir: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            run,
            dir,
            account: Mutex::default(),
        })
    }

    /// A child that is about to be spawned; `label` is its session's.
    pub(super) fn kin(self: &Arc<Self>, label: &str) -> Kin {
        let label: Arc<str> = label.into();
        let mut account = self.account.lock();
        account.last_number += 1;
        let number = account.last_number;
        account.alive.insert(number);
        Kin {
            family: Arc::clone(self),
            named: Named { number, label },
            pid: None,
            is_forgotten: AtomicBool::new(false),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The child that a marker of this run names.
    pub(super) fn named_in(&self, marker: &str) -> Option<Named> {
        let rest = marker.strip_prefix(self.run.as_str())?.strip_prefix(':')?;
        let (label, number) = rest.rsplit_once('.')?;
        Some(Named {
            number: number.parse().ok()?,
            label: label.into(),
        })
    }

    pub(super) fn has_children(&self) -> bool {
        !self.account.lock().alive.is_empty()
    }

    /// Whether a child has ended since this was asked last.
    pub(super) fn take_ended(&self) -> bool {
        std::mem::take(&mut self.account.lock().has_ended)
    }

    pub(super) fn view(&self) -> View {
        let account = self.account.lock();
        View {
            alive: account.alive.clone(),
            direct: account.direct.clone(),
            is_spawning: account.births > 0,
            next_number: account.last_number + 1,
        }
    }

    /// Takes the exit status of an adopted process that has ended. The lock keeps a child from
    /// being spawned meanwhile, which could get the same number.
    pub(super) fn reap(&self, pid: i32) {
        let account = self.account.lock();
        if account.births > 0 || account.direct.contains_key(&pid) {
            return;
        }
        if let Some(pid) = Pid::from_raw(pid) {
            // ECHILD: it was reaped already.
            let _ = waitid(
                WaitId::Pid(pid),
                WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
            );
        }
    }
}

impl Kin {
    /// Its name, which no other child of this run has: `LABEL.NUMBER`.
    pub(crate) fn name(&self) -> String {
        format!("{}.{}", self.named.label, self.named.number)
    }

    /// The variable that the child gets beside its environment.
    pub(crate) fn marker(&self) -> (&'static str, String) {
        (MARKER, format!("{}:{}", self.family.run, self.name()))
    }

    /// Where the child writes itself down before it becomes another program
    /// ([`super::write_down`]).
    pub(crate) fn record_dir(&self) -> &Path {
        self.family.dir()
    }

    /// Takes back what the child wrote down of itself. To be called when its group has been killed
    /// and its exit status not been taken: until then its number is given to nobody.
    pub(crate) fn forget(&self) {
        let is_first = !self.is_forgotten.swap(true, Ordering::Relaxed);
        if let Some(pid) = self.pid.filter(|_| is_first) {
            run_dir::forget(self.family.dir(), pid);
        }
    }

    /// The exit status has been taken, or the child was never spawned.
    pub(crate) fn reaped(&self) {
        let mut account = self.family.account.lock();
        if !account.alive.remove(&self.named.number) {
            return;
        }
        if let Some(pid) = self.pid {
            account.direct.remove(&pid);
        }
        account.has_ended = true;
    }

    /// To be held around the spawn itself.
    pub(crate) fn birth(&mut self) -> Birth<'_> {
        self.family.account.lock().births += 1;
        Birth(self)
    }
}

impl Drop for Kin {
    fn drop(&mut self) {
        self.reaped();
    }
}

/// A spawn under way.
pub(crate) struct Birth<'a>(&'a mut Kin);

impl Birth<'_> {
    /// The child exists. Whoever holds its [`Kin`] takes its exit status.
    pub(crate) fn born(self, pid: Pid) {
        let pid = pid.as_raw_nonzero().get();
        self.0.pid = Some(pid);
        let mut account = self.0.family.account.lock();
        account.direct.insert(pid, self.0.named.clone());
    }
}

impl Drop for Birth<'_> {
    fn drop(&mut self) {
        self.0.family.account.lock().births -= 1;
    }
}
