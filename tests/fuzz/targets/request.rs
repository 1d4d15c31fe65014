//! libFuzzer's way to `fuzz::request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mcp_broker::fuzz::request(data));
