//! Backlogs before real sockets; the time is only told.

use std::io::Read;
use std::os::unix::net::UnixStream;

use super::*;

const TIMINGS: Timings = Timings {
    head: Duration::ZERO,
    idle: Duration::ZERO,
    stall: Duration::from_secs(30),
    catch_up: Duration::from_secs(1),
};
const MIB: usize = 1024 * 1024;

/// The broker's end, and the client's.
fn sockets() -> (UnixStream, UnixStream) {
    let (ours, client) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    client.set_nonblocking(true).unwrap();
    (ours, client)
}

/// Takes up to so many bytes.
fn take(mut client: &UnixStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let len = client.read(&mut bytes).unwrap_or(0);
    bytes.truncate(len);
    bytes
}

fn add(backlog: &mut Backlog<'_>, bytes: &[u8]) {
    backlog.add(|out| out.extend_from_slice(bytes));
}

/// Numbers that look random, and are the same in each run (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((number ^ (number >> 31)) % end as u64) as usize
    }
}

#[test]
fn a_backlog_keeps_the_order_however_its_client_reads() {
    const LIMIT: usize = 512 * 1024;
    let now = Instant::now();
    let all: Vec<u8> = (0..300_000).flat_map(u32::to_be_bytes).collect();
    let (mut most, mut least) = (0, usize::MAX);
    for seed in 0..200 {
        let mut numbers = Numbers(seed);
        let memory = Memory::new(LIMIT);
        let mut backlog = Backlog::new(&memory, now);
        let (ours, client) = sockets();
        let (mut added, mut taken, mut longest) = (0, Vec::new(), 0);
        // Of clients that lag behind, and of clients that never do.
        let appetite = 1 + numbers.below(400 * 1024);
        while added < all.len() || !backlog.is_empty() {
            if backlog.has_room() {
                let end = all.len().min(added + numbers.below(80_000));
                add(&mut backlog, &all[added..end]);
                added = end;
            }
            assert_ne!(backlog.write(&ours, now), Wrote::Failed);
            assert_eq!(memory.taken(), backlog.len);
            longest = longest.max(backlog.len);
            taken.extend(take(&client, numbers.below(appetite)));
        }
        taken.extend(take(&client, all.len()));
        assert!(taken == all, "seed {seed}");
        assert_eq!(memory.taken(), 0);
        (most, least) = (most.max(longest), least.min(longest));
    }
    assert_eq!(least, 0, "no client kept up");
    let bound = LIMIT / 2..LIMIT / 2 + 80_000;
    assert!(bound.contains(&most), "the longest was {most}");
}

#[test]
fn one_backlog_leaves_as_much_to_the_others() {
    let now = Instant::now();
    let memory = Memory::new(4 * MIB);
    let fill = |count: usize| -> Vec<usize> {
        let sockets: Vec<_> = (0..count).map(|_| sockets()).collect();
        let mut backlogs: Vec<_> = (0..count).map(|_| Backlog::new(&memory, now)).collect();
        while backlogs.iter().any(Backlog::has_room) {
            for (backlog, (ours, _)) in backlogs.iter_mut().zip(&sockets) {
                if backlog.has_room() {
                    add(backlog, &[0; 16 * 1024]);
                    assert_ne!(backlog.write(ours, now), Wrote::Failed);
                }
            }
        }
        backlogs.iter().map(|backlog| backlog.len).collect()
    };
    let is_about = |len: &usize, expected: usize| len.abs_diff(expected) <= 40 * 1024;
    assert!(fill(1).iter().all(|len| is_about(len, 2 * MIB)));
    assert!(fill(3).iter().all(|len| is_about(len, MIB)));
    assert_eq!(memory.taken(), 0);
}

#[test]
fn a_client_that_keeps_up_needs_no_memory() {
    let now = Instant::now();
    let memory = Memory::new(0);
    let mut backlog = Backlog::new(&memory, now);
    let (ours, client) = sockets();
    for _ in 0..100 {
        assert!(backlog.has_room());
        add(&mut backlog, &[0; 50_000]);
        assert_eq!(backlog.write(&ours, now), Wrote::All);
        assert_eq!(take(&client, 50_000).len(), 50_000);
        let later = now + Duration::from_secs(3600);
        assert!(!backlog.is_hopeless(&TIMINGS, later, || true));
        assert_eq!(backlog.patience(&TIMINGS, later), None);
        assert_eq!(backlog.newest.capacity() + backlog.older.capacity(), 0);
    }
}

#[test]
fn a_client_must_take_something_worth_mentioning() {
    let start = Instant::now();
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    let memory = Memory::new(64 * MIB);
    let mut backlog = Backlog::new(&memory, start);
    let (ours, client) = sockets();
    add(&mut backlog, &vec![0; 2 * MIB]);
    assert_eq!(backlog.write(&ours, start), Wrote::Some);
    // The first bytes went into the socket, and count.
    assert!(!backlog.is_hopeless(&TIMINGS, start, || false));
    // Fast enough, in lumps.
    for round in 1..=3 {
        take(&client, 200 * 1024);
        assert_eq!(backlog.write(&ours, at(29 * round)), Wrote::Some);
        assert!(!backlog.is_hopeless(&TIMINGS, at(29 * round), || false));
    }
    // A drip.
    take(&client, 60 * 1024);
    assert_eq!(backlog.write(&ours, at(100)), Wrote::Some);
    assert!(!backlog.is_hopeless(&TIMINGS, at(100), || false));
    let left = backlog.patience(&TIMINGS, at(100));
    assert_eq!(left, Some(Duration::from_secs(87 + 30 - 100)));
    assert!(backlog.is_hopeless(&TIMINGS, at(87 + 30), || false));
}

#[test]
fn without_room_a_client_may_make_others_wait_for_a_moment() {
    let start = Instant::now();
    let at = |millis: u64| start + Duration::from_millis(millis);
    let memory = Memory::new(0);
    let (ours, _client) = sockets();
    let lagging = || {
        let mut backlog = Backlog::new(&memory, start);
        add(&mut backlog, &vec![0; MIB]);
        assert_eq!(backlog.write(&ours, start), Wrote::Some);
        assert!(!backlog.has_room());
        assert_eq!(backlog.patience(&TIMINGS, start), Some(NO_ROOM_TICK));
        backlog
    };
    // Nobody waits.
    let mut backlog = lagging();
    for millis in (0..20_000).step_by(100) {
        assert!(!backlog.is_hopeless(&TIMINGS, at(millis), || false));
    }
    // Somebody does.
    let mut backlog = lagging();
    assert!(!backlog.is_hopeless(&TIMINGS, at(0), || true));
    assert!(!backlog.is_hopeless(&TIMINGS, at(999), || true));
    assert!(backlog.is_hopeless(&TIMINGS, at(1000), || true));
    // Every now and then, so that it adds up: 300 of 400 ms.
    let mut backlog = lagging();
    let waits = |millis: u64| millis % 400 < 300;
    let cut = (0..5000).step_by(100).find(|millis| {
        let waits = || waits(*millis);
        backlog.is_hopeless(&TIMINGS, at(*millis), waits)
    });
    assert_eq!(cut, Some(1300));
    // Once in a while, so that it does not: 300 of 1400 ms.
    let mut backlog = lagging();
    for millis in (0..20_000).step_by(100) {
        let waits = || millis % 1400 < 300;
        assert!(
            !backlog.is_hopeless(&TIMINGS, at(millis), waits),
            "{millis}"
        );
    }
}
