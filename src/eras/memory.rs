//! What is known of each program, for as long as the broker runs and, in a file, longer. Whatever
//! is not known is found out once, however many ask at the same time.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex, MutexGuard};
use serde_json::{Value, json};

use super::NotFound;
use super::probe::POLL;
use super::program::Program;
use crate::private_file::{FileError, PrivateDir};

pub(super) const FILE: &str = "eras.json";
const LOCK: &str = "eras.lock";
/// The form of the file; another one is not read.
const VERSION: u64 = 1;
/// Programs that are known at most; the one that was learned of first is forgotten first.
const MAX_PROGRAMS: usize = 256;
/// What `npx` or `docker` runs may change without a trace in any file that is looked at.
const MAX_AGE: Duration = Duration::from_hours(7 * 24);
/// How long it is not tried again to find out what could not be, nor taken for wrong what was
/// found out after the last time that it was.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// Which eras a program speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) speaks_modern: bool,
    /// Seen to refuse `initialize`. False: not seen.
    pub(super) refuses_legacy: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    verdict: Verdict,
    learned: SystemTime,
}

#[derive(Default)]
struct State {
    known: HashMap<Program, Entry>,
    /// Of which nothing could be found out, and when.
    unknown: HashMap<Program, SystemTime>,
    /// What was known of them was wrong, and when that was seen.
    disproved: HashMap<Program, SystemTime>,
    /// What is being found out just now. Who waits for it holds a clone.
    asking: HashMap<Program, Arc<()>>,
    is_writing: bool,
    /// Something has changed since the last write began.
    is_stale: bool,
}

pub(super) struct Memory {
    /// `None`: nothing is written down.
    dir: Option<PrivateDir>,
    state: Mutex<State>,
    asked: Condvar,
}

impl Memory {
    /// Remembers what is written down in the state directory. A file that cannot be used is said to
    /// be so, and replaced when there is something to write.
    pub(super) fn open(state_dir: &Path, now: SystemTime) -> Self {
        let warn = |error: &FileError| {
            log::warn!("which eras servers speak is found out again: {error}");
        };
        let dir = PrivateDir::open(state_dir).inspect_err(warn).ok();
        let known = dir.as_ref().map(|dir| read(dir, now));
        Self {
            dir,
            state: Mutex::new(State {
                known: known.unwrap_or_default(),
                ..State::default()
            }),
            asked: Condvar::new(),
        }
    }

    pub(super) fn get(&self, program: &Program, now: SystemTime) -> Option<Verdict> {
        let state = self.state.lock();
        let entry = state.known.get(program).filter(|it| it.is_fresh(now))?;
        Some(entry.verdict)
    }

    /// Whether the program speaks modern. If that is not known, `find_out` is called, unless
    /// somebody else is at it: then what they find out is waited for. `None`, which is theirs too,
    /// and everybody's for a while: it cannot be found out.
    ///
    /// # Errors
    /// What `find_out` gives, which is nobody else's; or that nobody found it out in time, or that
    /// it `is_wanted` no more.
    pub(super) fn ask(
        &self,
        program: &Program,
        now: SystemTime,
        patience: Patience<'_>,
        find_out: impl FnOnce() -> Result<Option<bool>, NotFound>,
    ) -> Result<Option<bool>, NotFound> {
        let turn = match self.turn(program, now, patience)? {
            Ok(turn) => turn,
            Err(known) => return Ok(known.map(|it| it.speaks_modern)),
        };
        let found = find_out()?;
        match found {
            Some(speaks_modern) => {
                let verdict = Verdict {
                    speaks_modern,
                    refuses_legacy: false,
                };
                self.put(program, verdict, now);
            }
            None => {
                let mut state = self.state.lock();
                state.unknown.retain(|_, since| is_recent(*since, now));
                state.unknown.insert(program.clone(), now);
            }
        }
        drop(turn);
        if found.is_some() {
            self.save();
        }
        Ok(found)
    }

    /// The caller's turn to find out, or what is known without, perhaps after a wait.
    fn turn(
        &self,
        program: &Program,
        now: SystemTime,
        patience: Patience<'_>,
    ) -> Result<Result<Turn<'_>, Option<Verdict>>, NotFound> {
        let mut state = self.state.lock();
        loop {
            if let Some(entry) = state.known.get(program).filter(|it| it.is_fresh(now)) {
                return Ok(Err(Some(entry.verdict)));
            }
            if state
                .unknown
                .get(program)
                .is_some_and(|it| is_recent(*it, now))
            {
                return Ok(Err(None));
            }
            let Some(theirs) = state.asking.get(program).cloned() else {
                break;
            };
            let is_theirs = |state: &mut State| {
                let asking = state.asking.get(program);
                asking.is_some_and(|it| Arc::ptr_eq(it, &theirs))
            };
            if !MutexGuard::unlocked(&mut state, patience.is_wanted) {
                return Err(NotFound::Unwanted);
            }
            if Instant::now() >= patience.deadline {
                return Err(NotFound::Busy);
            }
            // If they are called off, it is the caller's turn.
            self.asked.wait_while_for(&mut state, is_theirs, POLL);
        }
        state.asking.insert(program.clone(), Arc::default());
        Ok(Ok(Turn {
            memory: self,
            program: program.clone(),
        }))
    }

    /// Takes down what was seen; [`Memory::flush`] writes it.
    pub(super) fn learn(&self, program: &Program, verdict: Verdict, now: SystemTime) {
        if self.get(program, now) != Some(verdict) {
            self.put(program, verdict, now);
        }
    }

    /// What was known has turned out to be wrong; [`Memory::flush`] writes that. Once in a while
    /// only: what is found out again may well be the same.
    pub(super) fn forget(&self, program: &Program, now: SystemTime) {
        let mut state = self.state.lock();
        state.disproved.retain(|_, since| is_recent(*since, now));
        if state.known.contains_key(program) && !state.disproved.contains_key(program) {
            state.known.remove(program);
            state.disproved.insert(program.clone(), now);
            state.is_stale = true;
        }
    }

    /// Writes down what has changed, if it was not yet.
    pub(super) fn flush(&self) {
        if self.state.lock().is_stale {
            self.save();
        }
    }

    fn put(&self, program: &Program, verdict: Verdict, now: SystemTime) {
        let mut state = self.state.lock();
        let learned = now;
        let entry = Entry { verdict, learned };
        state.is_stale = true;
        state.unknown.remove(program);
        state.known.insert(program.clone(), entry);
        while state.known.len() > MAX_PROGRAMS {
            let oldest = state.known.iter().min_by_key(|(_, entry)| entry.learned);
            let Some(oldest) = oldest.map(|(program, _)| program.clone()) else {
                break;
            };
            state.known.remove(&oldest);
        }
    }

    /// Writes everything down, or has whoever writes just now do it once more.
    fn save(&self) {
        let Some(dir) = &self.dir else {
            return;
        };
        loop {
            let text = {
                let mut state = self.state.lock();
                if state.is_writing {
                    state.is_stale = true;
                    return;
                }
                (state.is_writing, state.is_stale) = (true, false);
                write(&state.known)
            };
            // Another broker may use the same directory.
            let written = dir.lock(LOCK).and_then(|_lock| dir.replace(FILE, &text));
            if let Err(error) = written {
                log::error!("which eras servers speak is not kept: {error}");
            }
            let mut state = self.state.lock();
            state.is_writing = false;
            if !state.is_stale {
                return;
            }
        }
    }
}

/// How long somebody waits for what others find out.
#[derive(Clone, Copy)]
pub(super) struct Patience<'a> {
    pub(super) deadline: Instant,
    pub(super) is_wanted: &'a dyn Fn() -> bool,
}

/// Somebody's turn to find out; over also if they panic.
struct Turn<'a> {
    memory: &'a Memory,
    program: Program,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.memory.state.lock().asking.remove(&self.program);
        self.memory.asked.notify_all();
    }
}

impl Entry {
    /// Somebody else may have looked at the clock a little later. What was learned much later comes
    /// from a clock that was wrong, and who knows for how long.
    fn is_fresh(&self, now: SystemTime) -> bool {
        let age = now.duration_since(self.learned);
        age.unwrap_or_else(|future| future.duration()) <= MAX_AGE
    }
}

/// Whatever the clock was set to meanwhile.
fn is_recent(since: SystemTime, now: SystemTime) -> bool {
    let age = now.duration_since(since);
    age.unwrap_or_else(|future| future.duration()) < RETRY_INTERVAL
}

fn read(dir: &PrivateDir, now: SystemTime) -> HashMap<Program, Entry> {
    let damaged = || {
        let path = dir.path(FILE);
        log::warn!("{} is damaged and will be replaced", path.display());
        HashMap::new()
    };
    match dir.read(FILE) {
        Ok(None) => HashMap::new(),
        Ok(Some((text, _))) => parse(&text).map_or_else(damaged, |mut known| {
            known.retain(|_, entry| entry.is_fresh(now));
            known
        }),
        // Not even text.
        Err(FileError::Io { source, .. }) if source.kind() == std::io::ErrorKind::InvalidData => {
            damaged()
        }
        Err(error) => {
            log::warn!("which eras servers speak is found out again: {error}");
            HashMap::new()
        }
    }
}

fn parse(text: &str) -> Option<HashMap<Program, Entry>> {
    let document: Value = serde_json::from_str(text).ok()?;
    if document["version"] != VERSION {
        return None;
    }
    let programs = document["programs"].as_array()?;
    let entry = |it: &Value| {
        let seconds = Duration::from_secs(it["learned"].as_u64()?);
        let entry = Entry {
            verdict: Verdict {
                speaks_modern: it["speaks_modern"].as_bool()?,
                refuses_legacy: it["refuses_legacy"].as_bool()?,
            },
            learned: UNIX_EPOCH.checked_add(seconds)?,
        };
        Some((Program::parse(it["program"].as_str()?)?, entry))
    };
    programs.iter().take(MAX_PROGRAMS).map(entry).collect()
}

fn write(known: &HashMap<Program, Entry>) -> String {
    let mut known: Vec<_> = known.iter().collect();
    known.sort_by_key(|(program, entry)| (entry.learned, program.as_str()));
    let program = |(program, entry): &(&Program, &Entry)| {
        let learned = entry.learned.duration_since(UNIX_EPOCH);
        json!({
            "program": program.as_str(),
            "speaks_modern": entry.verdict.speaks_modern,
            "refuses_legacy": entry.verdict.refuses_legacy,
            "learned": learned.unwrap_or_default().as_secs(),
        })
    };
    let programs: Vec<Value> = known.iter().map(program).collect();
    json!({ "version": VERSION, "programs": programs }).to_string()
}

#[cfg(test)]
mod tests;
