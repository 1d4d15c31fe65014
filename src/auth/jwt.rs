//! Tokens of an outside authorization server (RFC 9068, RFC 7519): verified, never issued.

mod algorithm;

pub(crate) use algorithm::Algorithm;
