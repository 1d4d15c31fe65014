//! The integration tests: the real program over real children, spoken to over real sockets. What
//! they have in common is in `support`; each other module is one of the broker's promises.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "the helpers of tests fail as tests do"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "the rules for threads and children are the broker's, not its tests'"
)]

mod admin;
mod admission;
mod auth;
mod bytes;
mod children;
mod cli;
mod edge;
mod eras;
mod isolation;
mod modern;
mod orphans;
mod parking;
mod revival;
mod sessions;
mod shutdown;
mod sign_in;
mod streams;
mod support;
mod systemd;
mod tidy;
