//! `ping` of 2025-11-25 by `server/discover` of 2026-07-28: whatever the child answers shows that
//! it lives, which is all that a ping wants to know.

use std::collections::HashMap;

use super::caller::{self, Caller, No};
use super::{Out, Refusal};
use crate::jsonrpc::{self, Id, code};
use crate::mcp::method;

/// Unanswered at a time.
const MAX_PINGS: usize = 64;

/// The texts of the ids of pings that the child has not answered.
#[derive(Default)]
pub(super) struct Pings(HashMap<No, Box<str>>);

impl Pings {
    /// 2025-11-25, ping. 2026-07-28, changelog, major change 5: there is none any more.
    pub(super) fn ask(
        &mut self,
        id_text: &str,
        caller: &mut Caller,
        out: &mut Vec<Out>,
    ) -> Result<(), Refusal> {
        if self.0.len() >= MAX_PINGS {
            let why = "the server has many pings to answer already".to_owned();
            return Err(Refusal(code::INTERNAL_ERROR, why));
        }
        let (no, line) = caller.request(method::DISCOVER, &[]);
        self.0.insert(no, id_text.into());
        out.push(Out::Child(line));
        Ok(())
    }

    /// The child has answered, with a result or an error; false if it is no ping that it answers.
    pub(super) fn answered(&mut self, no: No, out: &mut Vec<Out>) -> bool {
        let Some(id_text) = self.0.remove(&no) else {
            return false;
        };
        out.push(Out::Client(jsonrpc::result_response(&id_text, "{}")));
        true
    }

    /// The client has cancelled a request; false if it is no ping.
    pub(super) fn cancel(&mut self, id: &Id, out: &mut Vec<Out>) -> bool {
        let is_it = |text: &str| Id::parse(text).as_ref() == Some(id);
        let mut pings = self.0.iter();
        let Some(no) = pings.find_map(|(no, text)| is_it(text).then_some(*no)) else {
            return false;
        };
        self.0.remove(&no);
        out.push(Out::Child(caller::cancellation(no)));
        true
    }
}
