//! Clients of the modern era (2026-07-28) over children of each kind, and legacy clients over
//! modern children.

mod bytes;
mod front;
mod going;
mod legacy;
mod shared;
mod suspended;
mod unwanted;

use crate::support::Broker;
use crate::support::broker::Setup;
use crate::support::modern::Modern;

/// The kinds of children.
const KINDS: [&str; 3] = ["legacy", "modern", "dual"];

fn setup(kind: &str) -> Setup {
    Broker::setup().server("fake", &["--era", kind])
}

#[track_caller]
fn over(kind: &str) -> Broker {
    setup(kind).start()
}

fn client(broker: &Broker) -> Modern {
    Modern::new(broker.addr())
}

fn user(broker: &Broker, name: &str) -> Modern {
    client(broker).with_token(broker.token(name))
}
