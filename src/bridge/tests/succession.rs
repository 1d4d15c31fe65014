//! One child after another, and one session after another, in dialogues:
//!
//! ```text
//! > replay VERSION        a session of this revision whose child is new
//! > quota N               a session whose user may have so many requests in flight
//! > bring CLIENT JSON     a POST that the writer thread shall take
//! > next N                the writer thread comes back for more, N times
//! > park                  the session has ended, and the child may get another one; it answers the
//!                         ping
//! > park unheard          the same, but the child hangs
//! > park quick            the same, and the child answers before the reader thread hears of it
//! > before                what follows comes from whoever had the child before
//! > hand over SESSION     the child gets this session, from which comes what follows
//! ```

use super::*;
use crate::jsonrpc;

impl Rig {
    pub(super) fn succeed(&mut self, verb: &str, rest: &str) {
        let (name, more) = rest.split_once(' ').unwrap_or((rest, ""));
        match verb {
            "replay" => *self = Self::replaying(rest),
            "quota" => {
                let max: usize = rest.parse().unwrap();
                let rig = Self::with(Duration::from_secs(30), None, max + 1);
                *self = rig.initialize("2025-11-25");
                assert!(self.shared().options.quota.take(1)); // of another session
            }
            "bring" => {
                let exchange = self.exchange(name, Some(more.as_bytes()));
                self.bridge.post(self.tenant, exchange);
            }
            "next" => (0..rest.parse::<usize>().unwrap()).for_each(|_| self.next()),
            "park" => self.park(rest),
            "before" => self.tenant -= 1,
            "hand" => {
                self.tenant += 1;
                self.bridge.hand_over(more, self.tenant);
            }
            _ => panic!("what is {verb} {rest}?"),
        }
    }

    fn replaying(version: &str) -> Self {
        let handshake = Handshake {
            initialize: format!(r#"{{"protocolVersion":"{version}"}}"#).into(),
            result: format!(r#"{{"protocolVersion":"{version}"}}"#).into(),
            log_level: Some(r#"{"level":"debug"}"#.into()),
            subscriptions: vec![r#"{"uri":"x:1"}"#.into()],
            ..Handshake::default()
        };
        let replay = Some((handshake, Instant::now()));
        Self::with(Duration::from_secs(30), replay, 0)
    }

    fn park(&mut self, how: &str) {
        let (log, asked) = (self.log.clone(), Arc::<Mutex<Option<String>>>::default());
        let its = Arc::clone(&asked);
        self.bridge.connect(Box::new(move |line| {
            let line = str::from_utf8(line).unwrap().trim_end();
            log.note(format!("child {line}"));
            *its.lock() = Some(line.to_owned());
            true
        }));
        let is_parked = self.bridge.park();
        self.log.note(format!("may be parked: {is_parked}"));
        if how != "quick" {
            self.service();
        }
        let asked = asked.lock().take();
        assert_eq!(asked.is_some(), is_parked);
        if let Some(ping) = asked.filter(|_| how != "unheard") {
            let id = jsonrpc::parse(&ping).unwrap().id_text;
            self.child(&jsonrpc::result_response(id, "{}"));
        }
    }

    fn next(&mut self) {
        match self.outbound.next() {
            Some(lines) => {
                let lines = String::from_utf8(lines).unwrap();
                lines
                    .lines()
                    .for_each(|line| self.log.note(format!("child {line}")));
            }
            None => self.log.note("stdin closes"),
        }
    }
}

#[test]
fn replay() {
    check_transcript("replay");
}

#[test]
fn parking() {
    check_transcript("parking");
}

#[test]
fn quota() {
    check_transcript("quota");
}
