//! `tools/call`: the tools that the broker's own tests call, to look into the child or to make it
//! misbehave.

use std::env;
use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::call::{Ask, Call, Era, Fault, Outcome, Reply, State};
use crate::message::{Answer, Object, id_key, quote};
use crate::process;
use crate::tools::{ask_name, roots, sample, text};
use crate::witness;

/// Runs the tool `name`.
pub(crate) fn run(call: &Call, name: &str) -> Reply {
    let arguments = call.arguments();
    let number = |key: &str| arguments.number(key).unwrap_or_default();
    match name {
        "echo" => Ok(Outcome::Verbatim(echo(call))),
        "raw" => {
            let result = arguments.text("result");
            let result = result.ok_or_else(|| Fault::params("result is missing"))?;
            Ok(Outcome::Verbatim(result))
        }
        "big" => text("x".repeat(usize::try_from(number("bytes")).unwrap_or_default())),
        "env" => environment(arguments.text("name")),
        "pid" => match process::ids() {
            Ok(ids) => text(ids.to_string()),
            Err(error) => Err(Fault::Tool(format!("/proc/self/stat: {error}"))),
        },
        "received" => text(call.server.received()),
        "sleep" => {
            let ms = number("ms");
            call.sleep(ms)?;
            text(format!("slept {ms} ms"))
        }
        "count" => count(call, number("n"), number("delay_ms")),
        "flood" => flood(call, number("n"), number("bytes")),
        "log" => log(call, &arguments),
        "ask" => ask(call, &arguments),
        "notify" => {
            let method = method(&arguments)?;
            call.server
                .wire
                .notification(&method, arguments.raw("params"));
            text("sent")
        }
        "notify_after" => notify_after(call, &arguments),
        "change_after" => change_after(call, &arguments),
        "touch_resource" => {
            let uri = arguments.text("uri").unwrap_or_default();
            call.server.touch(&uri);
            text("touched")
        }
        "stderr" => stderr(&arguments),
        "spawn_grandchild" => {
            let escape = process::Escape {
                ignore_term: arguments.flag("ignore_term"),
                setsid: arguments.flag("setsid"),
                clear_env: arguments.flag("clear_env"),
                orphan: arguments.flag("orphan"),
            };
            match process::grandchild(escape) {
                Ok(pid) => text(pid.to_string()),
                Err(error) => Err(Fault::Tool(format!("grandchild: {error}"))),
            }
        }
        _ => pry(name, &arguments)
            .or_else(|| witness::run(call, name, &arguments))
            .unwrap_or_else(|| misbehave(call, name, &arguments)),
    }
}

/// Reaches for what may be somebody else's; `None` for any other name.
fn pry(name: &str, arguments: &Object) -> Option<Reply> {
    let path = || arguments.text("path").unwrap_or_default();
    let number = |key: &str| {
        let number = arguments.number(key).unwrap_or_default();
        i32::try_from(number).unwrap_or_default()
    };
    let tried = match name {
        "read_file" => process::read(&path(), number("offset")),
        "write_file" => process::write(&path()),
        "rename" => process::rename(&path(), &arguments.text("to").unwrap_or_default()),
        "connect" => process::connect(&arguments.text("name").unwrap_or_default()),
        "signal" => process::signal(number("pid"), number("signal")),
        "descriptors" => process::descriptors(),
        _ => return None,
    };
    Some(match tried {
        Ok(seen) => text(seen),
        Err(error) => Err(Fault::Tool(error.to_string())),
    })
}

fn misbehave(call: &Call, name: &str, arguments: &Object) -> Reply {
    match name {
        "exit" => {
            let code = arguments.value("code").and_then(|code| code.as_i64());
            process::quit(code.and_then(|code| code.try_into().ok()).unwrap_or(0))
        }
        "garbage" => {
            call.server.wire.garbage();
            text("wrote garbage")
        }
        "longline" => {
            let bytes = arguments.number("bytes").unwrap_or_default();
            let bytes = usize::try_from(bytes).unwrap_or_default();
            call.server.wire.line(&"x".repeat(bytes));
            text(format!("wrote {bytes} bytes"))
        }
        "deaf" => {
            call.server.go_deaf();
            text("deaf from now on")
        }
        "result_before_progress" => {
            call.server
                .answer(&call.id, call.era, text("progress follows"));
            call.progress(1, 1);
            Ok(Outcome::Silent)
        }
        "escape_id" => {
            let id = escaped(&call.id);
            call.server.answer(&id, call.era, text("escaped"));
            Ok(Outcome::Silent)
        }
        "late_after_cancel" => {
            let ms = arguments.number("ms").unwrap_or(60_000);
            if call.gate.cancelled_within(Duration::from_millis(ms)) {
                return text("cancelled, and answered all the same");
            }
            text("not cancelled")
        }
        _ => Err(Fault::params(format!("unknown tool: {name}"))),
    }
}

/// The arguments as text and as `structuredContent`, byte for byte.
fn echo(call: &Call) -> String {
    let arguments = call.arguments_text();
    let kind = match call.era {
        Era::Legacy => "",
        Era::Modern => r#","resultType":"complete""#,
    };
    format!(
        r#"{{"content":[{{"type":"text","text":{}}}],"structuredContent":{arguments}{kind}}}"#,
        quote(arguments)
    )
}

fn environment(name: Option<String>) -> Reply {
    if let Some(name) = name {
        return match env::var_os(&name) {
            Some(value) => text(value.to_string_lossy()),
            None => Err(Fault::Tool(format!("{name} is not set"))),
        };
    }
    let names = env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    let mut names: Vec<String> = names.collect();
    names.sort();
    text(serde_json::Value::from(names).to_string())
}

fn count(call: &Call, n: u64, delay_ms: u64) -> Reply {
    for done in 1..=n {
        call.sleep(delay_ms)?;
        call.progress(done, n);
    }
    text(format!("counted to {n}"))
}

/// Sends as fast as it can: progress if the client wants to hear of it, else log messages.
fn flood(call: &Call, n: u64, bytes: u64) -> Reply {
    let padding = "x".repeat(usize::try_from(bytes).unwrap_or_default());
    for done in 1..=n {
        let (method, params) = match call.meta.raw("progressToken") {
            Some(token) => (
                "notifications/progress",
                format!(r#"{{"progressToken":{token},"progress":{done},"message":"{padding}"}}"#),
            ),
            None => (
                "notifications/message",
                format!(r#"{{"level":"info","data":{{"n":{done},"padding":"{padding}"}}}}"#),
            ),
        };
        call.server.wire.notification(method, Some(&params));
        // Leaves the lock on stdout to whoever else has something to say.
        call.sleep(0)?;
        thread::yield_now();
    }
    text(format!("sent {n}"))
}

fn log(call: &Call, arguments: &Object) -> Reply {
    let n = arguments.number("n").unwrap_or(1);
    let level = arguments.text("level").unwrap_or("info".into());
    for index in 1..=n {
        call.log(&level, &format!("line {index}"));
    }
    text(format!("logged {n}"))
}

/// The request to send the user to a page, with the id that the legacy era wants.
fn visit(era: Era) -> Ask {
    let mut params =
        json!({ "mode": "url", "message": "Look there.", "url": "https://example.org/tour" });
    if era == Era::Legacy {
        params["elicitationId"] = "tour".into();
    }
    Ask {
        key: "answer",
        method: "elicitation/create",
        params,
    }
}

/// Asks, whatever the client has declared; `id`, any JSON value, is the request's id towards a
/// legacy client.
fn ask(call: &Call, arguments: &Object) -> Reply {
    let ask = match arguments.text("kind").as_deref() {
        Some("sampling") => sample("answer", "Say something."),
        Some("roots") => roots("answer"),
        Some("url") => visit(call.era),
        _ => ask_name("answer", "What is your name?"),
    };
    let answers = match (arguments.raw("id"), call.era) {
        (Some(id), Era::Legacy) => call.ask_as(vec![id_key(id)], vec![ask])?,
        _ => call.ask_all(State::Optional, vec![ask])?,
    };
    match answers.into_iter().next() {
        Some(Answer::Result(answer)) => text(answer),
        Some(Answer::Error(error)) => Err(Fault::Tool(error)),
        None => Err(Fault::Tool("no answer".into())),
    }
}

fn notify_after(call: &Call, arguments: &Object) -> Reply {
    let method = method(arguments)?;
    let ms = arguments.number("ms").unwrap_or_default();
    call.server.answer(&call.id, call.era, text("will send"));
    // Not `call.sleep`: the request is over, there is nothing left to cancel.
    thread::sleep(Duration::from_millis(ms));
    call.server
        .wire
        .notification(&method, arguments.raw("params"));
    Ok(Outcome::Silent)
}

/// Changes a list when its own request is over.
fn change_after(call: &Call, arguments: &Object) -> Reply {
    let list = match arguments.text("list").as_deref() {
        Some("tools") => "tools",
        Some("prompts") => "prompts",
        _ => return Err(Fault::params("list is neither tools nor prompts")),
    };
    let ms = arguments.number("ms").unwrap_or_default();
    call.server.answer(&call.id, call.era, text("will change"));
    thread::sleep(Duration::from_millis(ms));
    call.server.change_list(list);
    Ok(Outcome::Silent)
}

fn method(arguments: &Object) -> Result<String, Fault> {
    let method = arguments.text("method");
    method.ok_or_else(|| Fault::params("method is missing"))
}

fn stderr(arguments: &Object) -> Reply {
    let line = arguments.text("text").unwrap_or_default();
    let n = arguments.number("n").unwrap_or(1);
    let mut err = io::stderr().lock();
    for _ in 0..n {
        if let Err(error) = writeln!(err, "{line}") {
            return Err(Fault::Tool(format!("stderr: {error}")));
        }
    }
    text(format!("wrote {n}"))
}

/// A string id with every UTF-16 unit as `\uXXXX`; any other id as it is.
fn escaped(id: &str) -> String {
    let Ok(plain) = serde_json::from_str::<String>(id) else {
        return id.to_owned();
    };
    let units: String = plain
        .encode_utf16()
        .map(|unit| format!("\\u{unit:04x}"))
        .collect();
    format!("\"{units}\"")
}
