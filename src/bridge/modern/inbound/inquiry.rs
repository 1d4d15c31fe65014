//! Which parameters of the child's tools stand in heads: asked for when the first call comes, and
//! again after a change.

use std::time::Instant;

use super::super::own_request;
use super::super::tools::{Held, Inquiry, Verdict};
use super::ModernInbound;
use crate::jsonrpc;
use crate::mcp::method;

impl ModernInbound {
    /// Asks for a page of the tools; `cursor` is the text of one, or nothing.
    pub(super) fn inquire(&mut self, inquiry: Inquiry, cursor: &str, now: Instant) {
        let (no, watch) = {
            let mut desk = self.shared.desk.lock();
            let watch = desk.watch_tools();
            (desk.inquire(inquiry), watch)
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
        let held = self.shared.desk.lock().tools.learn(inquiry);
        for call in held {
            self.let_go(call, now);
        }
        if is_stale {
            self.shared.desk.lock().forget_tools();
        }
    }

    /// A call that waited for the tools to be known goes on, or is refused.
    fn let_go(&mut self, held: Held, now: Instant) {
        let Held { no, line, mirrored } = held;
        let Ok(line) = str::from_utf8(&line) else {
            return;
        };
        let params = jsonrpc::parse(line).ok().and_then(|message| message.params);
        let (verdict, is_there) = {
            let mut desk = self.shared.desk.lock();
            let verdict = desk.tools.check(mirrored.as_ref(), params);
            (verdict, desk.call(no).is_some())
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
            _ if is_there => self.say(line.trim_end(), now),
            _ => {}
        }
    }
}
