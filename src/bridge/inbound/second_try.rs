//! A child that refuses `initialize` may be of the modern era only: 2026-07-28, versioning,
//! "Backward Compatibility with Initialization-Based Versions". Nobody else could tell, so it is
//! asked, in place; and if it is not, its client gets the refusal.

use std::time::{Duration, Instant};

use super::SessionInbound;
use crate::bridge::EraNews;
use crate::jsonrpc::{self, Edit, Id, Message, code};
use crate::translate::{ModernChild, is_modern_refusal};

/// How long the child may take to answer, if its refusal does not say that it can.
const PATIENCE: Duration = Duration::from_secs(5);

/// `initialize` was refused, and is being asked in other words.
pub(super) struct SecondTry {
    id: Id,
    /// The child's first answer.
    refusal: String,
    /// The refusal is none that a client could have brought about, so that what comes of this is
    /// true for others too.
    is_telling: bool,
}

impl SessionInbound {
    /// The child's answer, or what a translator has made of it, where it is an error or was asked
    /// for a second time.
    #[inline(never)] // few answers shall not take the stack of all
    pub(super) fn response(&mut self, message: &Message<'_>, text: &str, now: Instant) {
        if self.tries_again(message, text, now) {
            return;
        }
        let tried = self.second_try.take_if(|it| it.id == message.id);
        match tried {
            Some(tried) if message.result.is_none() => self.refuse_after(&tried, now),
            Some(SecondTry {
                is_telling: true, ..
            }) => {
                if let Some(tell) = &self.shared.options.era_news {
                    tell(EraNews::ModernOnly);
                }
                self.answer(message, text, now);
            }
            _ => self.answer(message, text, now),
        }
    }

    /// Whether the answer refuses the first `initialize`. Then the child is served by a translator
    /// from here on, which asks in other words.
    #[inline(never)] // likewise
    fn tries_again(&mut self, message: &Message<'_>, text: &str, now: Instant) -> bool {
        let Some(error) = message.error else {
            return false;
        };
        if self.shared.options.era_news.is_none() || self.shared.lane.is_translating() {
            return false;
        }
        let is_replay = self.prompter.as_ref();
        let is_replay = is_replay.is_some_and(|it| it.awaits(&message.id));
        let initialize = match is_replay {
            true => self.replayed_initialize(message.id_text),
            false => self.shared.table.lock().initialize_line(&message.id),
        };
        let Some(initialize) = initialize else {
            return false;
        };
        let is_modern = is_modern_refusal(error, &initialize);
        let code = jsonrpc::member(error, "code").and_then(|it| it.parse().ok());
        self.second_try = Some(SecondTry {
            id: message.id.clone(),
            refusal: text.to_owned(),
            is_telling: is_modern || code == Some(code::METHOD_NOT_FOUND),
        });
        let until = (!is_modern).then(|| now + PATIENCE);
        let (lane, server) = (&self.shared.lane, &self.shared.options.server);
        let heard = lane.install(|out| {
            Box::new(match is_replay {
                true => ModernChild::second_try(server, until),
                false => ModernChild::take_over(server, &initialize, until, out),
            })
        });
        if let Some(prompter) = self.prompter.as_ref().filter(|_| is_replay) {
            prompter.say_again(initialize);
        }
        self.take_in(heard, now);
        true
    }

    /// What a child was told that shall take another's place, but in the revision that its client
    /// has learned.
    fn replayed_initialize(&self, id_text: &str) -> Option<String> {
        let handshake = self.shared.table.lock().handshake.clone();
        let line = String::from_utf8(handshake.first_line(id_text)).ok()?;
        let asked = jsonrpc::member(&line, "params");
        let asked = asked.and_then(|params| jsonrpc::member(params, "protocolVersion"));
        let version = handshake.version();
        match asked {
            Some(asked) if !version.is_empty() => {
                let version = serde_json::Value::from(&*version).to_string();
                Some(Edit::of(&line).replace(asked, version).done())
            }
            _ => Some(line),
        }
    }

    /// The child will not answer any more; false if there was no second try.
    pub(super) fn give_up_second_try(&mut self, now: Instant) -> bool {
        let tried = self.second_try.take();
        if let Some(tried) = &tried {
            self.refuse_after(tried, now);
        }
        tried.is_some()
    }

    fn refuse_after(&mut self, tried: &SecondTry, now: Instant) {
        if let Ok(refusal) = jsonrpc::parse(&tried.refusal) {
            self.answer(&refusal, &tried.refusal, now);
        }
    }
}
