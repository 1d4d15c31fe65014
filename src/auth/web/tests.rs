//! Tests of outgoing requests, against small servers on the loopback interface.

pub(in crate::auth) mod fake;
