//! A closed loop of calls: one thread a session, each with one call under way. Knows neither HTTP
//! nor pipes, only [`Caller`].

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use super::failure::{Failure, Outcome};

/// A session that can be called.
pub(crate) trait Caller: Send {
    /// One call: sends it, waits for the answer and checks it.
    fn call(&mut self) -> Outcome<()>;

    /// Ends the session.
    fn close(self) -> Outcome<()>;
}

/// How much to measure in one turn.
#[derive(Clone, Copy)]
pub(crate) struct Dose {
    /// Calls of each session that do not count, before.
    pub(crate) warm_up: usize,
    pub(crate) time: Duration,
    /// Calls of each session at most.
    pub(crate) calls: usize,
}

/// What one turn gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) calls_per_s: f64,
    /// Processor time that the server's own process spent on a call; where there is a server.
    pub(crate) cpu_us: Option<f64>,
}

/// Calls on all sessions at once. `cpu` tells the processor time that the server has spent so far.
pub(crate) fn run<C: Caller>(
    sessions: &mut [C],
    dose: Dose,
    cpu: impl Fn() -> Option<Duration>,
) -> Outcome<Sample> {
    let before = cpu();
    let start = Barrier::new(sessions.len() + 1);
    let (begin, turns) = thread::scope(|scope| {
        let threads: Vec<_> = sessions
            .iter_mut()
            .map(|session| scope.spawn(|| turn(session, dose, &start)))
            .collect();
        start.wait();
        let begin = Instant::now();
        let turns: Vec<_> = threads
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        (begin, turns)
    });
    let mut times = Vec::new();
    let mut end = begin;
    for turn in turns {
        let (of_session, ended) =
            turn.map_err(|_| Failure::new("a thread of the bench panicked"))??;
        times.extend(of_session);
        end = end.max(ended);
    }
    let spent = cpu()
        .zip(before)
        .map(|(after, before)| after.saturating_sub(before));
    let made = times.len() + dose.warm_up * sessions.len();
    times.sort_unstable();
    let elapsed = end.duration_since(begin).as_secs_f64();
    Ok(Sample {
        p50_us: percentile(&times, 50),
        p99_us: percentile(&times, 99),
        calls_per_s: times.len() as f64 / elapsed.max(f64::EPSILON),
        cpu_us: spent.map(|spent| spent.as_secs_f64() * 1e6 / made.max(1) as f64),
    })
}

/// One session's calls: how long each took, and when the last was over.
fn turn(
    session: &mut impl Caller,
    dose: Dose,
    start: &Barrier,
) -> Outcome<(Vec<Duration>, Instant)> {
    let warm = (0..dose.warm_up).try_for_each(|_| session.call());
    start.wait(); // also when the warm-up failed: the others wait for it
    warm?;
    let mut times = Vec::with_capacity(dose.calls.min(1 << 16));
    let mut now = Instant::now();
    let end = now + dose.time;
    while now < end && times.len() < dose.calls {
        session.call()?;
        let after = Instant::now();
        times.push(after - now);
        now = after;
    }
    Ok((times, now))
}

/// In microseconds, of what is sorted.
fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let at = sorted.len().saturating_sub(1) * percent / 100;
    sorted.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e6)
}

/// The middle one; 0 of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counter(usize, usize);

    impl Caller for Counter {
        fn call(&mut self) -> Outcome<()> {
            self.0 += 1;
            if self.0 > self.1 {
                Err(Failure::new("enough"))
            } else {
                Ok(())
            }
        }

        fn close(self) -> Outcome<()> {
            Ok(())
        }
    }

    #[test]
    fn calls_are_bounded_and_failures_reported() {
        let dose = Dose {
            warm_up: 2,
            time: Duration::from_secs(60),
            calls: 5,
        };
        let mut sessions = [Counter(0, 7), Counter(0, 7)];
        assert!(run(&mut sessions, dose, || None).unwrap().calls_per_s > 0.0);
        assert_eq!((sessions[0].0, sessions[1].0), (7, 7));
        assert!(run(&mut [Counter(0, 7), Counter(0, 1)], dose, || None).is_err());
    }

    #[test]
    fn the_middle_is_the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0]) - 2.5).abs() < f64::EPSILON);
        let times: Vec<Duration> = (0..=100).map(Duration::from_micros).collect();
        assert!((percentile(&times, 99) - 99.0).abs() < 1e-6);
    }
}
