//! Signing in: the broker as an authorization server of its own in front of the stand-in for
//! Forgejo, as a protected resource, and behind an outside authorization server.
//!
//! Tests are named after the requirements R1 to R24 (protected resource) and S1 to S19
//! (authorization server) of the MCP specification's revisions, by their numbers, where they are
//! about one of them. `hostile` is the suite of those who mean harm.

mod codes;
mod consent;
mod cookies;
mod discovery;
mod hostile;
mod jwt;
mod limits;
mod people;
mod redirects;
mod refresh;
mod registration;
mod renewal;
mod resource;
mod resting;
mod start;
mod store;
mod upstream;
