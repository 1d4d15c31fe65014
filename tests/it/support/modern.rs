//! An MCP client of the modern era (2026-07-28): no session, and everything in each request.

use std::net::SocketAddr;
use std::thread::JoinHandle;

use serde_json::{Value, json};

use super::{Connection, Events, Request, Response};

/// The revision that it speaks.
pub(crate) const MODERN: &str = "2026-07-28";

const VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const INFO: &str = "io.modelcontextprotocol/clientInfo";

#[derive(Clone, Debug)]
pub(crate) struct Modern {
    pub(crate) addr: SocketAddr,
    pub(crate) path: String,
    pub(crate) token: Option<String>,
    pub(crate) capabilities: Value,
    /// More members of each request's `_meta`.
    pub(crate) meta: Value,
    pub(crate) last_request: u64,
}

impl Modern {
    pub(crate) fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            path: "/mcp".to_owned(),
            token: None,
            capabilities: json!({ "sampling": {}, "elicitation": {}, "roots": {} }),
            meta: json!({}),
            last_request: 0,
        }
    }

    pub(crate) fn at(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    pub(crate) fn with_token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    pub(crate) fn with_meta(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.meta[key] = value.into();
        self
    }

    /// The `_meta` of a request, as text.
    pub(crate) fn meta_text(&self) -> String {
        let mut meta = self.meta.clone();
        meta[VERSION] = MODERN.into();
        meta[INFO] = json!({ "name": "it", "version": "1" });
        meta[CAPABILITIES] = self.capabilities.clone();
        meta.to_string()
    }

    /// A request with a fresh id.
    pub(crate) fn message(&mut self, method: &str, params: Value) -> Value {
        self.last_request += 1;
        let mut params = params;
        params["_meta"] = serde_json::from_str(&self.meta_text()).expect("an object");
        let id = self.last_request;
        json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
    }

    pub(crate) fn call_message(&mut self, tool: &str, arguments: Value) -> Value {
        self.message(
            "tools/call",
            json!({ "name": tool, "arguments": arguments }),
        )
    }

    /// An HTTP request with the head that goes with this body.
    pub(crate) fn request(&self, body: &str) -> Request {
        let message: Value = serde_json::from_str(body).unwrap_or_default();
        let mut request = Request::new("POST", &self.path)
            .header("Content-Type", "application/json")
            .header("Accept", "application/json, text/event-stream")
            .header("MCP-Protocol-Version", MODERN)
            .body(body);
        if let Some(method) = message["method"].as_str() {
            request = request.header("Mcp-Method", method);
        }
        let params = &message["params"];
        if let Some(name) = params["name"].as_str().or(params["uri"].as_str()) {
            request = request.header("Mcp-Name", name);
        }
        match &self.token {
            Some(token) => request.header("Authorization", &format!("Bearer {token}")),
            None => request,
        }
    }

    #[track_caller]
    pub(crate) fn post_text(&self, body: &str) -> Response {
        self.request(body).send(self.addr)
    }

    #[track_caller]
    pub(crate) fn post(&self, message: &Value) -> Response {
        self.post_text(&message.to_string())
    }

    /// Sends a request, and gives the answer, which must be one.
    #[track_caller]
    pub(crate) fn ask(&mut self, method: &str, params: Value) -> Value {
        let message = self.message(method, params);
        let response = self.post(&message);
        assert_eq!(response.status, 200, "{method}: {response:?}");
        let answer = response.answer();
        assert_eq!(answer["id"], message["id"], "{method}: {answer}");
        answer
    }

    #[track_caller]
    pub(crate) fn call(&mut self, tool: &str, arguments: Value) -> Value {
        self.ask(
            "tools/call",
            json!({ "name": tool, "arguments": arguments }),
        )
    }

    /// Calls a tool that answers with one text.
    #[track_caller]
    pub(crate) fn call_text(&mut self, tool: &str, arguments: Value) -> String {
        text(&self.call(tool, arguments))
    }

    /// Sends a call again, with answers to what was asked; the answer to that.
    #[track_caller]
    pub(crate) fn retry(
        &mut self,
        tool: &str,
        arguments: Value,
        state: &Value,
        answers: Value,
    ) -> Value {
        self.ask(
            "tools/call",
            json!({
                "name": tool,
                "arguments": arguments,
                "requestState": state,
                "inputResponses": answers,
            }),
        )
    }

    /// Sends a request whose answer must be a stream.
    #[track_caller]
    pub(crate) fn stream(&self, message: &Value) -> Events {
        self.request(&message.to_string()).stream(self.addr)
    }

    /// Sends a request, and does not wait for anything. Dropping the connection closes it.
    #[track_caller]
    pub(crate) fn begin(&self, message: &Value) -> Connection {
        let mut connection = Connection::open(self.addr);
        connection.send(&self.request(&message.to_string()));
        connection
    }

    /// Sends a call on a thread of its own.
    pub(crate) fn call_aside(&mut self, tool: &str, arguments: Value) -> JoinHandle<Response> {
        let message = self.call_message(tool, arguments);
        let client = self.clone();
        std::thread::spawn(move || client.post(&message))
    }

    /// Opens a subscription; its acknowledgement has come when this returns.
    #[track_caller]
    pub(crate) fn listen(&mut self, notifications: Value) -> (Value, Events) {
        let message = self.message(
            "subscriptions/listen",
            json!({ "notifications": notifications }),
        );
        let mut events = self.stream(&message);
        let first = events.message();
        assert_eq!(
            first["method"], "notifications/subscriptions/acknowledged",
            "{first}"
        );
        assert_eq!(subscription_id(&first["params"]), &message["id"], "{first}");
        (first, events)
    }

    /// What the child was notified of so far.
    #[track_caller]
    pub(crate) fn received(&mut self) -> Vec<Value> {
        let received = self.call_text("received", json!({}));
        serde_json::from_str(&received).expect("an array")
    }

    /// How many requests the child was told to cancel so far.
    #[track_caller]
    pub(crate) fn cancelled(&mut self) -> usize {
        let received = self.received();
        let is_one = |it: &&Value| it["method"] == "notifications/cancelled";
        received.iter().filter(is_one).count()
    }

    /// The child's pid.
    #[track_caller]
    pub(crate) fn pid(&mut self) -> i32 {
        let ids = self.call_text("pid", json!({}));
        let ids: Value = serde_json::from_str(&ids).expect("pids as JSON");
        ids["pid"].as_i64().expect("a pid").try_into().expect("one")
    }
}

pub(crate) fn subscription_id(holder: &Value) -> &Value {
    &holder["_meta"]["io.modelcontextprotocol/subscriptionId"]
}

/// The text of an answer of a tool.
#[track_caller]
pub(crate) fn text(answer: &Value) -> String {
    let text = answer["result"]["content"][0]["text"].as_str();
    text.unwrap_or_else(|| panic!("no text: {answer}"))
        .to_owned()
}
