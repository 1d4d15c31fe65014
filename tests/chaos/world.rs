//! What all clients of a run share: where the broker is and since when, who has which token, which
//! sessions are known, and which process has spoken in which session. Judges nothing; remembers.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::ledger::Ledger;
use crate::places::{Place, Places};
use crate::plan::{Features, PRINCIPALS, Role};
use crate::prng::Prng;

/// The longest that a change of tokens may take to be known to the broker, and a session to end
/// with its token. The contract says one and two seconds; this is for a machine under load.
pub(crate) const TOKEN_LAG: Duration = Duration::from_secs(6);
/// How many sessions are remembered for others to try.
const LISTED: usize = 300;
/// How many outages are remembered; far more than a request can last through.
const OUTAGES: usize = 64;

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) address: SocketAddr,
    pub(crate) features: Features,
    pub(crate) ledger: Ledger,
    places: Places,
    tokens: Vec<Mutex<Tokens>>,
    past: Mutex<Past>,
    listed: Mutex<VecDeque<Arc<Listed>>>,
    /// Which session and principal each process has spoken for.
    nonces: Mutex<HashMap<String, Spoken>>,
    ends: Mutex<Instant>,
}

/// One principal's tokens.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tokens {
    pub(crate) current: Option<String>,
    pub(crate) revoked: Option<String>,
    changed: Option<Instant>,
}

/// The broker's life so far.
#[derive(Default)]
struct Past {
    /// Another one for each of its processes, and for each time between two.
    generation: u64,
    outages: VecDeque<(Instant, Option<Instant>)>,
}

/// A session that others may try to use.
pub(crate) struct Listed {
    pub(crate) id: String,
    pub(crate) principal: usize,
    pub(crate) server: &'static str,
    pub(crate) generation: u64,
    state: AtomicU8,
}

/// How far a listed session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Live,
    /// On the way out, or nobody knows.
    Ending,
    /// The broker has said so.
    Ended,
}

struct Spoken {
    session: String,
    principal: usize,
    server: &'static str,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Listed {
    pub(crate) fn state(&self) -> State {
        match self.state.load(Ordering::SeqCst) {
            0 => State::Live,
            1 => State::Ending,
            _ => State::Ended,
        }
    }

    pub(crate) fn set(&self, state: State) {
        self.state.store(state as u8, Ordering::SeqCst);
    }
}

impl Tokens {
    /// Whether the broker may not know yet what is the case.
    pub(crate) fn in_doubt(&self, since: Instant) -> bool {
        self.changed.is_some_and(|at| at + TOKEN_LAG > since)
    }
}

impl World {
    pub(crate) fn new(seed: u64, address: SocketAddr, features: Features) -> Self {
        Self {
            seed,
            address,
            features,
            ledger: Ledger::new(),
            places: Places::new(),
            tokens: PRINCIPALS.iter().map(|_| Mutex::default()).collect(),
            past: Mutex::default(),
            listed: Mutex::default(),
            nonces: Mutex::default(),
            ends: Mutex::new(Instant::now()),
        }
    }

    /// The choices of one round of one client.
    pub(crate) fn rng(&self, phase: u64, client: usize, round: u64) -> Prng {
        Prng::derive(self.seed, &[phase, client as u64, round])
    }

    /// Clients stop at `when`.
    pub(crate) fn end_at(&self, when: Instant) {
        *lock(&self.ends) = when;
    }

    pub(crate) fn left(&self) -> Duration {
        lock(&self.ends).saturating_duration_since(Instant::now())
    }

    pub(crate) fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    /// Lets time pass, as long as the run goes on.
    pub(crate) fn think(&self, time: Duration) {
        thread::sleep(time.min(self.left()));
    }

    pub(crate) fn tokens(&self, principal: usize) -> Tokens {
        lock(&self.tokens[principal]).clone()
    }

    /// A principal gets a token, or loses the one it has.
    pub(crate) fn set_token(&self, principal: usize, token: Option<String>) {
        let mut tokens = lock(&self.tokens[principal]);
        if let Some(old) = tokens.current.take() {
            tokens.revoked = Some(old);
        }
        tokens.current = token;
        tokens.changed = Some(Instant::now());
    }

    pub(crate) fn generation(&self) -> u64 {
        lock(&self.past).generation
    }

    /// A principal is about to open a session.
    pub(crate) fn take_place(&self, principal: usize) -> Arc<Place> {
        self.places.take(principal, self.generation())
    }

    /// Whether a principal may have had all of its sessions at some time since, so that one had to
    /// make room.
    pub(crate) fn is_crowded(&self, principal: usize, since: Instant, generation: u64) -> bool {
        self.places.were_all_taken(principal, since, generation)
    }

    /// The broker is about to be struck. To be called before the blow.
    pub(crate) fn outage_begins(&self) {
        let mut past = lock(&self.past);
        past.generation += 1;
        if past.outages.len() == OUTAGES {
            past.outages.pop_front();
        }
        past.outages.push_back((Instant::now(), None));
    }

    /// It listens again.
    pub(crate) fn outage_ends(&self) {
        let mut past = lock(&self.past);
        // Again, because connections may have been made to the old one until now.
        past.generation += 1;
        if let Some((_, end)) = past.outages.back_mut() {
            *end = Some(Instant::now());
        }
    }

    /// Whether the broker was struck, or down, at any time since.
    pub(crate) fn struck_since(&self, since: Instant) -> bool {
        let past = lock(&self.past);
        past.outages
            .iter()
            .any(|(_, end)| end.is_none_or(|end| end > since))
    }

    /// Waits until the broker is up; false when the run is over before.
    pub(crate) fn await_broker(&self) -> bool {
        while !self.is_over() {
            let is_down = lock(&self.past)
                .outages
                .back()
                .is_some_and(|(_, end)| end.is_none());
            if !is_down {
                return true;
            }
            self.think(Duration::from_millis(50));
        }
        false
    }

    /// Lets others try a session.
    pub(crate) fn list(
        &self,
        id: &str,
        principal: usize,
        server: &'static str,
        generation: u64,
    ) -> Arc<Listed> {
        let entry = Arc::new(Listed {
            id: id.to_owned(),
            principal,
            server,
            generation,
            state: AtomicU8::new(State::Live as u8),
        });
        let mut listed = lock(&self.listed);
        if listed.len() == LISTED {
            listed.pop_front();
        }
        listed.push_back(Arc::clone(&entry));
        entry
    }

    /// Some session of somebody else.
    pub(crate) fn foreign(&self, principal: usize, rng: &mut Prng) -> Option<Arc<Listed>> {
        let listed = lock(&self.listed);
        let others: Vec<_> = listed
            .iter()
            .filter(|it| it.principal != principal)
            .collect();
        others.get(rng.index(others.len())).map(|it| Arc::clone(it))
    }

    /// A process has spoken in a session.
    ///
    /// # Errors
    /// What it should not have: it had spoken for somebody else before.
    pub(crate) fn spoke(
        &self,
        nonce: &str,
        session: &str,
        principal: usize,
        server: &'static str,
    ) -> Result<(), String> {
        let mut nonces = lock(&self.nonces);
        let now = Spoken {
            session: session.to_owned(),
            principal,
            server,
        };
        let Some(before) = nonces.insert(nonce.to_owned(), now) else {
            return Ok(());
        };
        let same_owner = before.principal == principal && before.server == server;
        let parked = self.features.park && server == "park";
        if before.session == session || (same_owner && parked) {
            return Ok(());
        }
        Err(format!(
            "process {nonce} had spoken in session {} of {} before",
            before.session, PRINCIPALS[before.principal].0
        ))
    }

    pub(crate) fn role(principal: usize) -> Role {
        PRINCIPALS[principal].1
    }
}
