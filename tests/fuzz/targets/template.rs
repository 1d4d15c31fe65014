//! libFuzzer's way to `fuzz::template`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mcp_broker::fuzz::template(data));
