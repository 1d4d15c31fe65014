//! The requests in flight: who waits for which id. Pure state under one lock, time passed in.
//! What one child or session takes over from another is in `succession`.

mod succession;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::departed::Departed;
use super::handshake::{Change, Handshake};
use super::quota::Quota;
use super::{Exchange, FIRST_TENANT, Refusal};
use crate::jsonrpc::Id;

/// An answer that takes longer becomes a stream, so that comments keep proxies and the client
/// alive, and the client can resume it.
const STREAM_AFTER: Duration = Duration::from_secs(1);
/// `initialize` waits longer: while it is no stream, a child that fails to start is a 500.
const STREAM_INITIALIZE_AFTER: Duration = Duration::from_secs(10);
/// How long a cancelled request waits for the child's answer, which need not come (2025-11-25,
/// cancellation, "Behavior Requirements").
const CANCELLED_GRACE: Duration = Duration::from_secs(5);

/// One POST with requests in it.
pub(super) struct Post {
    /// `None` once it is a stream, or the client has gone.
    pub(super) exchange: Option<Box<dyn Exchange>>,
    /// The connection its client waits on; `None` once the client has gone.
    client: Option<u64>,
    pub(super) is_stream: bool,
    pub(super) is_initialize: bool,
    /// A batch has several answers, so its first one is not the whole response.
    pub(super) is_batch: bool,
    /// Requests in it that wait for an answer.
    pub(super) waiting: usize,
    since: Instant,
}

impl Post {
    fn stream_due(&self) -> Option<Instant> {
        let after = if self.is_initialize {
            STREAM_INITIALIZE_AFTER
        } else {
            STREAM_AFTER
        };
        self.exchange.is_some().then(|| self.since + after)
    }
}

struct Pending {
    post: u64,
    id_text: Box<str>,
    progress_token: Option<Id>,
    change: Option<Change>,
    cancelled: Option<Instant>,
}

/// One request to be entered.
pub(super) struct NewRequest {
    pub(super) id: Id,
    pub(super) id_text: Box<str>,
    pub(super) progress_token: Option<Id>,
    /// What it will change if it succeeds.
    pub(super) change: Option<Change>,
}

/// An answer's way: the post it belongs to.
pub(super) struct Claimed {
    pub(super) post: u64,
    /// The whole response is this answer: the exchange, if the client is still there.
    pub(super) only: Option<Option<Box<dyn Exchange>>>,
    pub(super) is_initialize: bool,
    /// No further answer will come.
    pub(super) is_last: bool,
    pub(super) change: Option<Change>,
}

pub(super) struct Table {
    /// The id to announce.
    pub(super) session: String,
    /// Tells this session from those that had the child before.
    tenant: u64,
    quota: Arc<Quota>,
    pending: HashMap<Id, Pending>,
    tokens: HashMap<Id, u64>,
    posts: HashMap<u64, Post>,
    last_post: u64,
    /// When the reader thread has something to do on its streams.
    pub(super) streams_due: Option<Instant>,
    /// The revision the session negotiated; empty until then.
    pub(super) version: String,
    pub(super) initialize_seen: bool,
    /// The client has said `notifications/initialized`.
    initialized_seen: bool,
    /// The child has heard `notifications/initialized` from us, so not from the client too.
    initialized_said: bool,
    /// The child was initialized before this session, whose `initialize` we answer ourselves.
    greets: bool,
    /// Since when a new child is being told what the old one knew.
    replaying: Option<Instant>,
    pub(super) handshake: Handshake,
    /// Requests of the child that nobody has answered.
    asked: HashSet<Id>,
    /// And more of them than are remembered.
    asked_too_much: bool,
    /// The child may still answer a request that nobody waits for any more.
    is_late: bool,
    /// Between two sessions.
    is_parked: bool,
    /// And the streams of the one before have ended.
    is_emptied: bool,
    /// The id of a ping that the child has not answered, by which it shows that it still listens.
    probe: Option<Id>,
    pub(super) draining: bool,
    departed: Departed,
    /// The child has ended or the session is closed.
    closed: bool,
    /// Why the child never answered `initialize`.
    start_failure: Option<String>,
    /// The session can be revived.
    pub(super) rests: bool,
}

impl Table {
    pub(super) fn new(session: String, quota: Arc<Quota>) -> Self {
        Self {
            session,
            tenant: FIRST_TENANT,
            quota,
            pending: HashMap::new(),
            tokens: HashMap::new(),
            posts: HashMap::new(),
            last_post: 0,
            streams_due: None,
            version: String::new(),
            initialize_seen: false,
            initialized_seen: false,
            initialized_said: false,
            greets: false,
            replaying: None,
            handshake: Handshake::default(),
            asked: HashSet::new(),
            asked_too_much: false,
            is_late: false,
            is_parked: false,
            is_emptied: false,
            probe: None,
            draining: false,
            departed: Departed::default(),
            closed: false,
            start_failure: None,
            rests: false,
        }
    }

    /// Enters the requests of one POST.
    ///
    /// # Errors
    /// The exchange is given back with the reason; nothing was entered then.
    pub(super) fn enter(
        &mut self,
        exchange: Box<dyn Exchange>,
        requests: Vec<NewRequest>,
        max_in_flight: usize,
        now: Instant,
    ) -> Result<u64, (Box<dyn Exchange>, Refusal)> {
        if self.is_closed() {
            return Err((exchange, self.why_closed()));
        }
        if self.draining {
            return Err((exchange, Refusal::Draining));
        }
        if self.departed.contains(exchange.connection()) {
            return Err((exchange, Refusal::ClientGone));
        }
        if self.pending.len() + requests.len() > max_in_flight {
            return Err((exchange, Refusal::TooManyInFlight));
        }
        let taken = |at: usize, id: &Id| {
            self.pending.contains_key(id) || requests[..at].iter().any(|other| other.id == *id)
        };
        if requests
            .iter()
            .enumerate()
            .any(|(at, request)| taken(at, &request.id))
        {
            return Err((exchange, Refusal::IdInFlight));
        }
        if !self.quota.take(requests.len()) {
            return Err((exchange, Refusal::TooManyInFlightOfUser));
        }
        self.last_post += 1;
        let post = self.last_post;
        self.posts.insert(
            post,
            Post {
                client: Some(exchange.connection()),
                exchange: Some(exchange),
                is_stream: false,
                is_initialize: false,
                is_batch: requests.len() > 1,
                waiting: requests.len(),
                since: now,
            },
        );
        for NewRequest {
            id,
            id_text,
            progress_token,
            change,
        } in requests
        {
            if let Some(token) = &progress_token {
                self.tokens.insert(token.clone(), post);
            }
            self.pending.insert(
                id,
                Pending {
                    post,
                    id_text,
                    progress_token,
                    change,
                    cancelled: None,
                },
            );
        }
        Ok(post)
    }

    pub(super) fn mark_initialize(&mut self, post: u64) {
        self.initialize_seen = true;
        if let Some(post) = self.posts.get_mut(&post) {
            post.is_initialize = true;
        }
    }

    /// The child will never answer `initialize`, which may not even have come yet.
    pub(super) fn fail_start(&mut self, why: &str) {
        if !self.closed {
            self.start_failure.get_or_insert_with(|| why.to_owned());
        }
    }

    /// What to tell those who come too late.
    pub(super) fn why_closed(&self) -> Refusal {
        match &self.start_failure {
            Some(why) => Refusal::StartFailed(why.clone()),
            // Whatever ends a session now, it is not for its client to begin another one here.
            None if self.draining => Refusal::Draining,
            None if self.rests => Refusal::Resting,
            None => Refusal::SessionEnded,
        }
    }

    /// The same for this tenant; and for its first `initialize`, if that is still to come.
    pub(super) fn why_closed_to(&self, tenant: u64) -> (Refusal, Refusal) {
        let is_new = self.tenant == tenant && (self.greets || !self.initialize_seen);
        let first = self.why_closed();
        let first = if is_new { first.told_early() } else { first };
        (self.why_closed(), first)
    }

    /// Takes the request that an answer is for; `None` if nobody waits for it.
    pub(super) fn claim(&mut self, id: &Id) -> Option<Claimed> {
        let pending = self.remove(id)?;
        let post = self.posts.get_mut(&pending.post)?;
        post.waiting -= 1;
        let claimed = Claimed {
            post: pending.post,
            only: (!post.is_stream && !post.is_batch).then(|| post.exchange.take()),
            is_initialize: post.is_initialize,
            is_last: post.waiting == 0,
            change: pending.change,
        };
        if claimed.is_last && !(post.is_batch && post.exchange.is_some()) {
            self.posts.remove(&pending.post);
        }
        Some(claimed)
    }

    fn remove(&mut self, id: &Id) -> Option<Pending> {
        let pending = self.pending.remove(id)?;
        self.quota.give(1);
        if let Some(token) = &pending.progress_token
            && self.tokens.get(token) == Some(&pending.post)
        {
            self.tokens.remove(token);
        }
        Some(pending)
    }

    /// The post whose request carried this progress token.
    pub(super) fn post_of_token(&self, token: &Id) -> Option<u64> {
        self.tokens.get(token).copied()
    }

    /// The posts that may still carry something to their clients, the newest first.
    pub(super) fn newest_posts(&self) -> Vec<u64> {
        // While `initialize` is no stream, a child that fails to start is a 500.
        let reachable =
            |post: &Post| post.is_stream || (post.exchange.is_some() && !post.is_initialize);
        let posts = self.posts.iter().filter(|(_, post)| reachable(post));
        let mut posts: Vec<u64> = posts.map(|(no, _)| *no).collect();
        posts.sort_unstable_by(|a, b| b.cmp(a));
        posts
    }

    /// Turns a post into a stream: gives the exchange to open it with, if it is not one yet.
    pub(super) fn take_for_stream(&mut self, post: u64) -> Option<(Box<dyn Exchange>, bool)> {
        let entry = self.posts.get_mut(&post)?;
        let exchange = entry.exchange.take()?;
        entry.is_stream = true;
        let is_initialize = entry.is_initialize;
        if entry.waiting == 0 {
            self.posts.remove(&post);
        }
        Some((exchange, is_initialize))
    }

    /// The client has gone: frees what it waited with. Its requests stay entered, so that their
    /// answers are known for what they are. True if one of them is an `initialize`: then nobody
    /// will ever know the session's id.
    pub(super) fn forget_connection(&mut self, connection: u64) -> (Vec<Box<dyn Exchange>>, bool) {
        self.departed.note(connection);
        let mut is_initialize = false;
        let mut exchanges = Vec::new();
        for post in self
            .posts
            .values_mut()
            .filter(|post| post.client == Some(connection))
        {
            post.client = None;
            if let Some(exchange) = post.exchange.take() {
                is_initialize |= post.is_initialize;
                exchanges.push(exchange);
            }
        }
        (exchanges, is_initialize)
    }

    fn cancel(&mut self, id: &Id, now: Instant) {
        if let Some(pending) = self.pending.get_mut(id) {
            pending.cancelled.get_or_insert(now);
        }
    }

    /// Takes the cancelled requests that were not answered in time.
    pub(super) fn take_cancelled(&mut self, now: Instant) -> Vec<(Box<str>, Claimed)> {
        let late = |pending: &Pending| {
            pending
                .cancelled
                .is_some_and(|since| now >= since + CANCELLED_GRACE)
        };
        let late = self.pending.iter().filter(|(_, pending)| late(pending));
        let ids: Vec<Id> = late.map(|(id, _)| id.clone()).collect();
        self.is_late |= !ids.is_empty();
        ids.iter().filter_map(|id| self.take(id)).collect()
    }

    /// Takes all requests; none can be entered afterwards.
    pub(super) fn close(&mut self) -> Vec<(Box<str>, Claimed)> {
        self.closed = true;
        self.streams_due = None;
        self.replaying = None;
        let ids: Vec<Id> = self.pending.keys().cloned().collect();
        ids.iter().filter_map(|id| self.take(id)).collect()
    }

    /// Takes a request that nobody will answer any more, with the text of its id.
    pub(super) fn take(&mut self, id: &Id) -> Option<(Box<str>, Claimed)> {
        let id_text = self.pending.get(id)?.id_text.clone();
        let claimed = self.claim(id)?;
        Some((id_text, claimed))
    }

    /// The posts that have waited long enough to become streams.
    pub(super) fn overdue(&self, now: Instant) -> Vec<u64> {
        let due = |post: &Post| post.stream_due().is_some_and(|due| now >= due);
        self.posts
            .iter()
            .filter(|(_, post)| due(post))
            .map(|(no, _)| *no)
            .collect()
    }

    /// Whether `initialize` has waited longer than `timeout`.
    pub(super) fn start_overdue(&self, timeout: Duration, now: Instant) -> bool {
        let asked = self.posts.values().filter(|post| post.is_initialize);
        let mut since = asked.map(|post| post.since).chain(self.replaying);
        since.any(|since| now >= since + timeout)
    }

    /// Whether the reader thread has something to do at `now`.
    pub(super) fn is_due(&self, start_timeout: Duration, now: Instant) -> bool {
        let posts = self.posts.values().filter_map(Post::stream_due);
        let cancelled = self
            .pending
            .values()
            .filter_map(|pending| pending.cancelled);
        self.start_overdue(start_timeout, now)
            || self.streams_due.is_some_and(|due| now >= due)
            || posts.into_iter().any(|due| now >= due)
            || cancelled
                .into_iter()
                .any(|since| now >= since + CANCELLED_GRACE)
    }

    /// The client of this stream is back, on another connection.
    pub(super) fn resume(&mut self, post: u64, connection: u64) {
        if let Some(post) = self.posts.get_mut(&post) {
            post.client = Some(connection);
        }
    }

    /// Whether the client still waits for its `initialize`, or for what replays it.
    pub(super) fn is_awaited(&self) -> bool {
        let is_asked = self.posts.values().any(|post| post.is_initialize);
        is_asked || !self.initialize_seen || self.greets || self.replaying.is_some()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Whether somebody is there who waits for an answer.
    pub(super) fn has_clients(&self) -> bool {
        self.posts.values().any(|post| post.client.is_some())
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.quota.give(self.pending.len());
    }
}
