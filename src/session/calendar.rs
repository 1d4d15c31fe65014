//! Two clocks kept together: sessions go by one that only ever runs forward, records by the
//! calendar, which outlives the broker. The calendar may be set while the broker runs (a machine
//! that started without a network, or slept); whoever has noted moments by it is told by how much.
//! Pure; time is passed in.

use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

/// By less than this the two may differ.
const TOLERANCE: Duration = Duration::from_secs(5);

/// The same moment on both.
pub(super) struct Calendar(Mutex<(Instant, SystemTime)>);

/// By how much the calendar was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shift {
    Forward(Duration),
    Back(Duration),
}

impl Shift {
    /// A moment that was noted before; never later than `now`.
    pub(super) fn apply(self, noted: SystemTime, now: SystemTime) -> SystemTime {
        let shifted = match self {
            Self::Forward(by) => noted.checked_add(by),
            Self::Back(by) => noted.checked_sub(by),
        };
        shifted.unwrap_or(noted).min(now)
    }
}

impl Calendar {
    pub(super) fn new(now: Instant, wall: SystemTime) -> Self {
        Self(Mutex::new((now, wall)))
    }

    /// A moment as the calendar has it.
    pub(super) fn wall(&self, at: Instant) -> SystemTime {
        let (instant, wall) = *self.0.lock();
        match at.checked_duration_since(instant) {
            Some(since) => wall + since,
            None => wall - instant.duration_since(at),
        }
    }

    /// A moment of the calendar as time that has passed here; never later than `now`.
    pub(super) fn instant(&self, at: SystemTime, now: Instant) -> Instant {
        let age = self.wall(now).duration_since(at).unwrap_or_default();
        let earliest = self.0.lock().0;
        now.checked_sub(age).unwrap_or(earliest)
    }

    /// Looks at both clocks; tells if the calendar was set since.
    pub(super) fn adjust(&self, now: Instant, wall: SystemTime) -> Option<Shift> {
        let expected = self.wall(now);
        let shift = match wall.duration_since(expected) {
            Ok(by) => Shift::Forward(by),
            Err(by) => Shift::Back(by.duration()),
        };
        let (Shift::Forward(by) | Shift::Back(by)) = shift;
        (by > TOLERANCE).then(|| {
            *self.0.lock() = (now, wall);
            shift
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_moves_with_the_calendar() {
        let (start, epoch) = (Instant::now(), SystemTime::UNIX_EPOCH);
        let calendar = Calendar::new(start, epoch);
        let (at, wall) = (
            |seconds| start + Duration::from_secs(seconds),
            |seconds| epoch + Duration::from_secs(seconds),
        );
        assert_eq!(calendar.wall(at(7)), wall(7));
        assert_eq!(calendar.instant(wall(3), at(7)), at(3));
        assert_eq!(calendar.instant(wall(9), at(7)), at(7));
        // It runs a little fast.
        assert_eq!(calendar.adjust(at(10), wall(14)), None);
        assert_eq!(calendar.wall(at(10)), wall(10));
        // The machine had no idea of the year; then somebody told it.
        let forward = Shift::Forward(Duration::from_secs(999_980));
        assert_eq!(calendar.adjust(at(20), wall(1_000_000)), Some(forward));
        assert_eq!(calendar.wall(at(21)), wall(1_000_001));
        assert_eq!(forward.apply(wall(3), wall(1_000_000)), wall(999_983));
        assert_eq!(forward.apply(wall(999), wall(1_000_000)), wall(1_000_000));
        assert_eq!(calendar.adjust(at(22), wall(1_000_002)), None);
        let back = Shift::Back(Duration::from_secs(100));
        assert_eq!(calendar.adjust(at(30), wall(999_910)), Some(back));
        assert_eq!(back.apply(wall(999_999), wall(999_910)), wall(999_899));
    }
}
