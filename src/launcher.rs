//! `mcp-broker launch OPTIONS -- PROGRAM ARG...`: what a child's process does before it becomes the
//! child. Hidden: only the broker says it, to itself.
//!
//! Everything that must be done in the child's own process, between `fork` and `exec`, is done
//! here, in a program of one thread and by safe code; the broker itself keeps `posix_spawn`. Its
//! environment and its three pipes are the child's already, so options carry no secret: a command
//! line can be read by everybody. It refuses to know why it is told to do what: that is decided by
//! `isolation`, before any child is started. What cannot be done ends the child (fails closed);
//! nothing is skipped in silence.
//!
//! [`orders`] is the command line, both ways · [`confine`] is Landlock.

pub(crate) mod confine;
mod orders;

use std::ffi::OsString;
use std::fmt::Display;
use std::fs;
use std::io::{self, Write};
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{
    Pid, Resource, Rlimit, Signal, getppid, set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::orphans;
use confine::Domain;
pub(crate) use orders::{COMMAND, Ids, Orders};

/// The program is not there (as `sh` says it).
const NOT_FOUND: u8 = 127;
/// It is there and cannot be started, or a protection cannot be applied.
const CANNOT_START: u8 = 126;

/// Does what `args`, those after [`COMMAND`], say, and becomes the program. Comes back only if that
/// fails; why stands on stderr then, in one line.
pub(crate) fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let (orders, command) = match Orders::parse(args) {
        Ok(parsed) => parsed,
        Err(why) => return fail(CANNOT_START, &format!("launch: {why}")),
    };
    let Some((program, args)) = command.split_first() else {
        return fail(CANNOT_START, "launch: no program");
    };
    let cannot = format!("cannot start {}", program.display());
    if let Err(why) = apply(&orders) {
        return fail(CANNOT_START, &format!("{cannot}: {why}"));
    }
    let error = Command::new(program).args(args).exec();
    let code = match error.kind() {
        io::ErrorKind::NotFound => NOT_FOUND,
        _ => CANNOT_START,
    };
    fail(code, &format!("{cannot}: {error}"))
}

fn fail(code: u8, message: &str) -> ExitCode {
    // The broker reads it; there is nobody else to be told.
    let _ = writeln!(io::stderr(), "{message}");
    ExitCode::from(code)
}

/// Closes all descriptors but the three pipes: std opens its own for this process alone, but what
/// whoever started the broker left open, a listening socket of systemd's for one, would be
/// inherited. `nix`, which ctrlc brings, has a `close` that takes a number; `rustix` has none.
fn close_inherited() -> io::Result<()> {
    let entries = fs::read_dir("/proc/self/fd")?;
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let open: Vec<RawFd> = numbers.collect();
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        // EBADF: the one that listed the others.
        let _ = nix::unistd::close(fd);
    }
    Ok(())
}

/// The order matters: what needs the broker's rights comes before the change of uid, and the
/// death signal after it, because that change clears it.
fn apply(orders: &Orders) -> Result<(), String> {
    // A session of its own has a process group of its own, and no terminal: whoever shares the
    // operator's can type into it (TIOCSTI).
    rustix::process::setsid().map_err(cannot("leave the terminal"))?;
    close_inherited().map_err(|error| format!("cannot close descriptors: {error}"))?;
    if let Some(directory) = &orders.record {
        orphans::write_down(directory).map_err(|error| format!("cannot record it: {error}"))?;
    }
    if let Some(directory) = &orders.cgroup {
        // "0" is whoever writes it (cgroups(7)).
        fs::write(directory.join("cgroup.procs"), "0")
            .map_err(|error| format!("cannot join {}: {error}", directory.display()))?;
    }
    limit(orders)?;
    let domain = orders.confine.as_ref().map(Domain::new).transpose()?;
    if let Some(ids) = orders.ids {
        become_user(ids)?;
    }
    if let Some(directory) = &orders.cwd {
        rustix::process::chdir(directory)
            .map_err(|error| format!("cannot work in {}: {}", directory.display(), os(error)))?;
    }
    set_no_new_privs(true).map_err(cannot("set no_new_privs"))?;
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(cannot("set its death signal"))?;
    // Whoever ended before that line has sent no signal.
    if getppid().map(Pid::as_raw_pid) != Some(orders.parent) {
        return Err("the broker has ended".to_owned());
    }
    domain.map_or(Ok(()), Domain::enter)
}

fn limit(orders: &Orders) -> Result<(), String> {
    let both = |value| Rlimit {
        current: Some(value),
        maximum: Some(value),
    };
    // A core file would hold the child's secrets.
    setrlimit(Resource::Core, both(0)).map_err(cannot("forbid core files"))?;
    if let Some(limit) = orders.open_files {
        setrlimit(Resource::Nofile, limit).map_err(cannot("limit its open files"))?;
    }
    if let Some(bytes) = orders.file_size {
        setrlimit(Resource::Fsize, both(bytes)).map_err(cannot("limit its files' size"))?;
    }
    Ok(())
}

/// The calls are per thread, and this program has one.
fn become_user(ids: Ids) -> Result<(), String> {
    let (uid, gid) = (
        rustix::process::Uid::from_raw(ids.uid),
        rustix::process::Gid::from_raw(ids.gid),
    );
    set_thread_groups(&[]).map_err(cannot("leave the broker's groups"))?;
    set_thread_res_gid(gid, gid, gid).map_err(cannot("set its gid"))?;
    set_thread_res_uid(uid, uid, uid).map_err(cannot("set its uid"))
}

fn cannot(what: &str) -> impl Fn(rustix::io::Errno) -> String {
    move |error| format!("cannot {what}: {}", os(error))
}

/// As std writes it: with the number.
fn os(error: rustix::io::Errno) -> impl Display {
    io::Error::from(error)
}
