//! The pool in front of a listener that the test speaks for.

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::thread::{self, Joined};

/// Where tiny_http would listen.
struct Far {
    listener: UnixListener,
    path: PathBuf,
}

impl Far {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let no = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mcp-broker-pool-{}-{no}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        let listener = UnixListener::bind(&path).unwrap();
        Self { listener, path }
    }

    /// The next connection that asks for its proof; pokes are passed over.
    fn asked(&self) -> UnixStream {
        loop {
            let (mut stream, _) = self.listener.accept().unwrap();
            let mut bytes = vec![0; PROOF_REQUEST.len()];
            if stream.read_exact(&mut bytes).is_ok() {
                assert_eq!(bytes, PROOF_REQUEST);
                return stream;
            }
        }
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn answer(mut stream: &UnixStream) {
    let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
    stream.write_all(answer).unwrap();
}

fn open(pool: &Arc<Pool>, stopping: &Arc<AtomicBool>) -> Joined<io::Result<UnixStream>> {
    let (pool, stopping) = (Arc::clone(pool), Arc::clone(stopping));
    thread::spawn("open", move || pool.get(&stopping)).unwrap()
}

fn await_line(pool: &Pool, len: usize) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while pool.turnstile.len() < len {
        assert!(Instant::now() < deadline, "they do not stand in line");
        std::thread::yield_now();
    }
}

/// As many as may wait behind one that is slow: their connections are opened together, so none
/// waits for the answers to all the others.
#[test]
fn who_waits_is_served_with_others() {
    let (far, stopping) = (Far::new(), Arc::default());
    let pool = Arc::new(Pool::new(far.path.clone()));
    let first = open(&pool, &stopping);
    let slow = far.asked();
    let others: Vec<_> = (0..TOGETHER_MAX + 5)
        .map(|_| open(&pool, &stopping))
        .collect();
    await_line(&pool, others.len());
    answer(&slow);
    first.join().unwrap().unwrap();
    for count in [TOGETHER_MAX, 5] {
        // No one is answered before all have asked.
        let together: Vec<_> = (0..count).map(|_| far.asked()).collect();
        together.iter().for_each(answer);
    }
    for other in others {
        other.join().unwrap().unwrap();
    }
}

#[test]
fn one_that_fails_takes_no_other_along() {
    let (far, stopping) = (Far::new(), Arc::default());
    let pool = Arc::new(Pool::new(far.path.clone()));
    let first = open(&pool, &stopping);
    let slow = far.asked();
    let others = [open(&pool, &stopping), open(&pool, &stopping)];
    await_line(&pool, others.len());
    drop(slow);
    assert!(first.join().unwrap().is_err());
    drop(far.asked());
    answer(&far.asked());
    let opened = others.map(|other| other.join().unwrap().is_ok());
    assert_eq!(opened.iter().filter(|is_ok| **is_ok).count(), 1);
}

#[test]
fn nobody_waits_for_a_connection_of_an_edge_that_stops() {
    let (far, stopping) = (Far::new(), Arc::new(AtomicBool::new(false)));
    let pool = Arc::new(Pool::new(far.path.clone()));
    let first = open(&pool, &stopping);
    let _never_answered = far.asked();
    let other = open(&pool, &stopping);
    await_line(&pool, 1);
    stopping.store(true, Ordering::Release);
    for waiting in [first, other] {
        assert!(waiting.join().unwrap().is_err());
    }
}

/// All the time may go into connecting to somebody who takes no more connections.
#[test]
fn an_answer_that_came_while_others_were_connected_is_taken() {
    let far = Far::new();
    socket2::SockRef::from(&far.listener).listen(0).unwrap();
    let pool = Pool::new(far.path.clone());
    let serving = thread::spawn("far", move || {
        let first = far.asked();
        answer(&first);
        (far, first)
    });
    let mut served = 0;
    let deadline = Instant::now() + Duration::from_secs(1);
    let opened = pool.open_together(8, deadline, &AtomicBool::new(false), |_| served += 1);
    assert!(opened.is_err());
    assert_eq!(served, 1);
    drop(serving);
}
