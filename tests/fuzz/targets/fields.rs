//! libFuzzer's way to `fuzz::fields`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mcp_broker::fuzz::fields(data));
