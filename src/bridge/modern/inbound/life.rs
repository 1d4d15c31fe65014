//! How a shared child fails to start, and how it ends.

use std::time::Instant;

use super::ModernInbound;
use crate::bridge::words::last_words;
use crate::bridge::{End, Refusal, Reply};
use crate::jsonrpc::{self, code};

/// How it ends for those who wait.
pub(super) enum Ending {
    /// By us.
    Closed,
    StartFailed(String),
    Exited(String),
}

impl ModernInbound {
    pub(super) fn fail_late_start(&mut self, now: Instant) {
        let timeout = self.shared.options.start_timeout;
        if !self.shared.desk.lock().start_overdue(timeout, now) {
            return;
        }
        let server = &self.shared.options.server;
        let seconds = timeout.as_secs();
        let detail = format!(
            "server \"{server}\" did not answer initialize in {seconds} s{}",
            last_words(&self.shared.options)
        );
        let why = "it did not answer initialize in time".to_owned();
        self.fail_start(why, detail, now);
    }

    /// The child is of no use: whoever holds the bridge is told, and then everybody who waits.
    pub(super) fn fail_start(&mut self, why: String, detail: String, now: Instant) {
        self.shared.desk.lock().fail_start(&detail);
        let ending = Ending::StartFailed(detail.clone());
        let end = End::StartFailed { why, detail };
        self.shared.options.host.ended(end);
        self.end_all(&ending, now);
    }

    /// Answers everybody. Subscriptions end with a result if the end was ours (2026-07-28,
    /// subscriptions, "Graceful Closure"), else without.
    pub(super) fn end_all(&mut self, ending: &Ending, now: Instant) {
        let calls = self.shared.desk.lock().close();
        let server = &self.shared.options.server;
        let message = match ending {
            Ending::Closed => format!("server \"{server}\" was stopped"),
            Ending::StartFailed(detail) => detail.clone(),
            Ending::Exited(why) => format!("server \"{server}\" ended: {why}"),
        };
        let is_ours = matches!(ending, Ending::Closed);
        for (no, mut call) in calls {
            match (ending, call.exchange.take()) {
                (Ending::StartFailed(_), Some(exchange)) => {
                    let why = Refusal::StartFailed(message.clone());
                    let id = &call.id_text;
                    exchange.reply(Reply::Refused { id, why });
                }
                (_, exchange) => {
                    call.exchange = exchange;
                    if call.is_listen && is_ours {
                        self.close_gracefully(no, call, now);
                    } else if !call.is_listen || call.exchange.is_some() {
                        let error = code::INTERNAL_ERROR;
                        let json = jsonrpc::error_response(&call.id_text, error, &message);
                        self.finish(no, call, &json, Some(i64::from(error)), now);
                    }
                }
            }
        }
        self.streams.clear();
    }
}
