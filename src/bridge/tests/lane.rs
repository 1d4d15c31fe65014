//! The way of a POST to the child: written at once where that takes no waiting, else queued, and
//! never overtaken.

use super::super::lane::{INBOX_LEN, MAX_ASKED_LINES};
use super::*;
use crate::translate::Out;

fn ping(id: usize) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#)
}

/// A bridge whose child takes lines at once for as long as it is told to.
fn connected() -> (Rig, Arc<AtomicBool>) {
    let rig = Rig::initialized("2025-11-25");
    let (has_room, log) = (Arc::new(AtomicBool::new(true)), rig.log.clone());
    let its_room = Arc::clone(&has_room);
    rig.bridge.connect(Box::new(move |bytes| {
        let has_room = its_room.load(Ordering::Relaxed);
        if has_room {
            log.note(format!(
                "at once {}",
                String::from_utf8_lossy(bytes).trim_end()
            ));
        }
        has_room
    }));
    (rig, has_room)
}

impl Rig {
    fn bring(&mut self, name: &str, json: &str) {
        let exchange = self.exchange(name, Some(json.as_bytes()));
        self.bridge.post(self.tenant, exchange);
    }

    fn next_queued(&mut self) -> String {
        let line = self.outbound.next().expect("not closed");
        String::from_utf8(line).unwrap().trim_end().to_owned()
    }
}

#[test]
fn a_small_request_is_written_at_once() {
    let (mut rig, _) = connected();
    rig.bring("a", &ping(1));
    assert_eq!(rig.log.take(), [format!("at once {}", ping(1))]);
    assert_eq!(rig.bridge.in_flight(), 1);
}

#[test]
fn a_child_that_does_not_read_gets_it_later_and_in_order() {
    let (mut rig, has_room) = connected();
    has_room.store(false, Ordering::Relaxed);
    rig.bring("a", &ping(1));
    has_room.store(true, Ordering::Relaxed);
    rig.bring("b", &ping(2)); // would overtake the first
    assert_eq!(rig.log.take(), [""; 0]);
    assert!(rig.bridge.in_flight() >= 2);
    assert_eq!(rig.next_queued(), ping(1));
    rig.bring("c", &ping(3)); // the first is not known to be written yet
    assert_eq!(rig.next_queued(), ping(2));
    assert_eq!(rig.next_queued(), ping(3));
    assert_eq!(rig.log.take(), [""; 0]);
}

#[test]
fn the_way_is_free_again_when_the_queue_is_empty() {
    let (mut rig, has_room) = connected();
    has_room.store(false, Ordering::Relaxed);
    rig.bring("a", &ping(1));
    assert_eq!(rig.next_queued(), ping(1));
    // The writer thread comes back for more, and finds only this, which needs no line.
    rig.bring("b", "not JSON");
    rig.bridge.close();
    assert_eq!(rig.outbound.next(), None);
    assert_eq!(rig.bridge.lane.queued(), 0);
}

#[test]
fn a_large_body_is_left_to_the_writer_thread() {
    let (mut rig, _) = connected();
    let spaces = " ".repeat(SMALL_BODY_BYTES);
    rig.bring("a", &format!("{}{spaces}", ping(1)));
    rig.bring("b", &ping(2));
    assert_eq!(rig.log.take(), [""; 0]);
    assert_eq!(rig.next_queued(), ping(1));
    assert_eq!(rig.next_queued(), ping(2));
}

#[test]
fn before_the_child_runs_everything_is_queued() {
    let mut rig = Rig::initialized("2025-11-25");
    rig.bring("a", &ping(1));
    assert_eq!(rig.log.take(), [""; 0]);
    assert!(rig.bridge.in_flight() > 0);
    assert_eq!(rig.next_queued(), ping(1));
}

#[test]
fn a_full_queue_takes_no_more() {
    let mut rig = Rig::initialized("2025-11-25");
    for n in 0..INBOX_LEN {
        rig.bring("a", &ping(n));
    }
    assert_eq!(rig.log.take(), [""; 0]);
    rig.bring("b", &ping(1000));
    assert_eq!(rig.log.take(), ["b refused id=1000 TooManyInFlight"]);
    assert_eq!(rig.next_queued(), ping(0));
    rig.bring("b", &ping(1001));
    assert_eq!(rig.log.take(), [""; 0]);
}

#[test]
fn what_is_queued_when_the_session_ends_is_refused() {
    let mut rig = Rig::initialized("2025-11-25");
    rig.bring("a", &ping(1));
    rig.bridge.close();
    rig.service();
    assert_eq!(rig.outbound.next(), None);
    assert_eq!(rig.log.take(), ["a refused id=1 SessionEnded"]);
    rig.bring("b", &ping(2));
    assert_eq!(rig.log.take(), ["b refused id=2 SessionEnded"]);
}

#[test]
fn what_comes_when_the_writer_thread_has_gone_is_refused() {
    let Rig {
        bridge,
        outbound,
        log,
        ..
    } = Rig::initialized("2025-11-25");
    drop(outbound);
    let mut rig = Rig::initialized("2025-11-25");
    let exchange = rig.exchange("a", Some(ping(1).as_bytes()));
    bridge.post(FIRST_TENANT, exchange);
    assert_eq!(rig.log.take(), ["a refused id=1 SessionEnded"]);
    assert_eq!(log.take(), [""; 0]);
    assert_eq!(bridge.in_flight(), 0);
}

/// Passes on what it is told; what the child says it answers as it is told to.
struct Relay<F>(F);

impl<F: FnMut(&str) -> Vec<Out> + Send> Translator for Relay<F> {
    fn begin(&mut self, _now: Instant, _out: &mut Vec<Out>) {}

    fn client_says(&mut self, line: &str, _now: Instant, out: &mut Vec<Out>) {
        out.push(Out::Child(line.to_owned()));
    }

    fn child_says(&mut self, line: &str, _now: Instant, out: &mut Vec<Out>) {
        out.extend((self.0)(line));
    }

    fn due(&self) -> Option<Instant> {
        None
    }

    fn tick(&mut self, _now: Instant, _out: &mut Vec<Out>) {}
}

/// A bridge whose child takes no line at once, with a translator.
fn translated(hear: impl FnMut(&str) -> Vec<Out> + Send + 'static) -> Rig {
    let (rig, has_room) = connected();
    has_room.store(false, Ordering::Relaxed);
    rig.bridge.lane.install(|_| Box::new(Relay(hear)));
    rig
}

#[test]
fn late_lines_leave_the_inbox_to_requests() {
    let (mut rig, has_room) = connected();
    has_room.store(false, Ordering::Relaxed);
    let lane = Arc::clone(&rig.bridge.lane);
    lane.say("0", rig.now);
    for n in 1..=2 * INBOX_LEN {
        lane.say(&n.to_string(), rig.now);
        // Another has come before the writer thread comes back.
        assert!(lane.take_late().is_some());
        lane.written();
    }
    assert!(lane.take_late().is_some());
    lane.written();
    assert!(lane.is_quiet());
    rig.bring("a", &ping(1)); // cannot be written at once
    rig.bring("b", &ping(2));
    assert_eq!(rig.log.take(), [""; 0]);
    assert_eq!(rig.next_queued(), ping(1));
    assert_eq!(rig.next_queued(), ping(2));
}

/// Does something else before its body has come.
struct Slow {
    inner: Box<FakeExchange>,
    meanwhile: Option<Box<dyn FnOnce() + Send>>,
}

impl Exchange for Slow {
    fn body_len(&self) -> usize {
        SMALL_BODY_BYTES + 1
    }

    fn body(&mut self) -> io::Result<Vec<u8>> {
        self.meanwhile.take().into_iter().for_each(|it| it());
        self.inner.body()
    }

    fn connection(&self) -> u64 {
        self.inner.connection()
    }

    fn mirrored(&self) -> Option<&Mirrored> {
        self.inner.mirrored()
    }

    fn reply(self: Box<Self>, reply: Reply<'_>) {
        self.inner.reply(reply);
    }

    fn stream(self: Box<Self>, session: Option<&str>) -> io::Result<Box<dyn EventWriter>> {
        self.inner.stream(session)
    }
}

#[test]
fn the_writer_thread_does_not_overtake_late_lines() {
    let mut rig = translated(|_| vec![Out::Child("initialized".to_owned())]);
    let lane = Arc::clone(&rig.bridge.lane);
    let slow = Slow {
        inner: rig.exchange("a", Some(ping(1).as_bytes())),
        meanwhile: Some(Box::new(move || {
            lane.hear("ready", Instant::now());
        })),
    };
    rig.bridge.post(rig.tenant, Box::new(slow));
    assert_eq!(rig.next_queued(), format!("initialized\n{}", ping(1)));
    rig.bring("b", "not JSON");
    rig.bridge.close();
    assert_eq!(rig.outbound.next(), None);
    assert_eq!(rig.bridge.lane.queued(), 0);
}

#[test]
fn a_request_is_translated_before_anybody_can_end_it() {
    let mut rig = translated(|_| Vec::new());
    let (lane, front) = (Arc::clone(&rig.bridge.lane), Arc::clone(&rig.bridge.front));
    let before = front.in_flight();
    let reader = crate::thread::spawn_brief("reader", {
        let lane = Arc::clone(&lane);
        move || {
            // As soon as the request is entered.
            let deadline = Instant::now() + Duration::from_secs(10);
            while front.in_flight() == before && Instant::now() < deadline {
                std::thread::yield_now();
            }
            lane.say("cancelled", Instant::now());
        }
    });
    let exchange = rig.exchange("a", Some(ping(1).as_bytes()));
    rig.bridge.post(rig.tenant, exchange);
    let mut lines = rig.next_queued();
    reader.unwrap().join().unwrap();
    if lines == ping(1) {
        lines = format!("{lines}\n{}", rig.next_queued());
    }
    assert_eq!(lines, format!("{}\ncancelled", ping(1)));
}

#[test]
fn a_child_that_does_not_read_what_it_asks_for_is_given_up() {
    let mut rig = translated(|line| vec![Out::Child(format!("pong {line}"))]);
    for _ in 0..MAX_ASKED_LINES {
        let heard = rig.bridge.lane.hear(&ping(7), rig.now);
        assert_eq!(heard.failed, None);
    }
    // What it did not ask for has its own bounds.
    rig.bridge.lane.say("a client has gone", rig.now);
    let queued = rig.bridge.lane.queued();
    assert_eq!(queued, MAX_ASKED_LINES + 1);
    rig.child(&ping(7));
    assert_eq!(rig.log.take(), ["ended: it does not read what it asks for"]);
    assert_eq!(rig.bridge.lane.queued(), queued);
}

#[test]
fn a_child_that_asks_with_long_lines_is_given_up_sooner() {
    let rig = translated(|line| vec![Out::Child(line.to_owned())]);
    let long = "x".repeat(1024 * 1024);
    for _ in 0..4 {
        assert_eq!(rig.bridge.lane.hear(&long, rig.now).failed, None);
    }
    let heard = rig.bridge.lane.hear("x", rig.now);
    assert_eq!(
        heard.failed.map(|it| it.why),
        Some("does not read what it asks for")
    );
    // Once it reads, all is well again.
    assert!(rig.bridge.lane.take_late().is_some());
    assert_eq!(rig.bridge.lane.hear("x", rig.now).failed, None);
}

#[test]
fn nobody_who_brings_a_request_waits_for_a_translation() {
    let (entered, has_entered) = crossbeam_channel::bounded(1);
    let (release, is_released) = crossbeam_channel::bounded::<()>(1);
    let mut rig = translated(move |_| {
        let _ = entered.send(());
        let _ = is_released.recv_timeout(Duration::from_secs(10));
        Vec::new()
    });
    let lane = Arc::clone(&rig.bridge.lane);
    let reader = crate::thread::spawn_brief("reader", move || {
        lane.hear("long", Instant::now());
        Instant::now()
    });
    has_entered.recv_timeout(Duration::from_secs(10)).unwrap();
    rig.bring("a", &ping(1));
    let in_flight = rig.bridge.in_flight();
    let is_back = Instant::now();
    release.send(()).unwrap();
    assert!(reader.unwrap().join().unwrap() > is_back);
    assert_eq!(in_flight, 1);
    assert_eq!(rig.next_queued(), ping(1));
}
