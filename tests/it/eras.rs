//! Which eras a server speaks: that `check` finds it out of every kind of server that is known, and
//! says it.

use serde_json::{Value, json};

use crate::support::user::as_ourselves;
use crate::support::{Run, TempDir, fake_mcp, run};

/// `check` over these servers, with little patience.
#[track_caller]
fn check(servers: &Value) -> Run {
    let dir = TempDir::new();
    let config = json!({
        "mcpServers": servers,
        "broker": { "start_timeout": "3s", "stop_grace": "200ms", "kill_grace": "200ms" },
    });
    let path = dir.write("config.json", &config.to_string()).unwrap();
    let state = dir.path().join("state");
    let files = ["--config", path.to_str().unwrap()];
    let state = ["--state-dir", state.to_str().unwrap()];
    let checked = run(&[&["check"], as_ourselves(), &files, &state].concat());
    assert!(
        !dir.path().join("state").exists(),
        "it has left something behind: {checked:?}"
    );
    checked
}

/// `check` over the fixture child with these arguments says this.
#[track_caller]
fn assert_eras(args: &[&str], eras: &str, protocol: &str) {
    let checked = check(&json!({ "a": { "command": fake_mcp(), "args": args } }));
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let tools = checked
        .stdout
        .rsplit_once(" tools")
        .map(|(before, _)| before);
    let count = tools.and_then(|before| before.rsplit(' ').next());
    let expected = format!(
        "a: fake_mcp {}, protocol {protocol}, {eras}, {} tools, 3 resources, \
         1 resource templates, 5 prompts",
        env!("CARGO_PKG_VERSION"),
        count.unwrap_or("?"),
    );
    assert_eq!(checked.stdout, expected);
}

const LEGACY: &str = "2025-11-25";
const MODERN: &str = "2026-07-28";

#[test]
fn a_server_that_refuses_a_probe_is_legacy() {
    // TypeScript SDK 1.32 and 2's McpServer, mcp-go 0.58: -32601. FastMCP 1.30: -32602.
    assert_eras(&[], "era legacy", LEGACY);
    assert_eras(&["--at-discover", "invalid"], "era legacy", LEGACY);
}

#[test]
fn a_server_that_a_probe_ends_is_legacy() {
    // rmcp 1.2.
    assert_eras(&["--at-discover", "exit"], "era legacy", LEGACY);
}

#[test]
fn a_server_that_says_nothing_to_a_probe_is_legacy() {
    assert_eras(&["--at-discover", "silence"], "era legacy", LEGACY);
    assert_eras(&["--at-discover", "hang"], "era legacy", LEGACY);
}

#[test]
fn a_server_that_takes_modern_calls_for_legacy_ones_is_legacy() {
    assert_eras(&["--lax"], "era legacy", LEGACY);
}

#[test]
fn a_server_of_both_eras_is_said_to_be_so() {
    let both = "eras legacy and modern";
    // TypeScript SDK 2's serveStdio, rmcp 3.9.
    assert_eras(&["--era", "dual"], both, LEGACY);
    // Python SDK 2.3: a process that was probed would be no legacy one any more.
    let lock = ["--era", "dual", "--at-discover", "lock"];
    assert_eras(&lock, both, LEGACY);
    let garbage = ["--era", "dual", "--garbage", "--slow-ms", "100"];
    assert_eras(&garbage, both, LEGACY);
}

#[test]
fn a_modern_server_is_checked_as_one() {
    assert_eras(&["--era", "modern"], "era modern", MODERN);
}

#[test]
fn a_server_is_checked_in_the_era_that_is_configured() {
    let server = |kind: &str, era: &str| {
        json!({
            "command": fake_mcp(),
            "args": ["--era", kind],
            "broker": { "era": era },
        })
    };
    let checked = check(&json!({
        "dual_as_legacy": server("dual", "legacy"),
        "dual_as_modern": server("dual", "modern"),
        "modern_as_modern": server("modern", "modern"),
        "modern_as_legacy": server("modern", "legacy"),
        "legacy_as_modern": server("legacy", "modern"),
    }));
    assert_eq!(checked.code, Some(1), "{checked:?}");
    let says = |name: &str, words: &str| {
        let start = format!("{name}: ");
        let line = checked.stdout.lines().find(|it| it.starts_with(&start));
        assert!(line.is_some_and(|it| it.contains(words)), "{checked:?}");
    };
    says("dual_as_legacy", "protocol 2025-11-25, era legacy, ");
    says("dual_as_modern", "protocol 2026-07-28, era modern, ");
    says("modern_as_modern", "protocol 2026-07-28, era modern, ");
    says("modern_as_legacy", "FAILED: initialize was refused: ");
    says("modern_as_legacy", "-32022");
    says("legacy_as_modern", "FAILED: server/discover was refused: ");
}

#[test]
fn the_built_in_server_is_legacy() {
    let dir = TempDir::new();
    let state = dir.path().join("state");
    let state = ["--state-dir", state.to_str().unwrap()];
    let checked = run(&[&["check"], as_ourselves(), &state].concat());
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let words = "demo: mcp-broker-demo 0.1.0, protocol 2025-11-25, era legacy, ";
    assert!(checked.stdout.starts_with(words), "{checked:?}");
}
