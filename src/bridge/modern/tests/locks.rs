//! Which thread waits for which.

use super::*;
use crate::thread;

/// Whoever asks how much is in flight holds none of the locks that a POST takes while it asks for
/// another, and waits for no write.
#[test]
fn counting_waits_for_no_post() {
    let mut rig = Rig::legacy();
    let (counter, log) = (Arc::downgrade(&rig.bridge), rig.log.clone());
    rig.bridge.connect(Box::new(move |_| {
        let (answer, counted) = crossbeam_channel::bounded(1);
        let counter = Weak::clone(&counter);
        let thread = thread::spawn_brief("count", move || {
            let bridge = counter.upgrade()?;
            answer.send((bridge.in_flight(), bridge.has_clients())).ok()
        });
        let counted = counted.recv_timeout(Duration::from_secs(10));
        if counted.is_err() {
            std::mem::forget(thread); // joining it would hang, too
        }
        log.note(format!("{counted:?}"));
        true
    }));
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{{"name":"p","_meta":{{{META}}}}}}}"#
    );
    let exchange = rig.exchange("a", Some(&body));
    rig.bridge.post(0, exchange);
    assert_eq!(rig.log.take(), ["Ok((1, true))"]);
}

#[test]
fn counting_and_posting_go_on_side_by_side() {
    const ROUNDS: usize = 2000;
    let mut rig = Rig::legacy();
    let bridge = Arc::clone(&rig.bridge);
    let (done, is_done) = crossbeam_channel::bounded(1);
    let counter = thread::spawn_brief("count", move || {
        for _ in 0..ROUNDS {
            bridge.in_flight();
        }
        let _ = done.send(());
    });
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{{"name":"p","_meta":{{{META}}}}}}}"#
    );
    let exchanges: Vec<_> = (0..ROUNDS)
        .map(|_| rig.exchange("a", Some(&body)))
        .collect();
    let (bridge, (posted, is_posted)) = (Arc::clone(&rig.bridge), crossbeam_channel::bounded(1));
    let poster = thread::spawn_brief("post", move || {
        for exchange in exchanges {
            bridge.post(0, exchange);
        }
        let _ = posted.send(());
    });
    let limit = Duration::from_secs(30);
    if is_done.recv_timeout(limit).is_err() || is_posted.recv_timeout(limit).is_err() {
        std::mem::forget((counter, poster)); // joining them would hang, too
        panic!("they wait for each other");
    }
}
