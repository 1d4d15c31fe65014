//! libFuzzer's way to `fuzz::redact`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mcp_broker::fuzz::redact(data));
