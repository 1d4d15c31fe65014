//! libFuzzer's way to `fuzz::lines`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mcp_broker::fuzz::lines(data));
