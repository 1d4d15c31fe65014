//! libFuzzer's way to `fuzz::bearer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mcp_broker::fuzz::bearer(data));
