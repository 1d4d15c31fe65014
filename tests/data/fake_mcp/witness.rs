//! Tools whose every word says for whom it was said: mark of the call, user and process. The
//! torture run (`tests/chaos`) checks them, and makes this process flood or die in the middle of a
//! call.

use std::env;
use std::fs::File;
use std::io::{self, Read, Write};
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::call::{Call, Fault, Outcome, Reply};
use crate::message::Object;
use crate::tools::text;

/// Runs the tool `name`; `None` if it is not one of these.
pub(crate) fn run(call: &Call, name: &str, arguments: &Object) -> Option<Reply> {
    match name {
        "witness" => Some(witness(call, arguments)),
        "deluge" => Some(deluge(call, arguments)),
        _ => None,
    }
}

/// Reports progress `steps` times, `step_ms` apart, then answers with `pad` bytes of padding; or
/// does with `die` what that says.
fn witness(call: &Call, arguments: &Object) -> Reply {
    let number = |key: &str| arguments.number(key).unwrap_or_default();
    let mark = arguments.text("mark").unwrap_or_default();
    let (steps, step_ms) = (number("steps"), number("step_ms"));
    for step in 1..=steps {
        call.sleep(step_ms)?;
        progress(call, &mark, step, steps);
    }
    if steps == 0 {
        call.sleep(step_ms)?;
    }
    if let Some(how) = arguments.text("die") {
        return die(&how);
    }
    let mut said = testimony(&mark);
    said["pad"] = Value::from("x".repeat(usize::try_from(number("pad")).unwrap_or_default()));
    text(said.to_string())
}

/// Sends `n` log messages of `bytes` bytes more than needed, numbered over the life of the process;
/// among them `garbage` lines that are no message, and `stderr` lines there.
fn deluge(call: &Call, arguments: &Object) -> Reply {
    static SENT: AtomicU64 = AtomicU64::new(0);
    let number = |key: &str| arguments.number(key).unwrap_or_default();
    let mark = arguments.text("mark").unwrap_or_default();
    let padding = "x".repeat(usize::try_from(number("bytes")).unwrap_or_default());
    for index in 0..number("n") {
        let mut said = testimony(&mark);
        said["no"] = Value::from(SENT.fetch_add(1, Ordering::SeqCst) + 1);
        said["pad"] = Value::from(padding.as_str());
        let params = json!({ "level": "info", "logger": "deluge", "data": said }).to_string();
        let wire = &call.server.wire;
        wire.notification("notifications/message", Some(&params));
        if index < number("garbage") {
            wire.garbage();
        }
        if index < number("stderr") {
            // Nobody is left to tell when stderr is gone.
            let _ = writeln!(io::stderr(), "{mark}: noise {index}");
        }
    }
    text(testimony(&mark).to_string())
}

fn progress(call: &Call, mark: &str, step: u64, steps: u64) {
    let Some(token) = call.meta.raw("progressToken") else {
        return;
    };
    let message = Value::from(testimony(mark).to_string());
    let params = format!(
        r#"{{"progressToken":{token},"progress":{step},"total":{steps},"message":{message}}}"#
    );
    let wire = &call.server.wire;
    wire.notification("notifications/progress", Some(&params));
}

fn die(how: &str) -> Reply {
    match how {
        "exit" => crate::process::quit(3),
        "abort" => process::abort(),
        // Without an answer, but alive.
        "never" => Ok(Outcome::Silent),
        "signal" => crate::process::kill_itself(),
        _ => Err(Fault::params(format!("die: {how}"))),
    }
}

/// Who speaks, for whom, about which call.
fn testimony(mark: &str) -> Value {
    let variable = |name: &str| env::var(name).unwrap_or_default();
    json!({
        "mark": mark,
        "user": variable("CHAOS_USER"),
        "server": variable("CHAOS_SERVER"),
        "nonce": nonce(),
        "pid": process::id(),
    })
}

/// What no other process has: 64 random bits, drawn once.
fn nonce() -> &'static str {
    static NONCE: OnceLock<String> = OnceLock::new();
    NONCE.get_or_init(|| {
        let mut bytes = [0; 8];
        let drawn = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
        match drawn {
            Ok(()) => format!("{:016x}", u64::from_ne_bytes(bytes)),
            Err(error) => format!("no nonce: {error}"),
        }
    })
}
