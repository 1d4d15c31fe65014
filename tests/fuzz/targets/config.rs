//! libFuzzer's way to `fuzz::config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mcp_broker::fuzz::config(data));
