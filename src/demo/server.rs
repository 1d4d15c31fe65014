//! What the demo server says: lines and the time go in, lines come out, nothing is read, written or
//! waited for here. The loop is in [`super`], what is offered in [`catalog`].

use std::io::{self, Write};
use std::mem;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Map, Value, json};

use super::catalog;
use super::message::{
    Fault, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR, RESOURCE_NOT_FOUND,
    error_response, number, progress_token, response, text_argument, text_param, text_result,
};
use crate::clock;
use crate::mcp::LOG_LEVELS;

/// Revisions of the protocol that it speaks, oldest first.
const VERSIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

/// The level that `count` logs at: its place in [`LOG_LEVELS`].
const INFO: usize = 1;

/// Calls that may take their time side by side.
const MAX_JOBS: usize = 64;

/// How long `ask` waits for the user.
const ASK_TIMEOUT: Duration = Duration::from_secs(600);

/// A call that is answered later: by the clock, or by the client.
struct Job {
    /// The id of the call.
    id: Value,
    /// When it moves on by itself.
    due: Instant,
    kind: Kind,
}

enum Kind {
    Count {
        done: u64,
        to: u64,
        pause: Duration,
        token: Option<Value>,
    },
    /// Waits for the client's response to the request of this id.
    Ask { request: u64 },
}

/// What comes of a request: a result, or `None` when a [`Job`] answers it later.
type Outcome = Result<Option<Value>, Fault>;

pub(super) struct Server {
    user: Option<String>,
    /// The client has declared elicitation by form.
    may_ask: bool,
    /// Place in [`LOG_LEVELS`]; `None` until the client asks for logs.
    level: Option<usize>,
    jobs: Vec<Job>,
    /// Requests sent to the client so far; each is the id of the next.
    asked: u64,
    /// Lines that are still to be written.
    out: Vec<u8>,
}

impl Server {
    pub(super) fn new(user: Option<String>) -> Self {
        Self {
            user,
            may_ask: false,
            level: None,
            jobs: Vec::new(),
            asked: 0,
            out: Vec::new(),
        }
    }

    /// When [`Server::advance`] has something to do, if ever.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.jobs.iter().map(|job| job.due).min()
    }

    /// Writes what there is to say, in one piece.
    pub(super) fn flush(&mut self, output: &mut impl Write) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        output.write_all(&self.out)?;
        self.out.clear();
        output.flush()
    }

    /// Takes one line from the client.
    pub(super) fn line(&mut self, line: &[u8], now: Instant) {
        if line.trim_ascii().is_empty() {
            return;
        }
        let answer = match serde_json::from_slice(line) {
            Err(error) => Some(error_response(
                &Value::Null,
                Fault(PARSE_ERROR, format!("not JSON: {error}")),
            )),
            Ok(Value::Array(batch)) if !batch.is_empty() => {
                let answers: Vec<Value> = batch
                    .into_iter()
                    .filter_map(|message| self.message(message, now))
                    .collect();
                (!answers.is_empty()).then_some(Value::Array(answers))
            }
            Ok(message) => self.message(message, now),
        };
        if let Some(answer) = answer {
            self.send(&answer);
        }
    }

    /// Moves on every job that is due.
    pub(super) fn advance(&mut self, now: Instant) {
        for mut job in mem::take(&mut self.jobs) {
            if job.due > now || !self.step(&mut job) {
                self.jobs.push(job);
            }
        }
    }

    /// One step of a job. True when that was its last.
    fn step(&mut self, job: &mut Job) -> bool {
        let result = match &mut job.kind {
            Kind::Count {
                done,
                to,
                pause,
                token,
            } => {
                *done += 1;
                job.due += *pause;
                if let Some(token) = token {
                    let params = json!({ "progressToken": token, "progress": *done, "total": *to });
                    self.notify("notifications/progress", &params);
                }
                if *done < *to {
                    return false;
                }
                text_result(&format!("counted to {to}"), false)
            }
            Kind::Ask { request } => {
                self.notify(
                    "notifications/cancelled",
                    &json!({ "requestId": *request, "reason": "timed out" }),
                );
                text_result("nobody answered in time", true)
            }
        };
        self.send(&response(&job.id, &result));
        true
    }

    fn send(&mut self, message: &Value) {
        self.out.extend_from_slice(message.to_string().as_bytes());
        self.out.push(b'\n');
    }

    fn notify(&mut self, method: &str, params: &Value) {
        self.send(&json!({ "jsonrpc": "2.0", "method": method, "params": params }));
    }

    /// Takes one message; gives the answer, if there is one now.
    fn message(&mut self, message: Value, now: Instant) -> Option<Value> {
        let invalid = |why: &str| {
            Some(error_response(
                &Value::Null,
                Fault(INVALID_REQUEST, why.into()),
            ))
        };
        let Value::Object(mut message) = message else {
            return invalid("a message must be an object");
        };
        if message.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
            return invalid("jsonrpc must be \"2.0\"");
        }
        let params = message.remove("params");
        match (message.remove("method"), message.remove("id")) {
            (Some(Value::String(method)), Some(id)) if id.is_string() || id.is_number() => {
                match self.request(&id, &method, params, now) {
                    Ok(Some(result)) => Some(response(&id, &result)),
                    Ok(None) => None,
                    Err(fault) => Some(error_response(&id, fault)),
                }
            }
            (Some(Value::String(_)), Some(_)) => invalid("id must be a string or a number"),
            (Some(Value::String(method)), None) => {
                if method == "notifications/cancelled" {
                    self.cancel(params.as_ref().and_then(|params| params.get("requestId")));
                }
                None
            }
            (None, Some(id)) if message.contains_key("result") || message.contains_key("error") => {
                self.answered(&id, &message);
                None
            }
            _ => invalid("neither a request nor a notification nor a response"),
        }
    }

    fn request(
        &mut self,
        id: &Value,
        method: &str,
        params: Option<Value>,
        now: Instant,
    ) -> Outcome {
        let params = match params {
            None => Map::new(),
            Some(Value::Object(params)) => params,
            Some(_) => return Err(Fault(INVALID_PARAMS, "params must be an object".into())),
        };
        match method {
            "tools/call" => return self.call(id, &params, now),
            "initialize" => self.initialize(&params),
            "logging/setLevel" => self.set_level(&params),
            "ping" => Ok(json!({})),
            "tools/list" => Ok(catalog::tools()),
            "resources/list" => Ok(catalog::resources()),
            "resources/templates/list" => Ok(json!({ "resourceTemplates": [] })),
            "resources/read" => read_resource(&params),
            "prompts/list" => Ok(catalog::prompts()),
            "prompts/get" => get_prompt(&params),
            "completion/complete" => complete(&params),
            _ => Err(Fault(
                METHOD_NOT_FOUND,
                format!("method not found: {method}"),
            )),
        }
        .map(Some)
    }

    fn initialize(&mut self, params: &Map<String, Value>) -> Result<Value, Fault> {
        let wanted = text_param(params, "protocolVersion")?;
        let [.., newest] = VERSIONS;
        let version = VERSIONS
            .into_iter()
            .find(|known| *known == wanted)
            .unwrap_or(newest);
        let elicitation = params
            .get("capabilities")
            .and_then(|offered| offered.get("elicitation"));
        // `{}` means by form; a client that asks through URLs only says `{"url":{}}`.
        self.may_ask = elicitation
            .and_then(Value::as_object)
            .is_some_and(|modes| modes.is_empty() || modes.contains_key("form"));
        Ok(json!({
            "protocolVersion": version,
            "capabilities": {
                "tools": {}, "resources": {}, "prompts": {}, "logging": {}, "completions": {}
            },
            "serverInfo": { "name": "mcp-broker-demo", "version": env!("CARGO_PKG_VERSION") },
            "instructions": "A demo: echo, time, count, ask, whoami. See the resource demo://about.",
        }))
    }

    fn set_level(&mut self, params: &Map<String, Value>) -> Result<Value, Fault> {
        let wanted = text_param(params, "level")?;
        let level = LOG_LEVELS.iter().position(|level| *level == wanted);
        self.level =
            Some(level.ok_or_else(|| Fault(INVALID_PARAMS, format!("no such level: {wanted}")))?);
        Ok(json!({}))
    }

    /// `tools/call`. What is wrong with the arguments goes into the result, where the model sees
    /// it; a tool that does not exist is a protocol error (revision 2025-11-25, "Error Handling" of
    /// tools).
    fn call(&mut self, id: &Value, params: &Map<String, Value>, now: Instant) -> Outcome {
        let name = text_param(params, "name")?;
        let nothing = Map::new();
        let arguments = match params.get("arguments") {
            None => &nothing,
            Some(Value::Object(arguments)) => arguments,
            Some(_) => return Err(Fault(INVALID_PARAMS, "arguments must be an object".into())),
        };
        let outcome = match name {
            "echo" => text_argument(arguments, "text").map(|text| Some(text_result(text, false))),
            "time" => Ok(Some(text_result(&clock::rfc3339(SystemTime::now()), false))),
            "whoami" => Ok(Some(match &self.user {
                Some(user) => text_result(user, false),
                None => text_result("nobody in particular: MCP_BROKER_USER is not set", false),
            })),
            "count" => self.count(id, arguments, progress_token(params), now),
            "ask" => self.ask(id, arguments, now),
            _ => return Err(Fault(INVALID_PARAMS, format!("no such tool: {name}"))),
        };
        Ok(outcome.unwrap_or_else(|why| Some(text_result(&why, true))))
    }

    fn count(
        &mut self,
        id: &Value,
        arguments: &Map<String, Value>,
        token: Option<Value>,
        now: Instant,
    ) -> Result<Option<Value>, String> {
        let to = number(arguments, "to", 1..=catalog::MAX_COUNT)?.ok_or("to is missing")?;
        let pause = number(arguments, "delay_ms", 0..=catalog::MAX_DELAY_MS)?.unwrap_or(100);
        let pause = Duration::from_millis(pause);
        self.begin(Job {
            id: id.clone(),
            due: now + pause,
            kind: Kind::Count {
                done: 0,
                to,
                pause,
                token,
            },
        })?;
        if self.level.is_some_and(|level| level <= INFO) {
            let data = format!("counting to {to}");
            let params = json!({ "level": LOG_LEVELS[INFO], "logger": "count", "data": data });
            self.notify("notifications/message", &params);
        }
        Ok(None)
    }

    fn ask(
        &mut self,
        id: &Value,
        arguments: &Map<String, Value>,
        now: Instant,
    ) -> Result<Option<Value>, String> {
        let question = text_argument(arguments, "question")?;
        if !self.may_ask {
            return Ok(Some(text_result(
                "your client does not let servers ask (no elicitation by form)",
                false,
            )));
        }
        let request = self.asked;
        self.begin(Job {
            id: id.clone(),
            due: now + ASK_TIMEOUT,
            kind: Kind::Ask { request },
        })?;
        self.asked += 1;
        self.send(&json!({
            "jsonrpc": "2.0",
            "id": request,
            "method": "elicitation/create",
            "params": {
                "message": question,
                "requestedSchema": {
                    "type": "object",
                    "properties": { "answer": { "type": "string", "title": "Your answer" } },
                    "required": ["answer"],
                },
            },
        }));
        Ok(None)
    }

    fn begin(&mut self, job: Job) -> Result<(), String> {
        if self.jobs.len() >= MAX_JOBS {
            return Err(format!("{MAX_JOBS} calls are under way already"));
        }
        if self.jobs.iter().any(|other| other.id == job.id) {
            return Err("a call of this id is under way already".into());
        }
        self.jobs.push(job);
        Ok(())
    }

    /// The client does not want this request's answer any more. So it gets none.
    fn cancel(&mut self, id: Option<&Value>) {
        let Some(at) = self.jobs.iter().position(|job| Some(&job.id) == id) else {
            return; // answered already, or never seen
        };
        if let Kind::Ask { request } = self.jobs.remove(at).kind {
            self.notify(
                "notifications/cancelled",
                &json!({ "requestId": request, "reason": "the call was cancelled" }),
            );
        }
    }

    /// The client's response to a question of ours.
    fn answered(&mut self, to: &Value, message: &Map<String, Value>) {
        let waits =
            |job: &Job| matches!(job.kind, Kind::Ask { request } if to.as_u64() == Some(request));
        let Some(at) = self.jobs.iter().position(waits) else {
            return; // too late, or nothing that was asked
        };
        let job = self.jobs.remove(at);
        let result = message.get("result");
        let result = match result
            .and_then(|result| result.get("action"))
            .and_then(Value::as_str)
        {
            Some("accept") => {
                match result.and_then(|result| result["content"]["answer"].as_str()) {
                    Some(answer) => text_result(&format!("the answer is: {answer}"), false),
                    None => text_result("the client accepted, but sent no answer", true),
                }
            }
            Some("decline") => text_result("the user declined to answer", false),
            Some("cancel") => text_result("the user dismissed the question", false),
            _ => {
                let why = message
                    .get("error")
                    .and_then(|error| error["message"].as_str())
                    .unwrap_or("no action in the result");
                text_result(&format!("the client could not ask: {why}"), true)
            }
        };
        self.send(&response(&job.id, &result));
    }
}

fn read_resource(params: &Map<String, Value>) -> Result<Value, Fault> {
    match text_param(params, "uri")? {
        catalog::ABOUT_URI => Ok(catalog::about()),
        other => Err(Fault(
            RESOURCE_NOT_FOUND,
            format!("resource not found: {other}"),
        )),
    }
}

fn get_prompt(params: &Map<String, Value>) -> Result<Value, Fault> {
    let name = text_param(params, "name")?;
    if name != "greet" {
        return Err(Fault(INVALID_PARAMS, format!("no such prompt: {name}")));
    }
    let argument = |name| {
        params
            .get("arguments")
            .and_then(|arguments| arguments.get(name))
            .and_then(Value::as_str)
    };
    let whom =
        argument("name").ok_or_else(|| Fault(INVALID_PARAMS, "argument name is missing".into()))?;
    let language = argument("language");
    catalog::greeting(whom, language).ok_or_else(|| {
        Fault(
            INVALID_PARAMS,
            format!("no such language: {}", language.unwrap_or_default()),
        )
    })
}

/// Only the language of `greet` has something to offer.
fn complete(params: &Map<String, Value>) -> Result<Value, Fault> {
    let (Some(reference), Some(argument)) = (params.get("ref"), params.get("argument")) else {
        return Err(Fault(
            INVALID_PARAMS,
            "ref and argument must be given".into(),
        ));
    };
    let values = if reference["name"] == "greet" && argument["name"] == "language" {
        catalog::languages(argument["value"].as_str().unwrap_or_default())
    } else {
        Vec::new()
    };
    Ok(json!({ "completion": { "total": values.len(), "hasMore": false, "values": values } }))
}

#[cfg(test)]
mod tests;
