//! Which process groups run now, for whoever wants to know what they take.

use std::collections::HashSet;

use parking_lot::Mutex;
use rustix::process::Pid;

/// Leaders of the groups, in the order of their start.
static LEADERS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

pub(super) fn add(leader: Pid) {
    LEADERS.lock().push(leader);
}

/// To be called before the leader is reaped: then its id may soon be another's.
pub(super) fn remove(leader: Pid) {
    LEADERS.lock().retain(|other| *other != leader);
}

/// The ids of all groups that were started and whose leader runs.
pub(crate) fn groups() -> HashSet<u32> {
    let leaders = LEADERS.lock();
    leaders
        .iter()
        .map(|leader| leader.as_raw_nonzero().get().unsigned_abs())
        .collect()
}
