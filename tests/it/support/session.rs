//! An MCP client in one session, as bare as it can be: it shows what comes over the wire.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Events, Request, Response};

/// The newest revision of the legacy era.
pub(crate) const NEWEST: &str = "2025-11-25";

/// A client, and the session it has once it is initialized.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) addr: SocketAddr,
    pub(crate) path: String,
    pub(crate) token: Option<String>,
    /// The `Mcp-Session-Id`.
    pub(crate) id: Option<String>,
    pub(crate) version: String,
    pub(crate) capabilities: Value,
    last_request: u64,
}

impl Session {
    /// Not yet initialized.
    pub(crate) fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            path: "/mcp".to_owned(),
            token: None,
            id: None,
            version: NEWEST.to_owned(),
            capabilities: json!({ "sampling": {}, "elicitation": {}, "roots": {} }),
            last_request: 0,
        }
    }

    /// Initialized, and ready for anything.
    #[track_caller]
    pub(crate) fn open(addr: SocketAddr) -> Self {
        Self::new(addr).ready()
    }

    pub(crate) fn at(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// The same session of a broker that has another address now.
    pub(crate) fn moved_to(&self, addr: SocketAddr) -> Self {
        Self {
            addr,
            ..self.clone()
        }
    }

    pub(crate) fn with_token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    pub(crate) fn with_version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.version);
        self
    }

    /// Initializes: both messages of the handshake, which must succeed.
    #[track_caller]
    pub(crate) fn ready(mut self) -> Self {
        let response = self.initialize();
        assert_eq!(response.status, 200, "initialize: {response:?}");
        let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        let response = self.post(&initialized);
        assert_eq!(response.status, 202, "initialized: {response:?}");
        self
    }

    /// Sends `initialize`, and keeps the session id if there is one.
    #[track_caller]
    pub(crate) fn initialize(&mut self) -> Response {
        let response = self.post(&self.initialize_message());
        self.id = response.header("Mcp-Session-Id").map(ToOwned::to_owned);
        response
    }

    pub(crate) fn initialize_message(&self) -> Value {
        json!({ "jsonrpc": "2.0", "id": "init", "method": "initialize", "params": {
            "protocolVersion": self.version,
            "capabilities": self.capabilities,
            "clientInfo": { "name": "it", "version": "1" },
        }})
    }

    /// A request of this session with the fields that it must have, and no body.
    pub(crate) fn request(&self, method: &str) -> Request {
        let mut request = Request::new(method, &self.path);
        request = match method {
            "POST" => request
                .header("Content-Type", "application/json")
                .header("Accept", "application/json, text/event-stream"),
            _ => request.header("Accept", "text/event-stream"),
        };
        if let Some(token) = &self.token {
            request = request.header("Authorization", &format!("Bearer {token}"));
        }
        if let Some(id) = &self.id {
            request = request.header("Mcp-Session-Id", id);
            request = request.header("MCP-Protocol-Version", &self.version);
        }
        request
    }

    /// Posts a message, and reads the whole response.
    #[track_caller]
    pub(crate) fn post(&self, message: &Value) -> Response {
        self.post_text(&message.to_string())
    }

    /// Posts a body, and reads the whole response.
    #[track_caller]
    pub(crate) fn post_text(&self, body: &str) -> Response {
        self.request("POST").body(body).send(self.addr)
    }

    /// Posts a message whose response must be an event stream.
    #[track_caller]
    pub(crate) fn post_stream(&self, message: &Value) -> Events {
        let request = self.request("POST").body(message.to_string());
        request.stream(self.addr)
    }

    /// Opens the session's own stream. It has begun to be the session's when this returns.
    #[track_caller]
    pub(crate) fn listen(&self) -> Events {
        self.request("GET").stream(self.addr)
    }

    #[track_caller]
    pub(crate) fn delete(&self) -> Response {
        self.request("DELETE").send(self.addr)
    }

    /// A `tools/call` with a fresh id.
    pub(crate) fn call_message(&mut self, tool: &str, arguments: Value) -> Value {
        self.last_request += 1;
        let params = json!({ "name": tool, "arguments": arguments });
        let id = self.last_request;
        json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params })
    }

    /// Calls a tool, and gives the JSON-RPC answer.
    #[track_caller]
    pub(crate) fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let message = self.call_message(tool, arguments);
        let response = self.post(&message);
        assert_eq!(response.status, 200, "{tool}: {response:?}");
        let answer = response.answer();
        assert_eq!(answer["id"], message["id"], "{tool}: {answer}");
        answer
    }

    /// Calls a tool that answers with one text.
    #[track_caller]
    pub(crate) fn call_text(&mut self, tool: &str, arguments: Value) -> String {
        let answer = self.call(tool, arguments);
        let text = answer["result"]["content"][0]["text"].as_str();
        text.unwrap_or_else(|| panic!("{tool}: {answer}"))
            .to_owned()
    }

    /// Sends a call whose answer does not matter or is long in coming, on a thread of its own.
    pub(crate) fn call_aside(
        &mut self,
        tool: &str,
        arguments: Value,
    ) -> std::thread::JoinHandle<Response> {
        let message = self.call_message(tool, arguments);
        let session = self.clone();
        std::thread::spawn(move || session.post(&message))
    }

    /// The child's pid and process group, as it sees them.
    #[track_caller]
    pub(crate) fn child(&mut self) -> (i32, i32) {
        let ids = self.call_text("pid", json!({}));
        let ids: Value = serde_json::from_str(&ids).expect("pids as JSON");
        let number = |key: &str| {
            let number = ids[key]
                .as_i64()
                .and_then(|number| i32::try_from(number).ok());
            number.unwrap_or_else(|| panic!("no {key} in {ids}"))
        };
        (number("pid"), number("pgid"))
    }
}
