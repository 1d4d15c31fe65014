//! Real, short-lived processes: mostly `/bin/sh`. Every wait is for an event, with a deadline.

mod ending;

use std::path::Path;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::*;

/// For whatever must happen.
const DEADLINE: Duration = Duration::from_secs(10);
/// A grace that no test waits for: the child must end before it.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(100);
const PATIENT: Limits = Limits {
    max_message: 1024 * 1024,
    stop_grace: LONG,
    kill_grace: LONG,
};

/// What came out of a child, owned.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Line(String),
    TooLong,
    Skipped(String, String),
    Woken,
    Exited(ExitReason),
}

impl From<Event<'_>> for Seen {
    fn from(event: Event<'_>) -> Self {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        match event {
            Event::Line(line) => Self::Line(text(line)),
            Event::TooLong => Self::TooLong,
            Event::Skipped { head, tail } => Self::Skipped(text(head), text(tail)),
            Event::Woken => Self::Woken,
            Event::Exited(reason) => Self::Exited(reason.clone()),
        }
    }
}

/// A running child, and both ends of its traffic.
struct Rig {
    child: Option<Child>,
    _parent: Parent,
    pid: Pid,
    killer: Killer,
    waker: Waker,
    /// What goes to the child; `None` once its stdin is closed.
    input: Option<Sender<Vec<u8>>>,
    output: Receiver<Seen>,
}

impl Rig {
    fn sh(script: &str) -> Self {
        Self::with_limits(script, PATIENT)
    }

    fn with_limits(script: &str, limits: Limits) -> Self {
        Self::start(sh(script), limits)
    }

    fn start(launch: Launch, limits: Limits) -> Self {
        Self::start_paced(launch, limits, || ())
    }

    /// `pace` runs before each event is taken.
    fn start_paced(launch: Launch, limits: Limits, pace: impl Fn() + Send + 'static) -> Self {
        let (input, lines) = unbounded::<Vec<u8>>();
        let (sink, output) = unbounded();
        let waker = Waker::new().unwrap();
        let parent = Parent::start().unwrap();
        let child = Child::start(
            &parent.nursery(),
            launch,
            limits,
            waker.clone(),
            move || lines.recv().ok(),
            move |event| {
                pace();
                let _ = sink.send(event.into()); // nobody listens once a test is over
            },
        );
        let child = child.unwrap();
        Self {
            pid: Pid::from_raw(child.pid().cast_signed()).unwrap(),
            killer: child.killer(),
            child: Some(child),
            _parent: parent,
            waker,
            input: Some(input),
            output,
        }
    }

    fn send(&self, line: &str) {
        let bytes = format!("{line}\n").into_bytes();
        self.input.as_ref().unwrap().send(bytes).unwrap();
    }

    fn next(&self) -> Seen {
        self.output
            .recv_timeout(DEADLINE)
            .expect("an event in time")
    }

    fn expect_line(&self, line: &str) {
        assert_eq!(self.next(), Seen::Line(line.to_owned()));
    }

    fn next_number(&self) -> Pid {
        let Seen::Line(line) = self.next() else {
            panic!("no line");
        };
        Pid::from_raw(line.parse().unwrap()).unwrap()
    }

    /// All up to the end: the lines, and how it ended.
    fn rest(&self) -> (Vec<String>, ExitReason) {
        let mut lines = Vec::new();
        let deadline = Instant::now() + DEADLINE;
        loop {
            assert!(
                Instant::now() < deadline,
                "no end after {} lines",
                lines.len()
            );
            match self.next() {
                Seen::Line(line) => lines.push(line),
                Seen::Exited(reason) => return (lines, reason),
                other => panic!("{other:?}"),
            }
        }
    }

    fn close_stdin(&mut self) {
        self.input = None;
    }

    /// Closes stdin and runs the stop ladder, which must come back. Nothing is left then.
    fn stop(&mut self) {
        self.close_stdin();
        let (child, (done, is_done)) = (self.child.take().unwrap(), bounded(1));
        let thread = thread::spawn("stop", move || {
            child.stop();
            let _ = done.send(()); // nobody waits any more after the deadline
        });
        let thread = thread.unwrap();
        if is_done.recv_timeout(DEADLINE).is_err() {
            std::mem::forget(thread); // joining it would hang, too
            panic!("stop does not come back");
        }
        assert!(!Path::new(&format!("/proc/{}", self.pid.as_raw_nonzero())).exists());
    }
}

impl Drop for Rig {
    /// A test that failed leaves no child, and does not wait for one.
    fn drop(&mut self) {
        self.killer.kill();
        self.close_stdin();
    }
}

fn sh(script: &str) -> Launch {
    Launch {
        label: "5e551017".to_owned(),
        // As the launcher begins.
        program: "setsid".into(),
        args: ["/bin/sh", "-c", script].map(Into::into).into(),
        env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
        stderr: Arc::new(StderrTail::new("test".to_owned(), &[])),
        tether: Tether::default(),
    }
}

fn signal(signal: Signal) -> ExitReason {
    ExitReason::Signal(signal.as_raw())
}

#[test]
fn lines_go_both_ways() {
    let mut rig = Rig::sh("while read -r line; do echo \"got $line\"; done");
    for n in 0..100 {
        rig.send(&format!("line {n}"));
        rig.expect_line(&format!("got line {n}"));
    }
    // More than a pipe holds.
    let long = "x".repeat(300_000);
    rig.send(&long);
    rig.expect_line(&format!("got {long}"));
    rig.stop();
    assert_eq!(rig.rest(), (vec![], ExitReason::Code(0)));
}

#[test]
fn what_is_written_at_once_and_what_is_queued_arrive_alike() {
    let mut rig = Rig::sh("while read -r line; do echo \"got $line\"; done");
    let write_now = rig.child.as_ref().unwrap().write_now();
    assert!(write_now(b"at once\n"));
    rig.expect_line("got at once");
    rig.send("queued");
    rig.expect_line("got queued");
    // More than the pipe takes whole.
    assert!(!write_now(&[b'x'; rustix::pipe::PIPE_BUF + 1]));
    rig.stop();
    assert!(!write_now(b"too late\n"));
    assert_eq!(rig.rest(), (vec![], ExitReason::Code(0)));
}

#[test]
fn a_full_pipe_takes_nothing_at_once() {
    let mut rig = Rig::with_limits(
        "exec sleep 60",
        Limits {
            stop_grace: SHORT,
            ..PATIENT
        },
    );
    let write_now = rig.child.as_ref().unwrap().write_now();
    let line = [b'x'; 4096];
    let written = (0..1000).take_while(|_| write_now(&line)).count();
    assert!(
        (1..1000).contains(&written),
        "{written} lines of 4096 bytes"
    );
    rig.stop();
}

#[test]
fn the_environment_is_what_was_given_and_nothing_else() {
    let mut launch = sh("");
    (launch.program, launch.args) = ("/usr/bin/env".into(), vec![]);
    launch.env = vec![
        ("A".to_owned(), "1".to_owned()),
        ("B".to_owned(), "2".to_owned()),
    ];
    let mut rig = Rig::start(launch, PATIENT);
    let lines = ["A=1", "B=2"].map(str::to_owned).to_vec();
    assert_eq!(rig.rest(), (lines, ExitReason::Code(0)));
    rig.stop();
}

#[test]
fn nothing_is_started_once_the_parent_has_gone() {
    let nursery = Parent::start().unwrap().nursery();
    let waker = Waker::new().unwrap();
    let started = Child::start(&nursery, sh("exit 0"), PATIENT, waker, || None, |_| ());
    let error = started.err().expect("no child").to_string();
    assert_eq!(error, "cannot start setsid: the broker is about to end");
}

#[test]
fn the_end_is_told_after_everything_that_was_written() {
    let check = |script: &str, lines: usize, reason: ExitReason| {
        let mut rig = Rig::sh(script);
        let (seen, how) = rig.rest();
        assert_eq!((seen.len(), how), (lines, reason), "{script}");
        rig.stop();
        assert!(rig.output.try_recv().is_err(), "something after the end");
    };
    check("exit 0", 0, ExitReason::Code(0));
    check("echo a; echo b; exit 3", 2, ExitReason::Code(3));
    check("seq 1 20000; exit 4", 20_000, ExitReason::Code(4));
    check("echo a; kill -9 $$", 1, signal(Signal::KILL));
    check("echo a; kill -TERM $$", 1, signal(Signal::TERM));
    check("echo a; kill -SEGV $$", 1, signal(Signal::SEGV));
}

#[test]
fn how_a_child_ended_can_be_read() {
    let check = |reason: ExitReason, text: &str| assert_eq!(reason.to_string(), text);
    check(ExitReason::Code(3), "exit status 3");
    check(ExitReason::Signal(9), "signal 9");
    check(
        ExitReason::OutOfMemory,
        "killed: it reached its memory limit",
    );
    check(ExitReason::Unknown, "an unknown status");
}

#[test]
fn a_line_that_is_too_long_is_skipped() {
    let mut rig = Rig::with_limits(
        "echo 0123456789; echo 01234567890; echo after",
        Limits {
            max_message: 10,
            ..PATIENT
        },
    );
    rig.expect_line("0123456789");
    assert_eq!(rig.next(), Seen::TooLong);
    let whole = "01234567890".to_owned();
    assert_eq!(rig.next(), Seen::Skipped(whole.clone(), whole));
    rig.expect_line("after");
    rig.stop();
}

#[test]
fn both_ends_of_a_line_that_is_too_long_are_known() {
    // More than the pipe holds, so it comes in several reads.
    let mut rig = Rig::sh("printf 'begin%2000000d:end\\n' 7; printf '%2000000d'");
    assert_eq!(rig.next(), Seen::TooLong);
    match rig.next() {
        Seen::Skipped(head, tail) => {
            assert!(head.starts_with("begin   ") && head.len() <= 1024, "{head}");
            assert!(tail.ends_with("  7:end") && tail.len() <= 1024, "{tail}");
        }
        other => panic!("{other:?}"),
    }
    // One that does not end is no line.
    assert_eq!(rig.next(), Seen::TooLong);
    rig.stop();
}

#[test]
fn a_program_that_cannot_be_started_is_named() {
    let parent = Parent::start().unwrap();
    let check = |program: &str, expected: &str| {
        let mut launch = sh("exit 0");
        launch.program = program.into();
        let waker = Waker::new().unwrap();
        let started = Child::start(&parent.nursery(), launch, PATIENT, waker, || None, |_| ());
        let error = started.err().expect("no child").to_string();
        assert_eq!(error, expected);
    };
    check(
        "/nonexistent/server",
        "cannot start /nonexistent/server: No such file or directory (os error 2)",
    );
    check("/etc", "cannot start /etc: Permission denied (os error 13)");
}

#[test]
fn the_last_lines_of_stderr_are_complete_when_the_end_is_told() {
    let mut rig = Rig::sh("seq 1 500 >&2; printf 'no line end' >&2; exit 1");
    let stderr = rig.child.as_ref().unwrap().stderr.clone();
    assert_eq!(rig.rest(), (vec![], ExitReason::Code(1)));
    assert_eq!(stderr.last(3), ["499", "500", "no line end"]);
    assert_eq!(stderr.last(1000).len(), 100);
    rig.stop();
}

#[test]
fn a_child_that_closed_its_stderr_goes_on() {
    let mut rig = Rig::sh("exec 2>&-; cat; exit 2");
    rig.send("hello");
    rig.expect_line("hello");
    rig.stop();
    assert_eq!(rig.rest(), (vec![], ExitReason::Code(2)));
}

#[test]
fn secrets_are_struck_out_of_stderr() {
    let mut launch = sh("echo \"token $TOKEN\" >&2; echo \"$KEY\" >&2; exit 1");
    launch.env.push(("TOKEN".to_owned(), "hunter2".to_owned()));
    let key = "-----BEGIN KEY-----\nc2VjcmV0\n-----END KEY-----\n";
    launch.env.push(("KEY".to_owned(), key.to_owned()));
    let secrets = ["hunter2".to_owned(), key.to_owned()];
    launch.stderr = Arc::new(StderrTail::new("test".to_owned(), &secrets));
    let mut rig = Rig::start(launch, PATIENT);
    let stderr = rig.child.as_ref().unwrap().stderr.clone();
    assert_eq!(rig.rest(), (vec![], ExitReason::Code(1)));
    assert_eq!(stderr.last(10), ["token ***", "***", "***", "***"]);
    rig.stop();
}

#[test]
fn waking_interrupts_a_reader_that_waits() {
    let mut rig = Rig::sh("cat");
    for _ in 0..3 {
        rig.waker.wake();
        assert_eq!(rig.next(), Seen::Woken);
    }
    rig.send("hello");
    rig.expect_line("hello");
    rig.stop();
    assert_eq!(rig.rest(), (vec![], ExitReason::Code(0)));
}
