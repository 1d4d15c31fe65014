//! At the start: ends what a killed broker has left. A process belongs to a dead run if it bears
//! the run's marker; if it is the very process that was written down; if it is in a group which
//! such a one was written down to lead; or if it descends from one of these.
//!
//! Never a stranger: a pid counts only together with its start time, and a group only as long as
//! somebody who is known for certain is in it, for until then its number is given to nobody.

use std::collections::{HashMap, HashSet};
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::process::{self, Id, Table, line_of};
use super::run_dir::{Record, RunDir};

/// How long processes may take to die.
const TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(10);

/// A run whose broker is dead.
pub(super) struct DeadRun {
    pub(super) id: String,
    pub(super) records: Vec<Record>,
}

/// Ends the processes of these runs, and removes the directories once none is left.
///
/// # Errors
/// The OS error if `/proc` cannot be read.
pub(super) fn sweep(left: &[RunDir]) -> io::Result<()> {
    if left.is_empty() {
        return Ok(());
    }
    let runs: Vec<DeadRun> = left
        .iter()
        .map(|dir| DeadRun {
            id: dir.id.clone(),
            records: dir.records(),
        })
        .collect();
    let deadline = Instant::now() + TIMEOUT;
    let mut told = HashSet::new();
    loop {
        let found = kill_all(&runs, &mut told)?;
        if found == 0 {
            break;
        }
        if Instant::now() > deadline {
            log::error!("{found} processes of a former run do not die; the next start tries again");
            return Ok(());
        }
        thread::sleep(PAUSE);
    }
    left.iter().for_each(RunDir::remove);
    Ok(())
}

/// How many there were.
fn kill_all(runs: &[DeadRun], told: &mut HashSet<Id>) -> io::Result<usize> {
    let table = process::all()?;
    let markers = table
        .values()
        .filter_map(|process| Some((process.id.pid, process.marker()?)))
        .collect();
    let ours = members(runs, &table, &markers);
    let mut found = 0;
    for process in table.values() {
        let Some(label) = ours.get(&process.id.pid).filter(|_| !process.is_zombie) else {
            continue;
        };
        found += 1;
        let killed = process.kill();
        if told.insert(process.id) {
            match killed {
                Ok(_) => log::warn!("orphan killed pid={} of session={label}", process.id.pid),
                Err(error) => log::error!(
                    "orphan pid={} of session={label} cannot be killed: {error}",
                    process.id.pid
                ),
            }
        }
    }
    Ok(found)
}

/// Which pids of the table belong to which session of these runs.
fn members(
    runs: &[DeadRun],
    table: &Table,
    markers: &HashMap<i32, String>,
) -> HashMap<i32, String> {
    let mut known: HashMap<i32, String> = HashMap::new();
    for (pid, marker) in markers {
        let run = runs.iter().find_map(|run| marker.strip_prefix(&run.id));
        if let Some(rest) = run.and_then(|rest| rest.strip_prefix(':')) {
            known.insert(*pid, super::label_of(rest).to_owned());
        }
    }
    // What the records say is true of those who are still there.
    let mut groups = HashMap::new();
    for record in runs.iter().flat_map(|run| &run.records) {
        let is_there = table
            .get(&record.id.pid)
            .is_some_and(|it| it.id == record.id);
        if is_there {
            known.insert(record.id.pid, record.label.clone());
        }
        let is_held = |pid: &i32| table.get(pid).is_some_and(|it| it.group == record.id.pid);
        if is_there || known.keys().any(is_held) {
            groups.insert(record.id.pid, record);
        }
    }
    for process in table.values() {
        if let Some(record) = groups.get(&process.group)
            && process.id.start >= record.id.start
        {
            known
                .entry(process.id.pid)
                .or_insert_with(|| record.label.clone());
        }
    }
    let descends = |process: &process::Process| {
        line_of(table, process).find_map(|it| known.get(&it.id.pid).cloned())
    };
    let found = table
        .values()
        .filter_map(|process| Some((process.id.pid, descends(process)?)));
    let mut all: HashMap<i32, String> = found.collect();
    // A broker that was started by one of its former children spares itself, and those above it.
    if let Some(own) = table.get(&std::process::id().cast_signed()) {
        for process in line_of(table, own) {
            all.remove(&process.id.pid);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::process::Process;
    use super::*;

    const RUN: &str = "0123456789abcdef0123456789abcdef";

    /// (pid, parent, group, start)
    type Line = (i32, i32, i32, u64);

    fn found(lines: &[Line], markers: &[(i32, &str)], records: &[(i32, u64)]) -> Vec<i32> {
        let process = |(pid, parent, group, start): &Line| Process {
            id: Id {
                pid: *pid,
                start: *start,
            },
            parent: *parent,
            group: *group,
            is_zombie: false,
        };
        let table = lines.iter().map(|line| (line.0, process(line))).collect();
        let markers = markers.iter().map(|(pid, it)| (*pid, (*it).to_owned()));
        let records = records.iter().map(|(pid, start)| Record {
            id: Id {
                pid: *pid,
                start: *start,
            },
            label: "s".to_owned(),
        });
        let run = DeadRun {
            id: RUN.to_owned(),
            records: records.collect(),
        };
        let found = members(&[run], &table, &markers.collect());
        let mut pids: Vec<i32> = found.into_keys().collect();
        pids.sort_unstable();
        pids
    }

    const INIT: Line = (1, 0, 1, 0);
    const OURS: &str = "0123456789abcdef0123456789abcdef:3fa9c1d2.7";

    #[track_caller]
    fn check(lines: &[Line], markers: &[(i32, &str)], records: &[(i32, u64)], expected: &[i32]) {
        let lines = [&[INIT], lines].concat();
        assert_eq!(found(&lines, markers, records), expected);
    }

    #[test]
    fn one_that_was_written_down_is_known_by_its_start() {
        let record = &[(5, 10)];
        check(&[], &[], record, &[]);
        check(&[(5, 1, 5, 10)], &[], record, &[5]);
        check(&[(5, 1, 5, 11)], &[], record, &[]);
        check(&[], &[], &[(1, 5)], &[]);
    }

    #[test]
    fn a_group_is_ours_while_one_of_ours_is_in_it() {
        let record = &[(5, 10)];
        let with_leader = [(5, 1, 5, 10), (6, 1, 5, 12)];
        check(&with_leader, &[], record, &[5, 6]);
        let leader_reused = [(5, 1, 5, 11), (6, 1, 5, 12)];
        check(&leader_reused, &[], record, &[]);
        check(&[(6, 1, 5, 12)], &[], record, &[]);
        let held = [(6, 1, 5, 12), (7, 1, 5, 13)];
        check(&held, &[(7, OURS)], record, &[6, 7]);
        // No child of ours was known to lead this one.
        check(&held, &[(7, OURS)], &[], &[7]);
        let older = [(5, 1, 5, 10), (6, 1, 5, 9)];
        check(&older, &[], record, &[5]);
    }

    #[test]
    fn a_marker_is_that_of_a_dead_run() {
        let lines = [(7, 1, 7, 13)];
        check(&lines, &[(7, OURS)], &[], &[7]);
        check(&lines, &[(7, RUN)], &[], &[]);
        let other = "ffffffffffffffffffffffffffffffff:3fa9c1d2.7";
        check(&lines, &[(7, other)], &[], &[]);
    }

    #[test]
    fn what_descends_from_ours_is_ours() {
        let lines = [(7, 1, 7, 13), (8, 7, 8, 14), (9, 8, 9, 15)];
        check(&lines, &[(7, OURS)], &[], &[7, 8, 9]);
        // No child is older than its parent: 7 is another's number by now.
        check(&[(7, 1, 7, 13), (8, 7, 8, 12)], &[(7, OURS)], &[], &[7]);
    }

    #[test]
    fn a_broker_spares_itself_and_those_above_it() {
        let own = std::process::id().cast_signed();
        let lines = [
            (1, 0, 1, 0),
            (7, 1, 7, 13),
            (own, 7, 7, 14),
            (own + 1, 7, 7, 15),
        ];
        let marker = format!("{RUN}:3fa9c1d2.7");
        assert_eq!(found(&lines, &[(7, &marker)], &[]), [own + 1]);
    }
}
