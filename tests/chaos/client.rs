//! One client: who it is, how it words a request, and how it judges one that was not answered.
//! Every judgement goes to the ledger, and says what was expected where it is a violation.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::ledger::{Kind, Why};
use crate::places::Place;
use crate::plan::{IDLE_TIMEOUT, PRINCIPALS, Role};
use crate::prng::Prng;
use crate::wire::{Broken, Connection, Response};
use crate::world::{Listed, World};

/// How long a client waits for anything that should come at once: for machines under load.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
/// A session may have ended for being idle this long before the client would say so.
const IDLE_DOUBT: Duration = Duration::from_secs(2);

/// The round of a client goes no further; the ledger knows why.
#[derive(Debug)]
pub(crate) struct Halt;

pub(crate) type Done<T> = Result<T, Halt>;

/// One client in one of its rounds.
pub(crate) struct Client<'w> {
    pub(crate) world: &'w World,
    pub(crate) no: usize,
    pub(crate) principal: usize,
    pub(crate) round: u64,
    pub(crate) rng: Prng,
}

/// What a client knows of its session that may excuse the loss of it.
pub(crate) struct Standing {
    pub(crate) id: String,
    /// The broker's generation in which it was opened, or last revived.
    pub(crate) generation: u64,
    pub(crate) token: String,
    /// Its server is configured with `revive`.
    pub(crate) revives: bool,
    /// Its child was made to die, or to say nothing more.
    pub(crate) doomed: bool,
    pub(crate) used: Instant,
    pub(crate) place: Arc<Place>,
    pub(crate) listed: Arc<Listed>,
}

impl Standing {
    /// Whether it may have ended for being idle.
    pub(crate) fn is_idle(&self) -> bool {
        self.used.elapsed() + IDLE_DOUBT > IDLE_TIMEOUT
    }
}

/// What is to be sent.
pub(crate) struct Request<'a> {
    pub(crate) method: &'static str,
    pub(crate) server: &'a str,
    pub(crate) token: Option<&'a str>,
    pub(crate) session: Option<&'a str>,
    /// Further header lines.
    pub(crate) fields: &'a str,
    pub(crate) body: Option<&'a str>,
}

impl Request<'_> {
    pub(crate) fn bytes(&self, world: &World) -> Vec<u8> {
        let Self { method, server, .. } = self;
        let address = world.address;
        let mut head = format!("{method} /mcp/{server} HTTP/1.1\r\nHost: {address}\r\n");
        let mut field = |name: &str, value: &str| head.push_str(&format!("{name}: {value}\r\n"));
        if let Some(token) = self.token {
            field("Authorization", &format!("Bearer {token}"));
        }
        if let Some(session) = self.session {
            field("Mcp-Session-Id", session);
            field("MCP-Protocol-Version", "2025-11-25");
        }
        if !self.fields.contains("Accept: ") {
            field("Accept", "application/json, text/event-stream");
        }
        if let Some(body) = self.body {
            if !self.fields.contains("Content-Type: ") {
                field("Content-Type", "application/json");
            }
            field("Content-Length", &body.len().to_string());
        }
        head.push_str(self.fields);
        head.push_str("\r\n");
        head.push_str(self.body.unwrap_or_default());
        head.into_bytes()
    }
}

impl fmt::Display for Client<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, _) = PRINCIPALS[self.principal];
        write!(f, "client {} of {name}, round {}", self.no, self.round)
    }
}

/// The start of a text, for a message.
pub(crate) fn start_of(text: &str) -> String {
    let start: String = text.chars().take(300).collect();
    format!("{start:?}")
}

impl Client<'_> {
    pub(crate) fn name(&self) -> &'static str {
        PRINCIPALS[self.principal].0
    }

    pub(crate) fn role(&self) -> Role {
        World::role(self.principal)
    }

    /// The token to use now: a revoked one while there is no other.
    pub(crate) fn token(&self) -> String {
        let tokens = self.world.tokens(self.principal);
        tokens.current.or(tokens.revoked).unwrap_or_default()
    }

    /// Sends a request on a new connection and waits for the head of the response.
    pub(crate) fn exchange(
        &self,
        request: &Request<'_>,
        patience: Duration,
    ) -> Result<Response, Broken> {
        let mut connection = self.connect()?;
        connection.send(&request.bytes(self.world))?;
        connection.response(patience)
    }

    pub(crate) fn connect(&self) -> Result<Connection, Broken> {
        Connection::open(self.world.address, self.world.generation())
    }

    pub(crate) fn violation(&self, kind: Kind, standing: Option<&Standing>, what: &str) -> Halt {
        self.world
            .ledger
            .violation(kind, &self.with(standing), what.to_owned());
        Halt
    }

    /// A request ended as it must not.
    pub(crate) fn failed(&self, kind: Kind, standing: Option<&Standing>, what: &str) -> Halt {
        self.world
            .ledger
            .failed(kind, &self.with(standing), what.to_owned());
        Halt
    }

    fn with(&self, standing: Option<&Standing>) -> String {
        let Some(Standing { id, listed, .. }) = standing else {
            return format!("{self}, no session");
        };
        format!(
            "{self}, session {} of {}",
            id.get(..8).unwrap_or(id),
            listed.server
        )
    }

    /// What the run has done since that explains the loss of an answer, or of the session.
    pub(crate) fn excuse(&self, standing: Option<&Standing>, since: Instant) -> Option<Why> {
        if self.world.struck_since(since) {
            return Some(Why::BrokerDown);
        }
        let tokens = self.world.tokens(self.principal);
        if tokens.current.is_none() || tokens.in_doubt(since) && self.role() == Role::Fickle {
            return Some(Why::TokenGone);
        }
        let standing = standing?;
        let is_newer = self.world.generation() != standing.generation;
        if tokens.current.as_ref() != Some(&standing.token) {
            return Some(Why::TokenGone);
        }
        if standing.doomed {
            return Some(Why::ChildDied);
        }
        if is_newer && !standing.revives {
            return Some(Why::BrokerDown);
        }
        if standing.is_idle() && !standing.revives {
            return Some(Why::Idle);
        }
        self.is_evictable(standing).then_some(Why::Evicted)
    }

    /// Whether the session may have made room for a newer one of its principal.
    pub(crate) fn is_evictable(&self, standing: &Standing) -> bool {
        let Standing {
            used, generation, ..
        } = *standing;
        self.world.is_crowded(self.principal, used, generation)
    }

    /// A response broke off, or never came.
    pub(crate) fn broken(
        &self,
        standing: Option<&Standing>,
        began: Instant,
        why: &Broken,
        what: &str,
    ) -> Halt {
        // Eviction ends a session with answers, never with silence.
        let excuse = self.excuse(standing, began);
        match excuse.filter(|excuse| *excuse != Why::Evicted && *excuse != Why::Idle) {
            Some(excuse) => {
                self.world.ledger.interrupted(excuse);
                Halt
            }
            None => {
                let took = began.elapsed().as_secs_f64();
                let what = format!("{what}: expected an answer, but after {took:.1} s: {why}");
                self.failed(Kind::Lost, standing, &what)
            }
        }
    }

    /// A status came that is no success.
    pub(crate) fn refused(
        &self,
        standing: Option<&Standing>,
        began: Instant,
        response: &mut Response,
        what: &str,
    ) -> Halt {
        let status = response.head.status;
        let excuse = self.excuse(standing, began);
        let body = response.text().unwrap_or_else(|why| why.to_string());
        let is_down = excuse == Some(Why::BrokerDown);
        let is_documented = match (status, standing) {
            // The edge has no room, which there must be for all clients of a run; or it stops.
            (503, _) if response.head.is_of_edge => is_down,
            (503, None) => response.head.retry_after && self.may_not_open(&body, began, excuse),
            // Too many are revived at once; or its child has died too often to be, just now.
            (503, Some(it)) => is_down || (response.head.retry_after && it.revives),
            (404, Some(_)) => excuse.is_some(),
            (401, _) => excuse == Some(Why::TokenGone) || self.token_is_old(began, standing),
            // A process that rests is not woken for a stream; and the new one has none of the old.
            (405, Some(it)) => it.revives && self.may_rest(it, began),
            // The broker was told to kill its children while this one started.
            (500, None) => is_down,
            (500, Some(it)) => excuse.is_some() && it.revives,
            _ => false,
        };
        if is_documented {
            self.world.ledger.refused(status);
            return Halt;
        }
        let body = start_of(&body);
        let took = began.elapsed().as_secs_f64();
        let what = format!("{what}: expected success, after {took:.1} s got {status} {body}");
        self.failed(Kind::Status, standing, &what)
    }

    /// Whether no session is opened for a reason that the contract has, and that is the case.
    fn may_not_open(&self, body: &str, began: Instant, excuse: Option<Why>) -> bool {
        let says = |what: &str| body.contains(what);
        if says("shutting down") || says("has just ended") {
            return excuse == Some(Why::BrokerDown);
        }
        if says("ended before it began") {
            return matches!(excuse, Some(Why::BrokerDown | Why::TokenGone));
        }
        if says("of this user are just being opened") {
            return self.world.is_crowded(self.principal, began, 0);
        }
        if says("next try in") {
            // Only these have children that end too soon.
            return self.role() == Role::Wild;
        }
        let is_full = [
            "sessions are taken",
            "are being opened",
            "too little memory",
        ];
        let is_full = is_full.into_iter().find(|what| says(what));
        if let Some(what) = is_full {
            self.world.ledger.count(what);
        }
        is_full.is_some()
    }

    /// Whether a session that revives may have lost its process.
    fn may_rest(&self, standing: &Standing, began: Instant) -> bool {
        let is_newer = standing.generation != self.world.generation();
        let has_ended = standing.is_idle() || standing.doomed || is_newer;
        has_ended || self.is_evictable(standing) || self.world.struck_since(began)
    }

    /// Whether the token used is not the principal's any more; a broker that was struck may hide
    /// that from [`Client::excuse`].
    fn token_is_old(&self, began: Instant, standing: Option<&Standing>) -> bool {
        let tokens = self.world.tokens(self.principal);
        let used = standing.map(|standing| &standing.token);
        let is_other = used.is_some_and(|used| tokens.current.as_ref() != Some(used));
        tokens.current.is_none() || is_other || tokens.in_doubt(began)
    }

    /// The child's or the broker's error came instead of a result.
    pub(crate) fn error_answer(
        &self,
        standing: &Standing,
        began: Instant,
        answer: &Value,
        what: &str,
    ) -> Halt {
        let ended = answer["error"]["code"] == -32000;
        match self.excuse(Some(standing), began).filter(|_| ended) {
            Some(excuse) => {
                self.world.ledger.interrupted(excuse);
                Halt
            }
            None => {
                let answer = start_of(&answer.to_string());
                let what = format!("{what}: expected a result, got {answer}");
                self.failed(Kind::Lost, Some(standing), &what)
            }
        }
    }
}
