//! libFuzzer's way to `fuzz::stream`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mcp_broker::fuzz::stream(data));
