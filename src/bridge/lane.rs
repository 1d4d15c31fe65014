//! The way to the child, and the translator that stands in it where the two sides speak different
//! eras.
//!
//! Mostly the way is free and the child reads; then whoever brings a small request writes it, which
//! spares a change of threads. Everything else queues up for the writer thread, and as long as
//! anything does, nothing overtakes it. The lock is held over a write that cannot wait, so that two
//! lines never mix, and over the translation of a line, so that both sides see one order.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::Mutex;

use super::outbound::Taken;
use super::{Exchange, Front, Refusal, refuse, refuse_first};
use crate::translate::{Failure, Out, Translator};

/// What waits for the writer thread; more is refused.
pub(super) const INBOX_LEN: usize = 32;
/// A body up to this size has come together with its head, so taking it costs no waiting.
pub(super) const SMALL_BODY_BYTES: usize = 1024;

/// Writes bytes to the child if that takes no waiting; false if none of them was written.
pub(crate) type WriteNow = Box<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// The writer thread's end of the inbox. Its slots are there from the start, and mostly empty.
pub(super) type Inbox = Receiver<Box<Outgoing>>;

/// What the writer thread takes.
pub(super) enum Outgoing {
    Request {
        exchange: Box<dyn Exchange>,
        tenant: u64,
    },
    /// Its requests are entered already.
    Line(Vec<u8>),
    /// There is something in [`Way::late`].
    Late,
}

/// What the child's lines have become for the client's side.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) lines: Vec<String>,
    /// The child cannot be served from: why.
    pub(super) failed: Option<Failure>,
    /// When [`Lane::tick`] has something to do.
    pub(super) due: Option<Instant>,
}

pub(super) struct Lane {
    way: Mutex<Way>,
    /// What the writer thread was given and has not written yet.
    queued: AtomicUsize,
    /// The child is yet to be told what another one knew: nothing may overtake that.
    is_prompting: AtomicBool,
    is_translating: AtomicBool,
}

struct Way {
    /// `None` once the bridge is closed.
    inbox: Option<Sender<Box<Outgoing>>>,
    /// `None` until the child runs.
    write_now: Option<WriteNow>,
    translator: Option<Box<dyn Translator>>,
    /// Lines of the reader thread, which must not wait. Whoever makes them is bounded, and the
    /// writer thread looks here before it takes anything else.
    late: VecDeque<Vec<u8>>,
}

impl Lane {
    pub(super) fn new(is_prompting: bool) -> (Self, Inbox) {
        let (sender, receiver) = bounded(INBOX_LEN);
        let lane = Self {
            way: Mutex::new(Way {
                inbox: Some(sender),
                write_now: None,
                translator: None,
                late: VecDeque::new(),
            }),
            queued: AtomicUsize::new(0),
            is_prompting: AtomicBool::new(is_prompting),
            is_translating: AtomicBool::new(false),
        };
        (lane, receiver)
    }

    /// The child runs, and this writes to its stdin.
    pub(super) fn connect(&self, write_now: WriteNow) {
        self.way.lock().write_now = Some(write_now);
    }

    /// Takes a POST. Never blocks.
    pub(super) fn post(&self, front: &dyn Front, tenant: u64, exchange: Box<dyn Exchange>) {
        let mut way = self.way.lock();
        let Some(inbox) = &way.inbox else {
            drop(way);
            let (why, told_first) = front.why_closed_to(tenant);
            return refuse_first(exchange, why, told_first);
        };
        let is_free = way.write_now.is_some() && self.is_quiet();
        if is_free && exchange.body_len() <= SMALL_BODY_BYTES {
            let now = Instant::now();
            let line = match front.accept(tenant, exchange, now) {
                Some(Taken::Line(line)) => line,
                Some(Taken::Aside(aside)) => {
                    drop(way);
                    return front.run_aside(aside);
                }
                None => return,
            };
            let (bytes, heard) = way.translate(line, now);
            if !bytes.is_empty() && !way.write(&bytes) {
                // There is room: nothing is queued, and nobody else can queue now.
                self.queue(&way, Outgoing::Line(bytes));
            }
            drop(way);
            return hand_in(front, heard);
        }
        let outgoing = Box::new(Outgoing::Request { exchange, tenant });
        self.queued.fetch_add(1, Ordering::AcqRel);
        let (outgoing, is_full) = match inbox.try_send(outgoing) {
            Ok(()) => return,
            Err(TrySendError::Full(outgoing)) => (outgoing, true),
            Err(TrySendError::Disconnected(outgoing)) => (outgoing, false),
        };
        self.queued.fetch_sub(1, Ordering::AcqRel);
        drop(way);
        if let Outgoing::Request { exchange, .. } = *outgoing {
            let why = match is_full {
                true => Refusal::TooManyInFlight,
                false => front.why_closed(),
            };
            refuse(exchange, why);
        }
    }

    fn queue(&self, way: &Way, outgoing: Outgoing) {
        if let Some(inbox) = &way.inbox {
            self.queued.fetch_add(1, Ordering::AcqRel);
            let _ = inbox.try_send(Box::new(outgoing));
        }
    }

    /// Gives the child a line of the reader thread: a message of ours, or of the client's side.
    pub(super) fn say(&self, line: &str, now: Instant) -> Heard {
        let mut way = self.way.lock();
        let (bytes, heard) = way.translate(format!("{line}\n").into_bytes(), now);
        self.pass_on(&mut way, bytes);
        heard
    }

    /// What the writer thread shall write of a line.
    pub(super) fn outgoing(&self, front: &dyn Front, line: Vec<u8>) -> Vec<u8> {
        if !self.is_translating() {
            return line;
        }
        let (bytes, heard) = self.way.lock().translate(line, Instant::now());
        hand_in(front, heard);
        bytes
    }

    pub(super) fn take_late(&self) -> Option<Vec<u8>> {
        match self.queued.load(Ordering::Acquire) {
            0 => None,
            _ => self.way.lock().late.pop_front(),
        }
    }

    /// What the writer thread was given is written, or needed no writing.
    pub(super) fn written(&self) {
        self.queued.fetch_sub(1, Ordering::AcqRel);
    }

    /// The child has been told what the one before it knew.
    pub(super) fn prompted(&self) {
        self.is_prompting.store(false, Ordering::Release);
    }

    /// What becomes of a line of the child, on the reader thread.
    pub(super) fn hear(&self, line: &str, now: Instant) -> Heard {
        self.with_translator(|it, out| it.child_says(line, now, out))
    }

    /// Time has passed, on the reader thread.
    pub(super) fn tick(&self, now: Instant) -> Heard {
        self.with_translator(|it, out| {
            if it.due().is_some_and(|due| now >= due) {
                it.tick(now, out);
            }
        })
    }

    /// From now on a translator stands between the two sides; `make` may let it speak at once.
    pub(super) fn install(&self, make: impl FnOnce(&mut Vec<Out>) -> Box<dyn Translator>) -> Heard {
        let mut way = self.way.lock();
        let mut out = Vec::new();
        let translator = make(&mut out);
        let due = translator.due();
        way.translator = Some(translator);
        self.is_translating.store(true, Ordering::Release);
        let (bytes, heard) = sort(out, due);
        self.pass_on(&mut way, bytes);
        heard
    }

    fn with_translator(&self, run: impl FnOnce(&mut dyn Translator, &mut Vec<Out>)) -> Heard {
        let mut way = self.way.lock();
        let Some(translator) = way.translator.as_deref_mut() else {
            return Heard::default();
        };
        let mut out = Vec::new();
        run(translator, &mut out);
        let due = translator.due();
        let (bytes, heard) = sort(out, due);
        self.pass_on(&mut way, bytes);
        heard
    }

    /// Writes bytes if the way is free, else leaves them to the writer thread.
    fn pass_on(&self, way: &mut Way, bytes: Vec<u8>) {
        if bytes.is_empty() || (self.is_quiet() && way.write(&bytes)) {
            return;
        }
        way.late.push_back(bytes);
        self.queued.fetch_add(1, Ordering::AcqRel);
        if let Some(inbox) = &way.inbox {
            // If it is full, the writer thread comes by anyway.
            let _ = inbox.try_send(Box::new(Outgoing::Late));
        }
    }

    pub(super) fn is_translating(&self) -> bool {
        self.is_translating.load(Ordering::Acquire)
    }

    /// When [`Lane::tick`] has something to do: a call waits for answers of its client.
    pub(super) fn due(&self) -> Option<Instant> {
        if !self.is_translating() {
            return None;
        }
        self.way.lock().translator.as_ref()?.due()
    }

    /// Whether nothing is on its way to the writer thread, or with it.
    pub(super) fn is_quiet(&self) -> bool {
        !self.is_prompting.load(Ordering::Acquire) && self.queued() == 0
    }

    pub(super) fn queued(&self) -> usize {
        self.queued.load(Ordering::Acquire)
    }

    /// Lets go of a session, if nothing of it is on its way: as long as the lock is held, nobody is
    /// between entering a message and writing it.
    pub(super) fn park(&self, front: &dyn Front) -> bool {
        let mut way = self.way.lock();
        if way.inbox.is_none() || !self.is_quiet() {
            return false;
        }
        let Some(ping) = front.park() else {
            return false;
        };
        let (bytes, heard) = way.translate(ping, Instant::now());
        self.pass_on(&mut way, bytes);
        drop(way);
        hand_in(front, heard);
        front.let_go();
        true
    }

    /// Nothing is taken any more, and the writer thread comes to its end.
    pub(super) fn close(&self) {
        self.way.lock().inbox = None;
    }
}

impl Way {
    /// What becomes of a line of the client's side, or of several in one.
    fn translate(&mut self, line: Vec<u8>, now: Instant) -> (Vec<u8>, Heard) {
        let Some(translator) = self.translator.as_deref_mut() else {
            return (line, Heard::default());
        };
        let mut out = Vec::new();
        for line in String::from_utf8_lossy(&line).lines() {
            translator.client_says(line, now, &mut out);
        }
        sort(out, translator.due())
    }

    fn write(&self, bytes: &[u8]) -> bool {
        self.write_now.as_ref().is_some_and(|write| write(bytes))
    }
}

fn sort(out: Vec<Out>, due: Option<Instant>) -> (Vec<u8>, Heard) {
    let mut bytes = Vec::new();
    let mut heard = Heard {
        due,
        ..Heard::default()
    };
    for out in out {
        match out {
            Out::Child(line) => {
                bytes.extend_from_slice(line.as_bytes());
                bytes.push(b'\n');
            }
            Out::Client(line) => heard.lines.push(line),
            Out::Failed(failure) => heard.failed = Some(failure),
        }
    }
    (bytes, heard)
}

/// Gives the reader thread what another thread's line has become.
fn hand_in(front: &dyn Front, heard: Heard) {
    if !heard.lines.is_empty() || heard.failed.is_some() || heard.due.is_some() {
        front.hand_in(heard);
    }
}
