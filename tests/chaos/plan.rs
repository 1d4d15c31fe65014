//! What a run consists of: servers, principals, clients, and when the broker is struck. Decides,
//! does nothing.

use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::prng::Prng;

/// A session without a request for so long ends.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(8);
/// Until then a server must have answered `initialize`.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(3);
/// A session that a new one of the same user makes room for.
pub(crate) const MAX_SESSIONS_PER_USER: usize = 40;

/// What of the contract is checked; each can be switched off for a broker that lacks it.
#[derive(Clone, Copy)]
pub(crate) struct Features {
    /// `"revive": true`: a session survives its child and its broker.
    pub(crate) revive: bool,
    /// `"park"`: a child may serve the next session of the same user.
    pub(crate) park: bool,
    /// A process that leaves its group and session still ends with its child.
    pub(crate) escape: bool,
    /// What a child has started ends too when the broker is killed, at the latest with the start
    /// of the next one. (A child itself always ends with its broker.)
    pub(crate) sweep: bool,
}

impl Features {
    /// What the broker beside this harness has.
    pub(crate) const PRESENT: Self = Self {
        revive: true,
        park: true,
        escape: true,
        sweep: true,
    };

    pub(crate) fn set(&mut self, name: &str, value: bool) -> bool {
        let feature = match name {
            "revive" => &mut self.revive,
            "park" => &mut self.park,
            "escape" => &mut self.escape,
            "sweep" => &mut self.sweep,
            _ => return false,
        };
        *feature = value;
        true
    }
}

/// What a principal's clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Behave, leave nothing behind, and may therefore expect everything.
    Steady,
    /// Misbehave in every way, and make their children do so.
    Wild,
    /// Open sessions without end, so that older ones make room.
    Greedy,
    /// Have their token taken away and given back.
    Fickle,
}

/// Names and roles of all principals.
pub(crate) const PRINCIPALS: [(&str, Role); 12] = [
    ("steady-0", Role::Steady),
    ("steady-1", Role::Steady),
    ("steady-2", Role::Steady),
    ("steady-3", Role::Steady),
    ("steady-4", Role::Steady),
    ("steady-5", Role::Steady),
    ("wild-0", Role::Wild),
    ("wild-1", Role::Wild),
    ("wild-2", Role::Wild),
    ("greedy-0", Role::Greedy),
    ("fickle-0", Role::Fickle),
    ("fickle-1", Role::Fickle),
];

/// Who a client works for: an index into [`PRINCIPALS`].
pub(crate) fn principal_of(client: usize) -> usize {
    const OF_20: [Role; 20] = {
        let mut roles = [Role::Steady; 20];
        let mut at = 12;
        while at < 20 {
            roles[at] = match at {
                12..=16 => Role::Wild,
                17..=18 => Role::Fickle,
                _ => Role::Greedy,
            };
            at += 1;
        }
        roles
    };
    let role = OF_20[client % 20];
    let own: Vec<usize> = (0..PRINCIPALS.len())
        .filter(|at| PRINCIPALS[*at].1 == role)
        .collect();
    own[client % 20 % own.len()]
}

/// A server: its name and the fixture's arguments.
type Server = (&'static str, &'static [&'static str]);

const SERVERS: [Server; 13] = [
    ("plain", &[]),
    ("chatty", &["--garbage"]),
    ("family", &["--grandchild"]),
    ("slow", &["--slow-ms", "200"]),
    ("park", &[]),
    ("revive", &[]),
    ("mortal", &["--die-after", "4"]),
    ("killed", &["--kill-after", "3"]),
    ("stubborn", &["--ignore-term"]),
    ("screamer", &["--flood-stderr"]),
    ("dies", &["--exit-at-start", "3"]),
    ("stillborn", &["--kill-after", "0"]),
    ("mute", &["--mute"]),
];
/// Servers whose children do nothing wrong unasked.
pub(crate) const CALM: [&str; 6] = ["plain", "chatty", "family", "slow", "park", "revive"];
/// Servers whose children never answer `initialize`.
pub(crate) const FAILING: [&str; 3] = ["dies", "stillborn", "mute"];

/// The variable by which a run finds every process that its children have started.
pub(crate) fn mark(run: &str) -> String {
    format!("CHAOS_RUN={run}")
}

/// The broker's configuration file.
pub(crate) fn config(fixture: &Path, run: &str, features: Features) -> Value {
    let server = |(name, args): &Server| {
        let mut entry = json!({
            "command": fixture,
            "args": args,
            "env": { "CHAOS_RUN": run, "CHAOS_USER": "${user.name}", "CHAOS_SERVER": name },
        });
        if *name == "park" && features.park {
            entry["broker"] = json!({ "park": "5s" });
        }
        if *name == "revive" && features.revive {
            entry["broker"] = json!({ "revive": true });
        }
        ((*name).to_owned(), entry)
    };
    let servers: Map<String, Value> = SERVERS.iter().map(server).collect();
    json!({
        "mcpServers": servers,
        "broker": {
            "max_sessions": 600,
            "max_sessions_per_user": MAX_SESSIONS_PER_USER,
            "idle_timeout": format!("{}s", IDLE_TIMEOUT.as_secs()),
            "start_timeout": format!("{}s", START_TIMEOUT.as_secs()),
            "drain": "2s",
            "stop_grace": "300ms",
            "kill_grace": "300ms",
        },
    })
}

/// What happens to the broker, or to a token.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Blow {
    /// SIGTERM, and a new start.
    Terminate,
    /// SIGKILL, and a new start.
    Kill,
    /// SIGTERM twice, and a new start.
    Hurry,
    /// The token of this principal is revoked, or made anew.
    Token(usize),
}

/// The blows of a storm of this length, by time. The last quarter is left to the broker alone, so
/// that what it has come to hold by then can be measured.
pub(crate) fn blows(seed: u64, length: Duration) -> Vec<(Duration, Blow)> {
    let mut rng = Prng::derive(seed, &[u64::MAX]);
    let end = length.mul_f64(0.75);
    let longest_gap = if length > Duration::from_secs(300) {
        40
    } else {
        11
    };
    let seconds = |rng: &mut Prng, low, high| Duration::from_secs(rng.between(low, high));
    let mut blows = Vec::new();
    let mut at = seconds(&mut rng, 4, 8);
    while at < end {
        let blow = rng.pick(Blow::Kill, &[Blow::Kill, Blow::Terminate, Blow::Hurry]);
        blows.push((at, blow));
        at += seconds(&mut rng, 6, longest_gap);
    }
    let fickle: Vec<usize> = (0..PRINCIPALS.len())
        .filter(|at| PRINCIPALS[*at].1 == Role::Fickle)
        .collect();
    let mut at = seconds(&mut rng, 1, 4);
    while at < end {
        blows.push((at, Blow::Token(fickle[rng.index(fickle.len())])));
        at += seconds(&mut rng, 2, 8);
    }
    blows.sort_by_key(|(at, _)| *at);
    blows
}
