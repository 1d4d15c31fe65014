//! Subscriptions: `resources/subscribe` of 2025-11-25, and the list changes that it sends unasked,
//! by `subscriptions/listen` of 2026-07-28.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::caller::{self, Caller, No};
use super::{Out, Refusal, opening::Offer};
use crate::jsonrpc::{self, Edit, Id, Message, code};
use crate::mcp::method;

/// Open at a time.
const MAX_LISTENS: usize = 1024;
/// Requests that wait for one acknowledgement.
const MAX_WAITING: usize = 64;
/// A listen that the child ends is opened again if it has lived so long; one that ends sooner only
/// once, so that a child that ends them all does not do it for ever.
const STEADY: Duration = Duration::from_secs(10);

/// How long an acknowledgement may take, if a subscription of the client waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// One `subscriptions/listen` that the child has not ended.
struct Listen {
    /// The text of its filter.
    filter: Box<str>,
    /// The resource, if it stands for a subscription of the client.
    uri: Option<Box<str>>,
    /// The texts of the ids of `resources/subscribe` requests that wait for its acknowledgement.
    waiting: Vec<Box<str>>,
    acknowledged: Option<Instant>,
    /// One like it has ended before it was steady.
    is_last_try: bool,
}

impl Listen {
    fn of(filter: String, uri: Option<Box<str>>, waiting: Vec<Box<str>>) -> Self {
        Self {
            filter: filter.into(),
            uri,
            waiting,
            acknowledged: None,
            is_last_try: false,
        }
    }
}

#[derive(Default)]
pub(super) struct Listens {
    open: HashMap<No, Listen>,
    /// Until when those for a resource are to be acknowledged; they were opened in this order.
    unacknowledged: BTreeMap<No, Instant>,
    asked_for_lists: bool,
}

impl Listens {
    /// The client is ready: 2025-11-25, lifecycle, "Initialization". From now on it would be told
    /// of changes to lists; here that has to be asked for (2026-07-28, subscriptions,
    /// "Notification Filter").
    pub(super) fn begin(
        &mut self,
        offer: &Offer,
        caller: &mut Caller,
        now: Instant,
        out: &mut Vec<Out>,
    ) {
        if self.asked_for_lists || offer.list_changes.is_empty() {
            return;
        }
        self.asked_for_lists = true;
        let changes = offer.list_changes.iter();
        let changes: Vec<String> = changes.map(|name| format!(r#""{name}":true"#)).collect();
        let filter = format!("{{{}}}", changes.join(","));
        self.open(Listen::of(filter, None, Vec::new()), caller, now, out);
    }

    /// 2025-11-25, resources, "Subscriptions". Answered once the child has agreed.
    pub(super) fn subscribe(
        &mut self,
        id_text: &str,
        params: Option<&str>,
        caller: &mut Caller,
        now: Instant,
        out: &mut Vec<Out>,
    ) -> Result<(), Refusal> {
        let (uri_text, uri) = uri(params)?;
        let overfull = Refusal(code::INTERNAL_ERROR, "too many subscriptions".to_owned());
        if let Some((_, listen)) = self.of_resource(&uri) {
            if listen.acknowledged.is_some() {
                out.push(Out::Client(jsonrpc::result_response(id_text, "{}")));
            } else if listen.waiting.len() < MAX_WAITING {
                listen.waiting.push(id_text.into());
            } else {
                return Err(overfull);
            }
            return Ok(());
        }
        if self.open.len() >= MAX_LISTENS {
            return Err(overfull);
        }
        let filter = format!(r#"{{"resourceSubscriptions":[{uri_text}]}}"#);
        let listen = Listen::of(filter, Some(uri.into()), vec![id_text.into()]);
        self.open(listen, caller, now, out);
        Ok(())
    }

    /// 2026-07-28, subscriptions, "Cancellation".
    pub(super) fn unsubscribe(
        &mut self,
        id_text: &str,
        params: Option<&str>,
        out: &mut Vec<Out>,
    ) -> Result<(), Refusal> {
        let (_, uri) = uri(params)?;
        let no = self.of_resource(&uri).map(|(no, _)| no);
        if let Some((no, listen)) = no.and_then(|no| Some((no, self.remove(no)?))) {
            // They were first, so they are answered first.
            answer(&listen.waiting, out);
            out.push(Out::Child(caller::cancellation(no)));
        }
        out.push(Out::Client(jsonrpc::result_response(id_text, "{}")));
        Ok(())
    }

    /// The client has cancelled a request; false if it is none of those that wait here.
    pub(super) fn cancel(&mut self, id: &Id, out: &mut Vec<Out>) -> bool {
        let is_it = |text: &str| Id::parse(text).as_ref() == Some(id);
        for (no, listen) in &mut self.open {
            let Some(at) = listen.waiting.iter().position(|text| is_it(text)) else {
                continue;
            };
            listen.waiting.swap_remove(at);
            let no = *no;
            if listen.waiting.is_empty() {
                self.remove(no);
                out.push(Out::Child(caller::cancellation(no)));
            }
            return true;
        }
        false
    }

    /// 2026-07-28, subscriptions, "Acknowledgment": "the subset the server agreed to honor".
    pub(super) fn acknowledged(
        &mut self,
        no: No,
        params: &str,
        offer: &Offer,
        now: Instant,
        out: &mut Vec<Out>,
    ) {
        let Some(listen) = self.open.get_mut(&no) else {
            return log::debug!("the child acknowledges what is over");
        };
        let honored = jsonrpc::member(params, "notifications").unwrap_or_default();
        if listen.uri.as_deref().is_none_or(|uri| honors(honored, uri)) {
            listen.acknowledged.get_or_insert(now);
            self.unacknowledged.remove(&no);
            answer(&std::mem::take(&mut listen.waiting), out);
            return;
        }
        let (code, why) = match offer.subscribe {
            true => (
                code::INVALID_PARAMS,
                "the server does not watch this resource",
            ),
            false => (code::METHOD_NOT_FOUND, "the server has no subscriptions"),
        };
        let waiting = std::mem::take(&mut listen.waiting);
        self.remove(no);
        out.push(Out::Child(caller::cancellation(no)));
        refuse(&waiting, code, why, out);
    }

    /// Whether a notification of this listen is still wanted.
    pub(super) fn wants(&self, no: No) -> bool {
        self.open.contains_key(&no)
    }

    /// The child has answered; false if it is no listen that it answers.
    pub(super) fn response(
        &mut self,
        no: No,
        message: &Message<'_>,
        line: &str,
        caller: &mut Caller,
        now: Instant,
        out: &mut Vec<Out>,
    ) -> bool {
        if message.error.is_none() {
            return self.ended(no, caller, now, out);
        }
        let Some(listen) = self.remove(no) else {
            return false;
        };
        log::debug!("the child refuses to tell of {}", listen.filter);
        for id in &listen.waiting {
            let refusal = Edit::of(line).replace(message.id_text, &**id).done();
            out.push(Out::Client(refusal));
        }
        true
    }

    /// The child has ended a listen, by a result (2026-07-28, subscriptions, "Graceful Closure") or
    /// by `notifications/cancelled` (cancellation, first section). The client would not know, so it
    /// is opened again.
    pub(super) fn ended(
        &mut self,
        no: No,
        caller: &mut Caller,
        now: Instant,
        out: &mut Vec<Out>,
    ) -> bool {
        let Some(mut listen) = self.remove(no) else {
            return false;
        };
        let why = "the server ended the subscription at once";
        let waiting = std::mem::take(&mut listen.waiting);
        refuse(&waiting, code::INTERNAL_ERROR, why, out);
        let Some(since) = listen.acknowledged.take() else {
            log::debug!(
                "the child ended what it had not acknowledged: {}",
                listen.filter
            );
            return true;
        };
        let is_steady = now.saturating_duration_since(since) >= STEADY;
        if is_steady || !listen.is_last_try {
            listen.is_last_try = !is_steady;
            self.open(listen, caller, now, out);
        } else {
            log::debug!("the child tells no more of {}", listen.filter);
        }
        true
    }

    /// When [`Listens::tick`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.unacknowledged
            .first_key_value()
            .map(|(_, until)| *until)
    }

    /// Gives up what the child has not acknowledged in time.
    pub(super) fn tick(&mut self, now: Instant, out: &mut Vec<Out>) {
        while let Some((&no, &until)) = self.unacknowledged.first_key_value()
            && now >= until
        {
            let why = "the server does not acknowledge the subscription";
            let waiting = self.remove(no).map(|it| it.waiting).unwrap_or_default();
            refuse(&waiting, code::INTERNAL_ERROR, why, out);
            out.push(Out::Child(caller::cancellation(no)));
        }
    }

    fn remove(&mut self, no: No) -> Option<Listen> {
        self.unacknowledged.remove(&no);
        self.open.remove(&no)
    }

    fn open(&mut self, listen: Listen, caller: &mut Caller, now: Instant, out: &mut Vec<Out>) {
        let (no, line) = caller.request(method::LISTEN, &[("notifications", &listen.filter)]);
        if listen.uri.is_some() {
            self.unacknowledged.insert(no, now + PATIENCE);
        }
        self.open.insert(no, listen);
        out.push(Out::Child(line));
    }

    fn of_resource(&mut self, uri: &str) -> Option<(No, &mut Listen)> {
        let mut listens = self.open.iter_mut();
        let found = listens.find(|(_, listen)| listen.uri.as_deref() == Some(uri));
        found.map(|(no, listen)| (*no, listen))
    }
}

fn answer(waiting: &[Box<str>], out: &mut Vec<Out>) {
    let answers = waiting.iter().map(|id| jsonrpc::result_response(id, "{}"));
    out.extend(answers.map(Out::Client));
}

fn refuse(waiting: &[Box<str>], code: i32, why: &str, out: &mut Vec<Out>) {
    let answers = waiting
        .iter()
        .map(|id| jsonrpc::error_response(id, code, why));
    out.extend(answers.map(Out::Client));
}

/// Whether a filter names a resource.
fn honors(filter: &str, uri: &str) -> bool {
    let uris = jsonrpc::member(filter, "resourceSubscriptions");
    let uris = uris.and_then(|it| serde_json::from_str::<Vec<String>>(it).ok());
    uris.is_some_and(|uris| uris.iter().any(|it| it == uri))
}

/// `uri` of `params`, as it stands and as it reads.
fn uri(params: Option<&str>) -> Result<(&str, String), Refusal> {
    params
        .and_then(|params| jsonrpc::member(params, "uri"))
        .and_then(|it| Some((it, jsonrpc::text(it)?.into_owned())))
        .ok_or_else(|| {
            Refusal(
                code::INVALID_PARAMS,
                "uri is missing, or no string".to_owned(),
            )
        })
}
