//! The phases of a run: all is started, warmed up, left to rest and measured, then struck again and
//! again under load, left to rest, and held against the first measure.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::broker::{Broker, Place};
use crate::crowd;
use crate::ledger::Kind;
use crate::plan::{self, Blow, IDLE_TIMEOUT, PRINCIPALS};
use crate::prng::Prng;
use crate::process::{self, Holdings, Process};
use crate::report::{Balance, say};
use crate::world::World;

/// Set when the run is asked to end.
pub(crate) static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// How long everything may take to end once all clients have gone: the idle timeout, both graces of
/// a child that ignores all of them, and room for a machine under load.
const REST: Duration = Duration::from_secs(IDLE_TIMEOUT.as_secs() + 25);
/// How long what a killed broker has left may live on after the next start.
const SWEEP: Duration = Duration::from_secs(10);
/// Of each, what a broker holds more after a rest than before its first request: 16 connections
/// that the edge keeps open to tiny_http, with a thread and three descriptors each; and some slack.
const THREADS_MORE: usize = 16 + 2;
const DESCRIPTORS_MORE: usize = 16 * 3 + 3;
/// Memory that may have been added, in percent and in KiB: the allocator keeps what a crowd of
/// threads has used.
const RESIDENT_MORE_PERCENT: usize = 50;
const RESIDENT_MORE_KIB: usize = 4096;
/// Sessions that can be revived and were not ended: 64 of each user.
const RESTING: usize = 64 * PRINCIPALS.len();
const POLL: Duration = Duration::from_millis(100);

/// One run.
pub(crate) struct Storm<'a> {
    pub(crate) world: &'a World,
    pub(crate) place: &'a Place,
    pub(crate) broker: Broker<'a>,
    pub(crate) clients: usize,
}

impl Storm<'_> {
    /// All phases.
    ///
    /// # Errors
    /// Why it could not go on.
    pub(crate) fn run(&mut self, length: Duration) -> Result<Balance, String> {
        let warm_up = (length / 5).clamp(Duration::from_secs(6), Duration::from_secs(60));
        let (fresh, ..) = self.rest("fresh", None)?;
        let mut allowed = Holdings {
            threads: fresh.threads + THREADS_MORE,
            descriptors: fresh.descriptors + DESCRIPTORS_MORE,
            resident_kib: usize::MAX,
        };
        self.phase("warm-up", 1, warm_up, Vec::new())?;
        let (before, files_before, _) = self.rest("rest", Some(allowed))?;
        let length = length.saturating_sub(warm_up);
        let blows = plan::blows(self.world.seed, length);
        self.phase("storm", 2, length, blows)?;
        allowed.resident_kib =
            before.resident_kib * (100 + RESIDENT_MORE_PERCENT) / 100 + RESIDENT_MORE_KIB;
        let (after, files_after, orphans) = self.rest("rest", Some(allowed))?;
        for (file, count) in &files_after {
            let before = files_before.get(file).copied().unwrap_or_default();
            let kept = if file.starts_with("sessions/") {
                RESTING
            } else {
                0
            };
            if *count > before + kept {
                let what = format!("{file}: {count} times, {before} after the warm-up");
                self.violation(Kind::Leak, what);
            }
        }
        let balance = Balance {
            before,
            after,
            allowed,
            files_before: files_before.values().sum(),
            files_after: files_after.values().sum(),
            orphans,
            zombies: process::zombies(self.broker.pid()),
        };
        self.terminate("at the end", false);
        self.read_log();
        Ok(balance)
    }

    /// One phase under load.
    fn phase(
        &mut self,
        name: &str,
        no: u64,
        length: Duration,
        blows: Vec<(Duration, Blow)>,
    ) -> Result<(), String> {
        let (world, clients, begin) = (self.world, self.clients, Instant::now());
        world.end_at(begin + length);
        let count = blows.len();
        let asked = world.ledger.with(|figures| figures.asked);
        crowd::run(world, no, clients, || {
            for (no, (at, blow)) in blows.into_iter().enumerate() {
                self.wait_until(begin + at)?;
                self.strike(no as u64, blow)?;
            }
            self.wait_until(begin + length)
        })?;
        let (asked, wrong) = world
            .ledger
            .with(|figures| (figures.asked - asked, figures.violations.len()));
        let took = begin.elapsed().as_secs_f64();
        say(&format!(
            "{name}: {clients} clients, {took:.1} s, {count} blows, {asked} requests, \
             {wrong} violations so far"
        ));
        Ok(())
    }

    fn wait_until(&mut self, when: Instant) -> Result<(), String> {
        while Instant::now() < when {
            if INTERRUPTED.load(Ordering::SeqCst) {
                self.world.outage_begins();
                self.broker.signal(Signal::KILL); // so that no client waits for anything
                return Err("interrupted".to_owned());
            }
            if let Some(status) = self.broker.has_ended() {
                self.world.outage_begins();
                let log = self.broker.last_words();
                return Err(format!(
                    "the broker has ended, {status}; its log ends:\n{log}"
                ));
            }
            thread::sleep(POLL.min(when.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }

    fn strike(&mut self, no: u64, blow: Blow) -> Result<(), String> {
        let mut rng = Prng::derive(self.world.seed, &[u64::MAX, 1 + no]);
        let mut left = BTreeSet::new();
        match blow {
            Blow::Token(principal) => return self.swap_token(principal),
            Blow::Kill => left = self.kill()?,
            Blow::Terminate => self.terminate("in the storm", false),
            Blow::Hurry => self.terminate("in the storm", true),
        }
        thread::sleep(Duration::from_millis(rng.between(0, 600)));
        self.broker.start_again()?;
        self.world.outage_ends();
        self.world.ledger.count("restarts of the broker");
        self.swept(&left);
        Ok(())
    }

    fn swap_token(&self, principal: usize) -> Result<(), String> {
        let (name, _) = PRINCIPALS[principal];
        if self.world.tokens(principal).current.is_some() {
            self.world.set_token(principal, None);
            return self.place.revoke_token(name);
        }
        let token = self.place.add_token(name)?;
        self.world.set_token(principal, Some(token));
        Ok(())
    }

    /// Kills the broker; returns what it leaves, as far as that is held against it.
    fn kill(&mut self) -> Result<BTreeSet<Process>, String> {
        self.world.outage_begins();
        self.broker.signal(Signal::KILL);
        // It cannot end in any other way now; its status says nothing.
        self.broker.wait()?;
        let mark = plan::mark(&self.place.run);
        let mut left = process::marked(&mark);
        if !self.world.features.sweep {
            let is_deeper = |it: &Process| !it.command.starts_with("fake_mcp");
            for it in left.iter().filter(|it| is_deeper(it)) {
                process::signal(it.pid, Signal::KILL);
            }
            left.retain(|it| !is_deeper(it));
        }
        Ok(left)
    }

    /// What a killed broker has left must end with the start of the next one.
    fn swept(&self, left: &BTreeSet<Process>) {
        let deadline = Instant::now() + SWEEP;
        let mark = plan::mark(&self.place.run);
        let mut still: Vec<Process> = left.iter().cloned().collect();
        while !still.is_empty() && Instant::now() < deadline {
            thread::sleep(POLL);
            let now = process::marked(&mark);
            still.retain(|it| now.contains(it));
        }
        for it in still {
            let (pid, command) = (it.pid, &it.command);
            let what = format!("outlived a killed broker and the next start: {pid} {command}");
            self.violation(Kind::Orphan, what);
            process::signal(pid, Signal::KILL);
        }
    }

    /// Ends the broker politely, or hurries it: either way it leaves with 0 and without a trace.
    fn terminate(&mut self, when: &str, twice: bool) {
        self.world.outage_begins();
        self.broker.signal(Signal::TERM);
        if twice {
            thread::sleep(Duration::from_millis(150));
            self.broker.signal(Signal::TERM);
        }
        match self.broker.wait() {
            Ok(status) if status.success() => {}
            Ok(status) => self.violation(
                Kind::Broker,
                format!("SIGTERM {when}: it ended with {status}"),
            ),
            Err(why) => self.violation(Kind::Broker, format!("SIGTERM {when}: {why}")),
        }
        for left in process::marked(&plan::mark(&self.place.run)) {
            let what = format!(
                "outlived SIGTERM of the broker: {} {}",
                left.pid, left.command
            );
            self.violation(Kind::Orphan, what);
            process::signal(left.pid, Signal::KILL);
        }
    }

    /// All clients have gone: waits until everything that was theirs has gone too, and measures.
    fn rest(
        &mut self,
        name: &str,
        allowed: Option<Holdings>,
    ) -> Result<(Holdings, BTreeMap<String, usize>, usize), String> {
        let begin = Instant::now();
        let mark = plan::mark(&self.place.run);
        let deadline = begin + REST;
        let mut left = process::marked(&mark);
        while !(left.is_empty() && process::zombies(self.broker.pid()) == 0)
            && Instant::now() < deadline
        {
            self.wait_until(Instant::now() + POLL)?;
            left = process::marked(&mark);
        }
        for it in &left {
            let what = format!("still there after {REST:?}: {} {}", it.pid, it.command);
            self.violation(Kind::Orphan, what);
        }
        let zombies = process::zombies(self.broker.pid());
        if zombies > 0 {
            self.violation(Kind::Orphan, format!("{zombies} zombies after {REST:?}"));
        }
        let holdings = self.settled(allowed)?;
        let took = begin.elapsed().as_secs_f64();
        let Holdings {
            threads,
            descriptors,
            resident_kib,
        } = holdings;
        say(&format!(
            "{name}: {took:.1} s, {} processes, {zombies} zombies, {threads} threads, \
             {descriptors} descriptors, {resident_kib} KiB",
            left.len()
        ));
        let mut files = process::files(&self.place.state());
        let temporary = process::files(&self.place.temporary());
        files.extend(
            temporary
                .into_iter()
                .map(|(name, count)| (format!("tmp/{name}"), count)),
        );
        Ok((holdings, files, left.len()))
    }

    /// What the broker holds once it holds no less any more; or, where that is known, no more than
    /// it may.
    fn settled(&mut self, allowed: Option<Holdings>) -> Result<Holdings, String> {
        let deadline = Instant::now() + REST;
        let (mut least, mut since) = (process::holdings(self.broker.pid()), Instant::now());
        loop {
            self.wait_until(Instant::now() + POLL)?;
            let now = process::holdings(self.broker.pid());
            if now.threads < least.threads || now.descriptors < least.descriptors {
                since = Instant::now();
            }
            least = now;
            let is_fine = allowed.is_none_or(|it| {
                now.threads <= it.threads
                    && now.descriptors <= it.descriptors
                    && now.resident_kib <= it.resident_kib
            });
            if is_fine && since.elapsed() > Duration::from_secs(3) {
                return Ok(now);
            }
            if Instant::now() > deadline {
                let threads = process::threads(self.broker.pid()).join(" ");
                let what = format!("more than the {allowed:?} allowed: {now:?}; threads {threads}");
                self.violation(Kind::Leak, what);
                return Ok(now);
            }
        }
    }

    /// A thread that panicked is a defect, whatever became of it.
    fn read_log(&self) {
        let log = fs::read(self.place.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let is_fault = |line: &&str| {
            line.contains("thread panicked") || line.contains("a fault in the broker")
        };
        for line in log.lines().filter(is_fault).take(5) {
            self.violation(Kind::Broker, line.to_owned());
        }
    }

    fn violation(&self, kind: Kind, what: String) {
        self.world.ledger.violation(kind, &"the broker", what);
    }
}
