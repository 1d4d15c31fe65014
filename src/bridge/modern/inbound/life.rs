//! How a shared child fails to start, and how it ends.

use std::time::Instant;

use super::ModernInbound;
use crate::bridge::{End, Refusal, Reply};
use crate::jsonrpc::{self, code};

/// Lines of stderr that an error message quotes.
const QUOTED_LINES: usize = 20;

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
            self.stderr()
        );
        let why = "it did not answer initialize in time".to_owned();
        self.fail_start(why, detail, now);
    }

    /// The child is of no use: whoever holds the bridge is told, and then everybody who waits.
    pub(super) fn fail_start(&mut self, why: String, detail: String, now: Instant) {
        self.shared.desk.lock().fail_start(&detail);
        let end = End::StartFailed { why, detail };
        self.shared.options.host.ended(end.clone());
        self.end_all(&end, now);
    }

    /// Answers everybody. Subscriptions end with a result if the end was ours (2026-07-28,
    /// subscriptions, "Graceful Closure"), else without.
    pub(super) fn end_all(&mut self, end: &End, now: Instant) {
        let calls = self.shared.desk.lock().close();
        let server = &self.shared.options.server;
        let message = match end {
            End::Exited { why, .. } => format!("server \"{server}\" ended: {why}"),
            End::StartFailed { detail, .. } => detail.clone(),
            End::ClientGone | End::Fault => format!("server \"{server}\" was stopped"),
        };
        let is_ours = matches!(end, End::ClientGone);
        for (no, mut call) in calls {
            match (end, call.exchange.take()) {
                (End::StartFailed { .. }, Some(exchange)) => {
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

    pub(super) fn stderr(&self) -> String {
        let quoted = (self.shared.options.stderr)(QUOTED_LINES);
        match quoted.is_empty() {
            true => "; it wrote nothing to stderr".to_owned(),
            false => format!("; its last lines on stderr:\n{}", quoted.join("\n")),
        }
    }
}
