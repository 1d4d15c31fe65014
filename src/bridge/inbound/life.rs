//! How a child starts and ends, as its clients learn of it.

use std::time::Instant;

use super::SessionInbound;
use crate::bridge::words::last_words;
use crate::bridge::{End, Inbound, Reply};
use crate::jsonrpc::{self, Kind, Message, code};
use crate::translate::Failure;

impl SessionInbound {
    /// The child has ended: the session is told, and everybody who waits learns how. In this
    /// order, so that whoever learns it finds the slot free.
    pub(super) fn child_exited(&mut self, reason: &str, now: Instant) {
        let server = self.shared.options.server.clone();
        self.give_up_second_try(now);
        let is_starting = self.shared.table.lock().is_starting();
        let stderr = last_words(&self.shared.options);
        let (why, ended) = (reason.to_owned(), format!("server \"{server}\" ended"));
        if is_starting {
            let detail = format!("{ended} before it answered initialize: {reason}{stderr}");
            self.fail_start(why, detail, now);
        } else {
            let detail = format!("{ended}: {reason}{stderr}");
            self.shared.options.host.ended(End::Exited { why, detail });
            self.end_all(|_| format!("{ended}: {reason}"), now);
        }
        // What came in meanwhile.
        self.service(now);
    }

    /// The answer to a request of ours, or to nobody's.
    pub(super) fn answer_of_replay(&mut self, message: &Message<'_>, now: Instant) {
        if self.shared.table.lock().take_probe(&message.id) {
            return self.tell_parked();
        }
        let label = &self.shared.options.label;
        let Some(prompter) = self.prompter.take_if(|it| it.awaits(&message.id)) else {
            return log::debug!("child {label} answered nobody's request");
        };
        let server = &self.shared.options.server;
        let Some(result) = message.result else {
            let detail = format!("server \"{server}\" refused to initialize again");
            return self.fail_start("it refused to initialize again".to_owned(), detail, now);
        };
        let is_same = self.shared.table.lock().end_replay(result);
        if !is_same {
            let detail = format!("server \"{server}\" speaks another protocol version than it did");
            let why = "it speaks another protocol version than the one before it";
            return self.fail_start(why.to_owned(), detail, now);
        }
        let (session, handshake) = {
            let table = self.shared.table.lock();
            (table.session.clone(), table.handshake.clone())
        };
        self.shared.options.host.changed(&session, &handshake);
        prompter.go_on();
    }

    /// The translator cannot serve anybody from this child.
    pub(super) fn fail_translated(&mut self, failure: &Failure, now: Instant) {
        let options = &self.shared.options;
        let told = failure.told(&*options.redact);
        let detail = format!("server \"{}\" cannot be used: it {told}", options.server);
        self.fail_start(format!("it {}", failure.why), detail, now);
    }

    pub(super) fn refused_to_start(&self) {
        let server = &self.shared.options.server;
        self.shared.options.host.ended(End::StartFailed {
            why: "it refused to initialize".to_owned(),
            detail: format!("server \"{server}\" refused to initialize"),
        });
    }

    /// The child is of no use: the session is told, and then everybody who waits.
    fn fail_start(&mut self, why: String, detail: String, now: Instant) {
        self.shared.table.lock().fail_start(&detail);
        let server = self.shared.options.server.clone();
        let others = format!("server \"{server}\" ended: {why}");
        self.shared.options.host.ended(End::StartFailed {
            why,
            detail: detail.clone(),
        });
        self.end_all(
            |is_initialize| match is_initialize {
                true => detail.clone(),
                false => others.clone(),
            },
            now,
        );
    }

    /// Lets go of all that belongs to the session that has ended.
    pub(super) fn park(&mut self, now: Instant) {
        for mut stream in std::mem::take(&mut self.streams) {
            stream.end(now);
        }
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.shared.table.lock().emptied();
        self.tell_parked();
    }

    /// Says whether another session can have the child, once that is known: it may have asked
    /// something just before, or not have answered the ping yet.
    fn tell_parked(&self) {
        let is_free = self.shared.table.lock().is_free();
        if let Some(is_free) = is_free {
            self.shared.options.host.parked(is_free);
        }
    }

    /// What the child says between two sessions is for nobody; and if it asks something, it is not
    /// as new.
    pub(super) fn late(&mut self, message: &Message<'_>) {
        log::debug!(
            "child {} speaks between sessions",
            self.shared.options.label
        );
        if message.kind == Kind::Request {
            self.shared.table.lock().overhear(message);
            self.shared.options.host.parked(false);
        }
    }

    /// A child that does not answer `initialize` has not started.
    pub(super) fn fail_late_start(&mut self, now: Instant) {
        let timeout = self.shared.options.start_timeout;
        if !self.shared.table.lock().start_overdue(timeout, now) {
            return;
        }
        if self.give_up_second_try(now) {
            return;
        }
        let server = self.shared.options.server.clone();
        let stderr = last_words(&self.shared.options);
        let seconds = timeout.as_secs();
        let detail =
            format!("server \"{server}\" did not answer initialize in {seconds} s{stderr}");
        self.fail_start(
            "it did not answer initialize in time".to_owned(),
            detail,
            now,
        );
    }

    /// Answers everybody with an error, and ends all streams.
    pub(super) fn end_all(&mut self, message: impl Fn(bool) -> String, now: Instant) {
        let orphans = self.shared.table.lock().close();
        // The writer thread need not wait for the answer to a replay any more.
        self.prompter = None;
        for (id_text, claimed) in orphans {
            let message = message(claimed.is_initialize);
            match claimed.only {
                Some(Some(exchange)) if claimed.is_initialize => {
                    // That of the child, or whatever else has ended the session.
                    let why = self.shared.table.lock().why_closed().told_early();
                    exchange.reply(Reply::Refused { id: &id_text, why });
                }
                _ => {
                    let json = jsonrpc::error_response(&id_text, code::SERVER_ERROR, &message);
                    self.deliver(claimed, &json, false, now);
                }
            }
        }
        for mut stream in std::mem::take(&mut self.streams) {
            stream.end(now);
        }
    }
}
