//! What is known of each program, for as long as the broker runs and, in a file, longer. Whatever
//! is not known is found out once, however many ask at the same time.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex};
use serde_json::{Value, json};

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
    /// What is being found out just now. Who waits for it holds a clone.
    asking: HashMap<Program, Arc<()>>,
    is_writing: bool,
    /// Something has changed since the write under way began.
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
    /// somebody else is at it: then what they find out is waited for. `None`, which is theirs too:
    /// it cannot be found out now.
    pub(super) fn ask(
        &self,
        program: &Program,
        now: SystemTime,
        find_out: impl FnOnce() -> Option<bool>,
    ) -> Option<bool> {
        let turn = match self.turn(program, now) {
            Ok(turn) => turn,
            Err(known) => return known.map(|it| it.speaks_modern),
        };
        let found = find_out();
        if let Some(speaks_modern) = found {
            let verdict = Verdict {
                speaks_modern,
                refuses_legacy: false,
            };
            self.put(program, verdict, now);
        }
        drop(turn);
        if found.is_some() {
            self.save();
        }
        found
    }

    /// The caller's turn to find out, or what is known without, perhaps after a wait.
    fn turn(&self, program: &Program, now: SystemTime) -> Result<Turn<'_>, Option<Verdict>> {
        let mut state = self.state.lock();
        if let Some(entry) = state.known.get(program).filter(|it| it.is_fresh(now)) {
            return Err(Some(entry.verdict));
        }
        if let Some(theirs) = state.asking.get(program).cloned() {
            let is_theirs = |state: &mut State| {
                let asking = state.asking.get(program);
                asking.is_some_and(|it| Arc::ptr_eq(it, &theirs))
            };
            self.asked.wait_while(&mut state, is_theirs);
            return Err(state.known.get(program).map(|it| it.verdict));
        }
        // Whoever waits would take it for what was found out.
        state.known.remove(program);
        state.asking.insert(program.clone(), Arc::default());
        Ok(Turn {
            memory: self,
            program: program.clone(),
        })
    }

    /// Takes down what was seen.
    pub(super) fn learn(&self, program: &Program, verdict: Verdict, now: SystemTime) {
        if self.get(program, now) != Some(verdict) {
            self.put(program, verdict, now);
            self.save();
        }
    }

    /// What was known has turned out to be wrong.
    pub(super) fn forget(&self, program: &Program) {
        let was_known = self.state.lock().known.remove(program).is_some();
        if was_known {
            self.save();
        }
    }

    fn put(&self, program: &Program, verdict: Verdict, now: SystemTime) {
        let mut state = self.state.lock();
        let learned = now;
        let entry = Entry { verdict, learned };
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
