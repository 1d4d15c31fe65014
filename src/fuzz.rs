//! Fuzz targets: one function each for what reads bytes from outside. Not part of the program.
//!
//! Each module states its own properties in its `fuzz.rs`, where it can see what it hides from
//! others; this list is what `tests/fuzz` builds for libFuzzer (`scripts/fuzz`), and what a test
//! below replays with the corpora and with mutations of them.

#![allow(unreachable_pub, reason = "public to the package in tests/fuzz")]

pub(crate) mod input;

/// Declares the targets, and the list of them.
macro_rules! targets {
    ($($(#[$doc:meta])* $name:ident = $function:path;)*) => {
        $($(#[$doc])* pub fn $name(data: &[u8]) { $function(data) })*

        #[cfg(test)]
        const TARGETS: &[(&str, fn(&[u8]))] = &[$((stringify!($name), $name)),*];
    };
}

targets! {
    /// `Authorization` header fields.
    bearer = crate::auth::fuzz::bearer;
    /// The chunked coding.
    chunked = crate::edge::fuzz::chunked;
    /// Configuration files.
    config = crate::config::fuzz::document;
    /// What `http` looks for in a head, `Host` and `Origin`, routes.
    fields = crate::http::fuzz::fields;
    /// JSON-RPC messages and batches.
    jsonrpc = crate::jsonrpc::fuzz::message;
    /// Lines of a child's stdout.
    lines = crate::supervisor::fuzz::lines;
    /// Secrets in a child's stderr.
    redact = crate::supervisor::fuzz::redact;
    /// Requests on a connection: heads and bodies.
    request = crate::edge::fuzz::request;
    /// Responses of tiny_http.
    response = crate::edge::fuzz::response;
    /// Event streams, with resumption.
    stream = crate::bridge::fuzz::stream;
    /// Placeholders in a server's environment.
    template = crate::config::fuzz::template;
}

#[cfg(test)]
mod tests;
