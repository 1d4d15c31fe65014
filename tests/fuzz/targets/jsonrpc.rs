//! libFuzzer's way to `fuzz::jsonrpc`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mcp_broker::fuzz::jsonrpc(data));
