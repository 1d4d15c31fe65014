//! How children end: by themselves, by the stop ladder, and with whatever they started.

use rustix::process::{kill_process_group, test_kill_process};

use super::*;

/// A process that has a group of its own, so that only the test can end it.
struct Escaped(Pid);

impl Drop for Escaped {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = kill_process_group(self.0, Signal::KILL);
    }
}

#[test]
fn a_child_that_ends_with_its_stdin_is_sent_no_signal() {
    let mut rig = Rig::sh("trap 'echo signalled' TERM; cat; echo bye; exit 7");
    rig.send("hello");
    rig.expect_line("hello");
    rig.stop();
    assert_eq!(rig.rest(), (vec!["bye".to_owned()], ExitReason::Code(7)));
}

#[test]
fn a_child_that_outlives_its_stdin_gets_sigterm() {
    let limits = Limits {
        stop_grace: SHORT,
        ..PATIENT
    };
    let mut rig = Rig::with_limits("echo ready; exec sleep 60", limits);
    rig.expect_line("ready");
    let start = Instant::now();
    rig.stop();
    assert!(start.elapsed() >= SHORT, "{:?}", start.elapsed());
    assert_eq!(rig.rest(), (vec![], signal(Signal::TERM)));
}

#[test]
fn a_child_may_clean_up_on_sigterm() {
    let limits = Limits {
        stop_grace: SHORT,
        ..PATIENT
    };
    let script = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let mut rig = Rig::with_limits(script, limits);
    rig.expect_line("ready");
    rig.stop();
    assert_eq!(rig.rest(), (vec!["bye".to_owned()], ExitReason::Code(5)));
}

#[test]
fn a_child_that_ignores_sigterm_is_killed() {
    let limits = Limits {
        stop_grace: SHORT,
        kill_grace: SHORT,
        ..PATIENT
    };
    let mut rig = Rig::with_limits("trap '' TERM; echo ready; exec sleep 60", limits);
    rig.expect_line("ready");
    let start = Instant::now();
    rig.stop();
    assert!(start.elapsed() >= 2 * SHORT, "{:?}", start.elapsed());
    assert_eq!(rig.rest(), (vec![], signal(Signal::KILL)));
}

#[test]
fn a_child_can_be_killed_while_it_is_being_stopped() {
    let mut rig = Rig::sh("trap '' TERM; echo ready; exec sleep 60");
    rig.expect_line("ready");
    let killer = rig.killer.clone();
    // Before or after the ladder begins: both must do.
    let killing = thread::spawn("kill", move || killer.kill());
    rig.stop();
    killing.unwrap().join().expect("no panic");
    assert_eq!(rig.rest(), (vec![], signal(Signal::KILL)));
    rig.killer.kill(); // of no effect on whoever has its id now
}

#[test]
fn what_the_child_started_ends_with_it() {
    let mut rig = Rig::sh("sleep 60 & echo $!; exit 0");
    let grandchild = rig.next_number();
    assert_eq!(rig.rest(), (vec![], ExitReason::Code(0)));
    rig.stop();
    let deadline = Instant::now() + DEADLINE;
    // It is not ours to reap; as a zombie of init it is as good as gone.
    let is_alive = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", grandchild.as_raw_nonzero()));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    };
    while is_alive() {
        assert!(Instant::now() < deadline, "the grandchild lives");
        std::thread::yield_now();
    }
}

#[test]
fn a_grandchild_that_left_the_group_and_holds_the_pipes_blocks_nothing() {
    let mut rig = Rig::sh("setsid sh -c 'echo $$; exec sleep 60' & read -r _; exit 6");
    let escaped = Escaped(rig.next_number());
    rig.send("end");
    assert_eq!(rig.rest(), (vec![], ExitReason::Code(6)));
    rig.stop();
    assert!(test_kill_process(escaped.0).is_ok(), "it has not left");
}

#[test]
fn a_grandchild_that_left_the_group_and_floods_the_pipes_blocks_nothing() {
    let flood =
        "line=$(printf %4000s); echo $$; yes \"$line\" >&2 & yes \"$line\" & exec yes \"$line\"";
    // Slower than what it reads from, so that the pipe is never empty.
    let pace = || std::thread::sleep(Duration::from_millis(2));
    let script = format!("setsid sh -c '{flood}' & read -r _; exit 6");
    let mut rig = Rig::start_paced(sh(&script), PATIENT, pace);
    let escaped = Escaped(rig.next_number());
    rig.send("end");
    let (_, reason) = rig.rest();
    assert_eq!(reason, ExitReason::Code(6));
    rig.stop();
    drop(escaped);
}

#[test]
fn a_child_that_closed_its_stdin_is_ended_by_the_next_line() {
    let mut rig = Rig::sh("exec <&-; echo ready; exec sleep 60");
    rig.expect_line("ready");
    // More than once: what another test is just starting may hold the other end for a moment.
    let deadline = Instant::now() + DEADLINE;
    let seen = loop {
        assert!(Instant::now() < deadline, "it lives");
        rig.send("anybody there?");
        if let Ok(seen) = rig.output.recv_timeout(SHORT) {
            break seen;
        }
    };
    assert_eq!(seen, Seen::Exited(signal(Signal::KILL)));
    rig.stop();
}

/// It takes as long as the grace, two seconds, which is no setting.
#[test]
fn a_child_that_closed_its_stdout_is_ended_after_a_grace() {
    let mut rig = Rig::sh("echo ready; exec >&-; exec sleep 60");
    rig.expect_line("ready");
    rig.waker.wake(); // waking it meanwhile does no harm
    assert_eq!(rig.next(), Seen::Woken);
    assert_eq!(rig.rest(), (vec![], signal(Signal::KILL)));
    rig.stop();
}

#[test]
fn a_child_that_closed_its_stdout_may_end_by_itself() {
    let mut rig = Rig::sh("echo ready; exec >&-; read -r _; exit 9");
    rig.expect_line("ready");
    rig.send("end");
    assert_eq!(rig.rest(), (vec![], ExitReason::Code(9)));
    rig.stop();
}

#[test]
fn a_writer_that_a_deaf_child_blocks_is_released_by_stop() {
    let limits = Limits {
        stop_grace: SHORT,
        ..PATIENT
    };
    let mut rig = Rig::with_limits("echo ready; exec sleep 60", limits);
    rig.expect_line("ready");
    for _ in 0..8 {
        rig.send(&"x".repeat(100_000));
    }
    rig.stop();
    assert_eq!(rig.rest(), (vec![], signal(Signal::TERM)));
}

#[test]
fn a_stop_after_the_end_comes_back_at_once() {
    let mut rig = Rig::sh("exit 0");
    assert_eq!(rig.rest(), (vec![], ExitReason::Code(0)));
    rig.stop();
}
