//! `--compare`: has the broker become slower? Works on two [`Figures`], old and new.

use std::fmt;

use super::failure::{Failure, Outcome};
use super::figures::{Figures, Target};

/// How much slower is still nothing to stop for.
const TOLERANCE: f64 = 0.05;

/// How the time of a call through the broker (p50, one session) has changed between two runs. Both
/// are taken as multiples of the floor of their own run, so that a slower day of the machine is not
/// a slower broker.
pub(crate) struct Change {
    /// Microseconds and multiple of the floor, then and now.
    then: (f64, f64),
    now: (f64, f64),
    /// Half the spread between rounds, as a part of the middle: the larger of both runs.
    noise: f64,
}

/// # Errors
/// When one of the runs has no figures of the broker or of a floor.
pub(crate) fn change(then: &Figures, now: &Figures) -> Outcome<Change> {
    let (then, then_noise) = call(then)?;
    let (now, now_noise) = call(now)?;
    Ok(Change {
        then,
        now,
        noise: then_noise.max(now_noise),
    })
}

/// Time, multiple of the floor, and noise.
fn call(figures: &Figures) -> Outcome<((f64, f64), f64)> {
    let level = figures.level(Target::Broker, 1).zip(figures.floor_us(1));
    let (level, floor) =
        level.ok_or_else(|| Failure::new("nothing to compare: broker or floor not measured"))?;
    let time = level.p50_us();
    Ok(((time, time / floor), level.spread() / 2.0))
}

impl Change {
    fn part(&self) -> f64 {
        self.now.1 / self.then.1 - 1.0
    }

    /// Slower by more than what is tolerated and what may be chance.
    pub(crate) fn is_slower(&self) -> bool {
        self.part() > TOLERANCE + self.noise
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((then, then_floors), (now, now_floors)) = (self.then, self.now);
        write!(
            f,
            "a call of one session: {then:.0} us ({then_floors:.2} floors) then, "
        )?;
        write!(
            f,
            "{now:.0} us ({now_floors:.2} floors) now: {:+.1} %",
            self.part() * 100.0
        )?;
        write!(f, ", noise {:.1} %", self.noise * 100.0)?;
        if self.is_slower() {
            write!(f, ": SLOWER")
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::figures::{Level, TargetFigures};
    use super::super::load::Sample;
    use super::*;

    fn run(floor: f64, rounds: [f64; 3]) -> Figures {
        let level = |rounds: [f64; 3]| Level {
            sessions: 1,
            rounds: rounds
                .map(|p50_us| Sample {
                    p50_us,
                    p99_us: 0.0,
                    calls_per_s: 0.0,
                    cpu_us: None,
                })
                .to_vec(),
        };
        let of = |target, rounds| TargetFigures {
            levels: vec![level(rounds)],
            ..TargetFigures::new(target)
        };
        let floors =
            [Target::HttpAlone, Target::PipeAlone].map(|target| of(target, [floor / 2.0; 3]));
        let mut all = Vec::from(floors);
        all.push(of(Target::Broker, rounds));
        Figures {
            machine: String::new(),
            of: all,
            eras: Vec::new(),
            changes: Vec::new(),
        }
    }

    #[test]
    fn slower_is_what_exceeds_tolerance_and_noise() {
        let then = run(100.0, [150.0; 3]);
        for (floor, rounds, slower) in [
            (100.0, [150.0; 3], false),
            (100.0, [157.0; 3], false),
            (100.0, [159.0; 3], true),
            (200.0, [300.0; 3], false),
            (100.0, [140.0, 159.0, 180.0], false),
            (100.0, [100.0; 3], false),
        ] {
            assert_eq!(
                change(&then, &run(floor, rounds)).unwrap().is_slower(),
                slower,
                "{floor} {rounds:?}"
            );
        }
        assert!(
            change(
                &then,
                &Figures {
                    machine: String::new(),
                    of: Vec::new(),
                    eras: Vec::new(),
                    changes: Vec::new(),
                }
            )
            .is_err()
        );
    }
}
