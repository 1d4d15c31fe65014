//! The way to the child, and the translator that stands in it where the two sides speak different
//! eras.
//!
//! Mostly the way is free and the child reads; then whoever brings a small request writes it, which
//! spares a change of threads. Everything else queues up for the writer thread, and as long as
//! anything does, nothing overtakes it. The lock is held over a write that cannot wait, so that two
//! lines never mix, and over entering a request and translating it, so that both sides see one
//! order.
//!
//! Locks are taken in this order: the way; the front's own (`desk`, `table`); the inbox, what is
//! due, errands, under which nothing is locked. Whoever holds one of the later ones must not ask
//! for the way. The acceptor thread only tries the way: a long message may be under translation.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::{Mutex, MutexGuard};

use super::outbound::Taken;
use super::{Exchange, Front, Refusal, refuse, refuse_first};
use crate::translate::{Failure, Out, Translator};

/// What waits for the writer thread; more is refused.
pub(super) const INBOX_LEN: usize = 32;
/// A body up to this size has come together with its head, so taking it costs no waiting.
pub(super) const SMALL_BODY_BYTES: usize = 1024;

/// Of what the child asks for and does not read.
pub(super) const MAX_ASKED_LINES: usize = 1024;
/// In bytes of the lines that it asked with: those wait for it, and what it gets is no longer.
const MAX_ASKED_BYTES: usize = 4 * 1024 * 1024;

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
    /// There is something in [`Way::late`].
    Late,
}

/// What the child's lines have become for the client's side.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) lines: Vec<String>,
    /// The child cannot be served from: why.
    pub(super) failed: Option<Failure>,
    /// The translator has begun to serve from the child.
    pub(super) is_ready: bool,
    /// When [`Lane::tick`] has something to do.
    pub(super) due: Option<Instant>,
}

pub(super) struct Lane {
    way: Mutex<Way>,
    /// `None` once the bridge is closed.
    inbox: Mutex<Option<Sender<Box<Outgoing>>>>,
    /// When [`Lane::tick`] has something to do.
    due: Mutex<Option<Instant>>,
    /// What the writer thread was given and has not written yet.
    queued: AtomicUsize,
    /// The child is yet to be told what another one knew: nothing may overtake that.
    is_prompting: AtomicBool,
    is_translating: AtomicBool,
}

struct Way {
    /// `None` until the child runs.
    write_now: Option<WriteNow>,
    translator: Option<Box<dyn Translator>>,
    /// Lines of threads that must not wait. The writer thread looks here before it takes anything
    /// else.
    late: VecDeque<Late>,
    /// The writer thread is told of them; once is enough.
    is_announced: bool,
    /// What the child has asked for, of `late`.
    asked_lines: usize,
    asked_bytes: usize,
}

struct Late {
    bytes: Vec<u8>,
    /// The length of the line of the child that it answers; 0 if the child did not ask for it, and
    /// then whoever made it is bounded.
    asked: usize,
}

impl Lane {
    pub(super) fn new(is_prompting: bool) -> (Self, Inbox) {
        let (sender, receiver) = bounded(INBOX_LEN);
        let lane = Self {
            way: Mutex::new(Way {
                write_now: None,
                translator: None,
                late: VecDeque::new(),
                is_announced: false,
                asked_lines: 0,
                asked_bytes: 0,
            }),
            inbox: Mutex::new(Some(sender)),
            due: Mutex::new(None),
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
        let is_small = exchange.body_len() <= SMALL_BODY_BYTES;
        let way = match is_small && self.is_quiet() {
            true => self.way.try_lock(),
            false => None,
        };
        match way {
            Some(way) if way.write_now.is_some() && self.is_quiet() && self.is_open() => {
                self.write(way, front, tenant, exchange);
            }
            way => {
                drop(way);
                self.queue(front, tenant, exchange);
            }
        }
    }

    fn write(
        &self,
        mut way: MutexGuard<'_, Way>,
        front: &dyn Front,
        tenant: u64,
        mut exchange: Box<dyn Exchange>,
    ) {
        let now = Instant::now();
        let body = exchange.body();
        match front.accept(tenant, exchange, body, now) {
            Some(Taken::Line(line)) => {
                let (bytes, heard) = self.translate(&mut way, line, now);
                self.pass_on(&mut way, bytes, 0);
                drop(way);
                hand_in(front, heard);
            }
            Some(Taken::Aside(aside)) => {
                drop(way);
                front.run_aside(aside);
            }
            None => {}
        }
    }

    /// Leaves a POST to the writer thread.
    fn queue(&self, front: &dyn Front, tenant: u64, exchange: Box<dyn Exchange>) {
        let inbox = self.inbox.lock();
        let Some(sender) = &*inbox else {
            drop(inbox);
            let (why, told_first) = front.why_closed_to(tenant);
            return refuse_first(exchange, why, told_first);
        };
        let outgoing = Box::new(Outgoing::Request { exchange, tenant });
        self.queued.fetch_add(1, Ordering::AcqRel);
        let (outgoing, is_full) = match sender.try_send(outgoing) {
            Ok(()) => return,
            Err(TrySendError::Full(outgoing)) => (outgoing, true),
            Err(TrySendError::Disconnected(outgoing)) => (outgoing, false),
        };
        self.queued.fetch_sub(1, Ordering::AcqRel);
        drop(inbox);
        if let Outgoing::Request { exchange, .. } = *outgoing {
            let why = match is_full {
                true => Refusal::TooManyInFlight,
                false => front.why_closed(),
            };
            refuse(exchange, why);
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.inbox.lock().is_some()
    }

    /// Gives the child a line of the reader thread: a message of ours, or of the client's side.
    pub(super) fn say(&self, line: &str, now: Instant) -> Heard {
        let mut way = self.way.lock();
        let (bytes, heard) = self.translate(&mut way, format!("{line}\n").into_bytes(), now);
        self.pass_on(&mut way, bytes, 0);
        heard
    }

    /// What the writer thread shall write for a POST. It is entered and translated in one go, so
    /// that what the reader thread has said before it comes before it, and what ends it after it.
    pub(super) fn take(
        &self,
        front: &dyn Front,
        tenant: u64,
        mut exchange: Box<dyn Exchange>,
    ) -> Vec<u8> {
        // With no lock held, as it may take its time.
        let body = exchange.body();
        let mut way = self.way.lock();
        let now = Instant::now();
        let taken = front.accept(tenant, exchange, body, now);
        let mut bytes = Vec::new();
        while let Some(late) = way.pop_late() {
            bytes.extend(late);
            self.queued.fetch_sub(1, Ordering::AcqRel);
        }
        match taken {
            Some(Taken::Line(line)) => {
                let (line, heard) = self.translate(&mut way, line, now);
                drop(way);
                hand_in(front, heard);
                match bytes.is_empty() {
                    true => return line,
                    false => bytes.extend(line),
                }
            }
            Some(Taken::Aside(aside)) => {
                drop(way);
                front.run_aside(aside);
            }
            None => {}
        }
        bytes
    }

    /// What the writer thread shall write of a line.
    pub(super) fn outgoing(&self, front: &dyn Front, line: Vec<u8>) -> Vec<u8> {
        if !self.is_translating() {
            return line;
        }
        let (bytes, heard) = self.translate(&mut self.way.lock(), line, Instant::now());
        hand_in(front, heard);
        bytes
    }

    pub(super) fn take_late(&self) -> Option<Vec<u8>> {
        match self.queued.load(Ordering::Acquire) {
            0 => None,
            _ => self.way.lock().pop_late(),
        }
    }

    /// The writer thread has heard of late lines.
    pub(super) fn heard_of_late(&self) {
        self.way.lock().is_announced = false;
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
        let asked = line.len();
        self.with_translator(asked, |it, out| it.child_says(line, now, out))
    }

    /// Time has passed, on the reader thread.
    pub(super) fn tick(&self, now: Instant) -> Heard {
        self.with_translator(0, |it, out| {
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
        let (bytes, heard) = self.sort(out, &*translator);
        way.translator = Some(translator);
        self.is_translating.store(true, Ordering::Release);
        self.pass_on(&mut way, bytes, 0);
        heard
    }

    fn with_translator(
        &self,
        asked: usize,
        run: impl FnOnce(&mut dyn Translator, &mut Vec<Out>),
    ) -> Heard {
        let mut way = self.way.lock();
        let Some(translator) = way.translator.as_deref_mut() else {
            return Heard::default();
        };
        let mut out = Vec::new();
        run(translator, &mut out);
        let (bytes, mut heard) = self.sort(out, translator);
        if !self.pass_on(&mut way, bytes, asked) {
            heard.failed.get_or_insert(Failure {
                why: "does not read what it asks for",
                said: None,
            });
        }
        heard
    }

    /// What becomes of a line of the client's side, or of several in one.
    fn translate(&self, way: &mut Way, line: Vec<u8>, now: Instant) -> (Vec<u8>, Heard) {
        let Some(translator) = way.translator.as_deref_mut() else {
            return (line, Heard::default());
        };
        let mut out = Vec::new();
        // Mostly it is UTF-8, which is found out faster without the rest in mind.
        let text = str::from_utf8(&line).map(Cow::Borrowed);
        let text = text.unwrap_or_else(|_| String::from_utf8_lossy(&line));
        for line in text.lines() {
            translator.client_says(line, now, &mut out);
        }
        self.sort(out, translator)
    }

    fn sort(&self, out: Vec<Out>, translator: &dyn Translator) -> (Vec<u8>, Heard) {
        let mut bytes = Vec::new();
        let due = translator.due();
        *self.due.lock() = due;
        let mut heard = Heard {
            due,
            is_ready: translator.is_ready(),
            ..Heard::default()
        };
        for out in out {
            match out {
                Out::Child(line) => {
                    bytes.extend_from_slice(line.as_bytes());
                    bytes.push(b'\n');
                }
                Out::Client(line) => heard.lines.push(line),
                Out::Failed(why) => heard.failed = Some(why),
            }
        }
        (bytes, heard)
    }

    /// Writes bytes if the way is free, else leaves them to the writer thread. False if too much
    /// that the child has asked for waits there already.
    fn pass_on(&self, way: &mut Way, bytes: Vec<u8>, asked: usize) -> bool {
        if bytes.is_empty() || (self.is_quiet() && way.write(&bytes)) {
            return true;
        }
        if asked > 0 && way.is_overfull() {
            return false;
        }
        way.push_late(Late { bytes, asked });
        self.queued.fetch_add(1, Ordering::AcqRel);
        if !way.is_announced
            && let Some(inbox) = &*self.inbox.lock()
        {
            // If it is full, the writer thread comes by anyway.
            way.is_announced = inbox.try_send(Box::new(Outgoing::Late)).is_ok();
        }
        true
    }

    pub(super) fn is_translating(&self) -> bool {
        self.is_translating.load(Ordering::Acquire)
    }

    /// When [`Lane::tick`] has something to do: a call waits for answers of its client.
    pub(super) fn due(&self) -> Option<Instant> {
        *self.due.lock()
    }

    /// Whether nothing is on its way to the writer thread, or with it.
    pub(super) fn is_quiet(&self) -> bool {
        !self.is_prompting.load(Ordering::Acquire) && self.queued() == 0
    }

    /// Whether nothing is on its way to the child, nor being written to it. Never waits.
    pub(super) fn is_at_rest(&self) -> bool {
        let way = self.way.try_lock();
        way.is_some() && self.is_open() && self.is_quiet()
    }

    pub(super) fn queued(&self) -> usize {
        self.queued.load(Ordering::Acquire)
    }

    /// Lets go of a session, if nothing of it is on its way: as long as the lock is held, nobody is
    /// between entering a message and writing it.
    pub(super) fn park(&self, front: &dyn Front) -> bool {
        let mut way = self.way.lock();
        if !self.is_open() || !self.is_quiet() {
            return false;
        }
        let Some(ping) = front.park() else {
            return false;
        };
        let (bytes, heard) = self.translate(&mut way, ping, Instant::now());
        self.pass_on(&mut way, bytes, 0);
        drop(way);
        hand_in(front, heard);
        front.let_go();
        true
    }

    /// Nothing is taken any more, and the writer thread comes to its end.
    pub(super) fn close(&self) {
        *self.inbox.lock() = None;
    }
}

impl Way {
    fn write(&self, bytes: &[u8]) -> bool {
        self.write_now.as_ref().is_some_and(|write| write(bytes))
    }

    fn push_late(&mut self, late: Late) {
        self.asked_lines += usize::from(late.asked > 0);
        self.asked_bytes += late.asked;
        self.late.push_back(late);
    }

    fn pop_late(&mut self) -> Option<Vec<u8>> {
        let late = self.late.pop_front()?;
        self.asked_lines -= usize::from(late.asked > 0);
        self.asked_bytes -= late.asked;
        Some(late.bytes)
    }

    fn is_overfull(&self) -> bool {
        self.asked_lines >= MAX_ASKED_LINES || self.asked_bytes >= MAX_ASKED_BYTES
    }
}

/// Gives the reader thread what another thread's line has become.
fn hand_in(front: &dyn Front, heard: Heard) {
    if !heard.lines.is_empty() || heard.failed.is_some() || heard.due.is_some() {
        front.hand_in(heard);
    }
}
