//! Everything that is about processes and not about messages: ending, pids, grandchildren, noise on
//! stderr, and what a process can get at. Linux only.

use std::env;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::os::unix::process::{CommandExt, parent_id};
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, getpid, kill_process, test_kill_process};
use serde_json::{Value, json};

/// Ends the process at once.
#[expect(
    clippy::exit,
    reason = "a test program: leaving without unwinding is what it is for"
)]
pub(crate) fn quit(code: i32) -> ! {
    std::process::exit(code)
}

/// Ends the process by a signal that it cannot handle.
pub(crate) fn kill_itself() -> ! {
    let _ = kill_process(getpid(), Signal::KILL);
    quit(9) // never reached: the signal is there when the call returns
}

/// Starts this program over from a shell that ignores SIGTERM: an ignored signal stays ignored
/// across `exec`. The second start is told so by `--term-ignored`, so that there is no third.
pub(crate) fn start_over_without_term() -> ! {
    let myself = env::current_exe().unwrap_or_default();
    let error = Command::new("/bin/sh")
        .args(["-c", r#"trap "" TERM; exec "$0" "$@" --term-ignored"#])
        .arg(myself)
        .args(env::args_os().skip(1))
        .exec();
    let _ = writeln!(io::stderr(), "fake_mcp: /bin/sh: {error}");
    quit(2);
}

/// Two lines on stderr, the second with a secret, as a server writes that cannot start.
pub(crate) fn complain() {
    let secret = env::var("SECRET_IN_STDERR").unwrap_or_default();
    let _ = writeln!(io::stderr(), "fake_mcp: cannot start");
    let _ = writeln!(io::stderr(), "fake_mcp: token {secret} was refused");
}

/// Writes to stderr from a thread, for ever: 100 KB every 10 ms, or less where nobody reads.
pub(crate) fn flood_stderr() {
    let block = "a line of noise of sixty-five bytes, newline and all, for a pipe\n".repeat(1600);
    let flood = move || {
        while io::stderr().write_all(block.as_bytes()).is_ok() {
            thread::sleep(Duration::from_millis(10));
        }
    };
    let _ = thread::Builder::new().name("flood".into()).spawn(flood);
}

/// How a process is to be started that is not told to end.
#[derive(Clone, Copy, Default)]
pub(crate) struct Escape {
    pub(crate) ignore_term: bool,
    /// It leaves this process group and session.
    pub(crate) setsid: bool,
    /// Nothing in its environment says where it comes from.
    pub(crate) clear_env: bool,
    /// Its parent ends at once.
    pub(crate) orphan: bool,
}

/// Starts a process that sleeps for 1,000 s; returns its pid. It inherits stdin, stdout and stderr
/// unless it is an orphan.
#[expect(
    clippy::disallowed_methods,
    reason = "a test program, not under the supervisor's rule"
)]
pub(crate) fn grandchild(how: Escape) -> io::Result<u32> {
    let mut line = String::from(if how.setsid { "exec setsid " } else { "exec " });
    line += match how.ignore_term {
        true => r#"/bin/sh -c 'trap "" TERM; exec sleep 1000'"#,
        false => "sleep 1000",
    };
    if how.orphan {
        line = format!("{line} </dev/null >/dev/null 2>&1 & echo $!");
    }
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &line]);
    if how.clear_env {
        command.env_clear();
    }
    if how.orphan {
        let output = String::from_utf8(command.output()?.stdout).unwrap_or_default();
        let pid = output.trim().parse();
        return pid.map_err(|_| io::Error::other(format!("no pid: {output:?}")));
    }
    let mut child = command.spawn()?;
    let pid = child.id();
    thread::Builder::new()
        .name("grandchild".into())
        .spawn(move || child.wait())?;
    Ok(pid)
}

/// This process: its pid, parent, process group and session.
pub(crate) fn ids() -> io::Result<Value> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name in parentheses may hold spaces; after it come state, ppid, pgrp, session
    // (proc_pid_stat(5)).
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let field = |index: usize| fields.get(index).and_then(|text| text.parse::<u32>().ok());
    Ok(json!({
        "pid": std::process::id(),
        "ppid": parent_id(),
        "pgid": field(2),
        "sid": field(3),
    }))
}

/// The longest part of a file that is shown.
const SHOWN_BYTES: u64 = 64 * 1024;

/// What a file has from this offset.
pub(crate) fn read(path: &str, offset: i32) -> io::Result<String> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset.unsigned_abs().into()))?;
    let mut seen = Vec::new();
    file.take(SHOWN_BYTES).read_to_end(&mut seen)?;
    Ok(String::from_utf8_lossy(&seen).into_owned())
}

/// Creates or replaces a file.
pub(crate) fn write(path: &str) -> io::Result<String> {
    fs::write(path, "written\n")?;
    Ok("written".into())
}

pub(crate) fn rename(from: &str, to: &str) -> io::Result<String> {
    fs::rename(from, to)?;
    Ok("renamed".into())
}

/// Connects to a Unix socket with a name that is no file.
pub(crate) fn connect(name: &str) -> io::Result<String> {
    UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
    Ok("connected".into())
}

/// Sends a signal; 0 only asks whether it could be sent.
pub(crate) fn signal(pid: i32, signal: i32) -> io::Result<String> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    match Signal::from_named_raw(signal) {
        Some(signal) => kill_process(pid, signal)?,
        None => test_kill_process(pid)?,
    }
    Ok("sent".into())
}

/// The descriptors that are open, but the one that it takes to list them.
pub(crate) fn descriptors() -> io::Result<String> {
    let mut open = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let target = fs::read_link(entry.path()).unwrap_or_default();
        if !target.starts_with("/proc") {
            open.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    open.sort();
    Ok(open.join(" "))
}
