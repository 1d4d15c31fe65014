//! Request bodies: how much of them, in what time, and in how much memory. A body is read to
//! its end before anybody behind the edge hears of the request, so a slow or broken upload
//! holds nothing but its own connection.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::Timings;
use super::chunked::Decoder;
use super::refuse::Refusal;

/// Bodies up to this size count as part of their connection; larger ones share a budget.
const SMALL_BYTES: usize = 64 * 1024;
/// What all larger bodies together may take at a time.
const LARGE_BODIES_BYTES: usize = 64 * 1024 * 1024;
/// Slower uploads are cut, after a first allowance.
const MIN_RATE_BYTES_PER_SECOND: u64 = 4 * 1024;

/// What is left for large bodies.
pub(super) struct UploadBudget(AtomicUsize);

impl UploadBudget {
    /// Holds at least one body of the largest size.
    pub(super) fn new(max_body: usize) -> Self {
        Self(AtomicUsize::new(LARGE_BODIES_BYTES.max(max_body)))
    }
}

/// One request's share of the budget; given back when dropped.
pub(super) struct Budget<'a> {
    budget: &'a UploadBudget,
    taken: usize,
}

impl<'a> Budget<'a> {
    pub(super) fn new(budget: &'a UploadBudget) -> Self {
        Self { budget, taken: 0 }
    }

    /// Makes sure that `total` bytes are accounted for.
    ///
    /// # Errors
    /// 503 if the others leave too little.
    pub(super) fn take(&mut self, total: usize) -> Result<(), Refusal> {
        let more = total.saturating_sub(self.taken.max(SMALL_BYTES));
        if more == 0 {
            return Ok(());
        }
        // A growing body takes big steps, so that this is rare.
        let more = if self.taken == 0 {
            total
        } else {
            more.max(SMALL_BYTES)
        };
        self.budget
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(more)
            })
            .map_err(|_| Refusal::Busy("too many large uploads at once"))?;
        self.taken += more;
        Ok(())
    }
}

impl Drop for Budget<'_> {
    fn drop(&mut self) {
        self.budget.0.fetch_add(self.taken, Ordering::Relaxed);
    }
}

/// How fast a body must come.
pub(super) struct Pace {
    start: Instant,
    allowance: Duration,
    bytes: u64,
}

impl Pace {
    pub(super) fn new(start: Instant, timings: &Timings) -> Self {
        Self {
            start,
            allowance: timings.head,
            bytes: 0,
        }
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// When the next bytes must be here.
    pub(super) fn deadline(&self) -> Instant {
        let earned = Duration::from_millis(self.bytes * 1000 / MIN_RATE_BYTES_PER_SECOND);
        self.start + self.allowance + earned
    }
}

/// A chunked body that is being collected.
pub(super) struct Chunked {
    decoder: Decoder,
    body: Vec<u8>,
    max_body: usize,
}

impl Chunked {
    pub(super) fn new(max_body: usize) -> Self {
        Self {
            decoder: Decoder::new(),
            body: Vec::new(),
            max_body,
        }
    }

    /// Takes what was read, and returns how much of it belongs to the body.
    ///
    /// # Errors
    /// 400 for a broken coding, 413 for a body that is too large.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        let (body, max_body) = (&mut self.body, self.max_body);
        let mut too_large = false;
        let used = self
            .decoder
            .feed(bytes, |data| {
                too_large |= body.len() + data.len() > max_body;
                if !too_large {
                    body.extend_from_slice(data);
                }
            })
            .map_err(|_| Refusal::BadRequest("the chunked coding is malformed"))?;
        // A chunk says its size; there is no need to wait for it.
        let announced = body.len() as u64 + self.decoder.left();
        if too_large || announced > max_body as u64 {
            Err(Refusal::BodyTooLarge)
        } else {
            Ok(used)
        }
    }

    pub(super) fn is_end(&self) -> bool {
        self.decoder.is_end()
    }

    pub(super) fn len(&self) -> usize {
        self.body.len()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_bodies_share_a_budget() {
        let budget = UploadBudget::new(0);
        let mut small = Budget::new(&budget);
        small.take(SMALL_BYTES).unwrap();
        let mut all = Budget::new(&budget);
        all.take(LARGE_BODIES_BYTES).unwrap();
        let mut late = Budget::new(&budget);
        late.take(SMALL_BYTES).unwrap();
        assert!(late.take(SMALL_BYTES + 1).is_err());
        drop(all);
        late.take(SMALL_BYTES + 1).unwrap();
        drop((late, small));
        Budget::new(&budget).take(LARGE_BODIES_BYTES).unwrap();
    }

    #[test]
    fn a_body_must_keep_pace() {
        let start = Instant::now();
        let timings = Timings {
            head: Duration::from_secs(10),
            ..Timings::default()
        };
        let mut pace = Pace::new(start, &timings);
        assert_eq!(pace.deadline(), start + Duration::from_secs(10));
        pace.add(8 * 1024);
        assert_eq!(pace.deadline(), start + Duration::from_secs(12));
    }

    #[test]
    fn a_chunked_body_is_bounded() {
        let mut body = Chunked::new(4);
        assert_eq!(body.feed(b"4\r\nabcd\r\n0\r\n\r\nrest"), Ok(14));
        assert!(body.is_end());
        assert_eq!(body.bytes(), b"abcd");
        let mut body = Chunked::new(4);
        assert_eq!(body.feed(b"5\r\nabcde"), Err(Refusal::BodyTooLarge));
        let mut body = Chunked::new(4);
        assert_eq!(body.feed(b"1\r\na\r\n4\r\n"), Err(Refusal::BodyTooLarge));
        let mut body = Chunked::new(4);
        assert!(matches!(body.feed(b"x"), Ok(1)));
        assert!(matches!(body.feed(b"\r\n"), Err(Refusal::BadRequest(_))));
    }
}
