//! Which parameters of the child's tools stand in heads: asked for when the first call comes, and
//! again after a change.

use std::time::Instant;

use super::super::desk::Knowledge;
use super::super::own_request;
use super::super::tools::{self, Held, Inquiry, Verdict};
use super::ModernInbound;
use crate::jsonrpc;
use crate::mcp::method;

impl ModernInbound {
    /// Asks for a page of the tools; `cursor` is the text of one, or nothing.
    pub(super) fn inquire(&mut self, inquiry: Inquiry, cursor: &str, now: Instant) {
        let (no, watch) = {
            let mut desk = self.shared.desk.lock();
            let watch = desk.watch_tools();
            (desk.inquire(inquiry, now), watch)
        };
        if let Some(watch) = watch {
            let params = r#""notifications":{"toolsListChanged":true}"#;
            self.say(&own_request(watch, method::LISTEN, params), now);
        }
        let params = match cursor {
            "" => String::new(),
            cursor => format!(r#""cursor":{cursor}"#),
        };
        self.say(&own_request(no, method::TOOLS_LIST, &params), now);
    }

    pub(super) fn page_of_tools(
        &mut self,
        mut inquiry: Inquiry,
        result: Option<&str>,
        now: Instant,
    ) {
        if let Some(cursor) = result.and_then(|result| inquiry.take(result)) {
            return self.inquire(inquiry, &cursor, now);
        }
        // They have changed on the way; what is known may be of before.
        let inquiry = match inquiry.again() {
            Ok(again) => return self.inquire(again, "", now),
            Err(inquiry) => inquiry,
        };
        let is_stale = inquiry.is_stale;
        let held = self.shared.desk.lock().learn(inquiry);
        for call in held {
            self.let_go(call, now);
        }
        if is_stale {
            self.shared.desk.lock().forget_tools();
        }
    }

    /// A child that does not say what its tools are in time is not waited for. If it does later,
    /// that counts.
    pub(super) fn let_go_overdue(&mut self, now: Instant) {
        let held = self.shared.desk.lock().let_go_overdue(now);
        if !held.is_empty() {
            let label = &self.shared.options.label;
            log::warn!("child {label} does not list its tools: calls go on with heads unchecked");
        }
        for call in held {
            self.let_go(call, now);
        }
    }

    /// A call that waited for the tools to be known goes on, or is refused.
    pub(super) fn let_go(&mut self, held: Held, now: Instant) {
        let Held { no, line, mirrored } = held;
        let Ok(line) = str::from_utf8(&line) else {
            return;
        };
        let params = jsonrpc::parse(line).ok().and_then(|message| message.params);
        let (knowledge, is_there) = {
            let mut desk = self.shared.desk.lock();
            (desk.knowledge(), desk.call(no).is_some())
        };
        let verdict = match knowledge {
            Knowledge::Known { tools, .. } => tools::check(&tools, mirrored.as_ref(), params),
            Knowledge::Unknown | Knowledge::Unsaid => Verdict::Fits,
        };
        match verdict {
            Verdict::Differs(fault) => {
                let call = self.shared.desk.lock().remove(no);
                if let Some(mut call) = call {
                    match call.exchange.take() {
                        Some(exchange) => _ = fault.answer::<()>(exchange, &call.id_text),
                        None => self.end_stream(no, &fault.to_json(&call.id_text), now),
                    }
                }
            }
            Verdict::Fits if is_there => self.say(line.trim_end(), now),
            Verdict::Fits => {}
        }
    }
}

/// Whether the `params` of an acknowledgement have it that changes of the tools are told.
pub(super) fn tells_of_tools(params: &str) -> bool {
    let told = jsonrpc::member(params, "notifications");
    told.and_then(|it| jsonrpc::member(it, "toolsListChanged")) == Some("true")
}
