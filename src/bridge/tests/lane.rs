//! The way of a POST to the child: written at once where that takes no waiting, else queued, and
//! never overtaken.

use super::super::lane::INBOX_LEN;
use super::*;

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
