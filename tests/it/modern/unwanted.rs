//! Servers that do not say which eras they speak, and users who are no more while they are asked.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::user;
use crate::support::{Broker, TempDir, eventually, fake_mcp, process, within};

/// A server that takes everything and says nothing, and writes down its pid.
fn mute(file: &Path) -> serde_json::Value {
    let file = file.display();
    let script = format!("echo $$ >>{file}; exec cat >/dev/null");
    json!({ "command": "/bin/sh", "args": ["-c", script] })
}

fn pids(file: &Path) -> Vec<i32> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

#[test]
fn a_mute_server_keeps_nobody_from_another() {
    let dir = TempDir::new();
    let file = dir.path().join("pids");
    let users: Vec<String> = (0..16).map(|n| format!("user{n}")).collect();
    let setup = Broker::setup()
        .server_entry("mute", mute(&file))
        .server_entry("good", json!({ "command": fake_mcp() }))
        .setting("start_timeout", "20s");
    let setup = users
        .iter()
        .fold(setup, |setup, name| setup.user(name, &[]));
    let broker = setup.start();
    let asking = users.iter().map(|name| {
        let mut client = user(&broker, name).at("/mcp/mute");
        let message = client.message("tools/list", json!({}));
        let (answered, answer) = std::sync::mpsc::channel();
        std::thread::spawn(move || answered.send(client.post(&message)));
        answer
    });
    let asking: Vec<_> = asking.collect();
    eventually("it is probed", || pids(&file).len() == 1);
    // Those who find too many waiting are told to come again.
    let refused = |asked: &std::sync::mpsc::Receiver<crate::support::Response>| {
        asked.try_recv().ok().filter(|it| it.status == 503)
    };
    let mut busy = Vec::new();
    eventually("the others are told", || {
        busy.extend(asking.iter().filter_map(refused));
        busy.len() >= 8
    });
    assert_eq!(busy[0].header("Retry-After"), Some("1"));
    let begun = Instant::now();
    let answer = broker.user("user0").at("/mcp/good").initialize();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(pids(&file).len(), 1);
}

#[test]
fn the_process_that_is_asked_for_somebody_goes_with_them() {
    let dir = TempDir::new();
    let file = dir.path().join("pids");
    let broker = Broker::setup()
        .server_entry("mute", mute(&file))
        .setting("start_timeout", "60s")
        .user("ann", &[])
        .start();
    let mut client = user(&broker, "ann");
    let message = client.message("tools/list", json!({}));
    let asking = std::thread::spawn(move || client.post(&message));
    eventually("it is probed", || pids(&file).len() == 1);
    assert_eq!(broker.token_command(&["revoke", "ann"]).code, Some(0));
    let pid = pids(&file)[0];
    within(Duration::from_secs(2), "it is gone", || !process::runs(pid));
    let response = asking.join().unwrap();
    assert_eq!(response.status, 401, "{response:?}");
    assert_eq!(pids(&file), [pid]);
}
