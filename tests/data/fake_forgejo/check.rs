//! The tests of `fake_forgejo`: a program of its own, as Cargo builds no plain example that has
//! tests of itself.
#![allow(dead_code)] // what only `main` uses

mod api;
mod authorize;
mod control;
mod faults;
mod http;
mod jwt;
mod options;
mod routes;
mod state;
#[cfg(test)]
mod tests;
mod token;
