//! A server on `rmcp` 1.2, the first generation of the Rust SDK: legacy, on stdio. A
//! `server/discover` ends the process.
//!
//! It offers what all the small servers in `../servers` do, and `visit.mjs` there asks for: tools
//! that report progress, ask the user, ask the model, say that the one resource has changed, and
//! bring a tool more.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use rmcp::model::{
    CallToolRequestParams, CallToolResult, ErrorData, Implementation, ListResourcesResult,
    ListToolsResult, Meta, PaginatedRequestParams, ProgressNotificationParam,
    ReadResourceRequestParams, ReadResourceResult, ResourceContents,
    ResourceUpdatedNotificationParam, ServerInfo, SubscribeRequestParams, UnsubscribeRequestParams,
};
use rmcp::service::{Peer, RequestContext, RoleServer, ServiceError};
use rmcp::{ServerHandler, ServiceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const NOTE: &str = "note://today";

#[derive(Default)]
struct Server {
    subscribed: AtomicBool,
    grown: AtomicBool,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let Ok(runtime) = runtime else {
        return ExitCode::FAILURE;
    };
    let served = runtime.block_on(async {
        let service = Server::default()
            .serve(rmcp::transport::stdio())
            .await
            .ok()?;
        service.waiting().await.ok()
    });
    if served.is_some() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A value of the SDK from its JSON.
fn of<T: DeserializeOwned>(json: Value) -> Result<T, ErrorData> {
    serde_json::from_value(json).map_err(|error| ErrorData::internal_error(error.to_string(), None))
}

fn text(said: impl Into<String>) -> Result<CallToolResult, ErrorData> {
    of(json!({ "content": [{ "type": "text", "text": said.into() }] }))
}

fn failed(error: ServiceError) -> ErrorData {
    ErrorData::internal_error(error.to_string(), None)
}

impl Server {
    async fn count(
        &self,
        n: u64,
        meta: &Meta,
        peer: &Peer<RoleServer>,
    ) -> Result<CallToolResult, ErrorData> {
        if let Some(token) = meta.get_progress_token() {
            for now in 1..=n {
                let progress =
                    ProgressNotificationParam::new(token.clone(), now as f64).with_total(n as f64);
                peer.notify_progress(progress).await.map_err(failed)?;
            }
        }
        text(format!("counted to {n}"))
    }

    async fn greet(&self, peer: &Peer<RoleServer>) -> Result<CallToolResult, ErrorData> {
        let schema = json!({
            "type": "object",
            "properties": { "name": { "type": "string" } },
            "required": ["name"],
        });
        let question =
            json!({ "mode": "form", "message": "What is your name?", "requestedSchema": schema });
        let answer = peer
            .create_elicitation(of(question)?)
            .await
            .map_err(failed)?;
        let name = answer.content.unwrap_or_default()["name"]
            .as_str()
            .unwrap_or("stranger")
            .to_owned();
        text(format!("hello {name}"))
    }

    async fn think(&self, peer: &Peer<RoleServer>) -> Result<CallToolResult, ErrorData> {
        let message =
            json!({ "role": "user", "content": { "type": "text", "text": "Say something." } });
        let question = json!({ "messages": [message], "maxTokens": 10 });
        let answer = peer.create_message(of(question)?).await.map_err(failed)?;
        let answer = serde_json::to_value(answer).unwrap_or_default();
        text(format!(
            "thought {}",
            answer["content"]["text"].as_str().unwrap_or_default()
        ))
    }

    async fn touch(&self, peer: &Peer<RoleServer>) -> Result<CallToolResult, ErrorData> {
        if self.subscribed.load(Ordering::SeqCst) {
            let updated = ResourceUpdatedNotificationParam::new(NOTE);
            peer.notify_resource_updated(updated)
                .await
                .map_err(failed)?;
        }
        text("touched")
    }

    async fn grow(&self, peer: &Peer<RoleServer>) -> Result<CallToolResult, ErrorData> {
        self.grown.store(true, Ordering::SeqCst);
        peer.notify_tool_list_changed().await.map_err(failed)?;
        text("grown")
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerInfo {
        let capabilities = json!({
            "tools": { "listChanged": true },
            "resources": { "subscribe": true },
        });
        ServerInfo::new(of(capabilities).unwrap_or_default())
            .with_server_info(Implementation::new("rmcp-1", "1.0.0"))
    }

    async fn list_tools(
        &self,
        _params: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let mut names = vec!["count", "greet", "think", "touch", "grow"];
        if self.grown.load(Ordering::SeqCst) {
            names.push("grown");
        }
        let n = json!({ "n": { "type": "integer" } });
        let tools = names.into_iter().map(|name| {
            let properties = if name == "count" {
                n.clone()
            } else {
                json!({})
            };
            json!({ "name": name, "inputSchema": { "type": "object", "properties": properties } })
        });
        of(json!({ "tools": tools.collect::<Vec<_>>() }))
    }

    async fn call_tool(
        &self,
        params: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResult, ErrorData> {
        let peer = &context.peer;
        match params.name.as_ref() {
            "count" => {
                let n = params
                    .arguments
                    .unwrap_or_default()
                    .get("n")
                    .and_then(Value::as_u64);
                self.count(n.unwrap_or_default(), &context.meta, peer).await
            }
            "greet" => self.greet(peer).await,
            "think" => self.think(peer).await,
            "touch" => self.touch(peer).await,
            "grow" => self.grow(peer).await,
            name => Err(ErrorData::invalid_params(
                format!("there is no tool {name}"),
                None,
            )),
        }
    }

    async fn list_resources(
        &self,
        _params: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        of(json!({ "resources": [{ "uri": NOTE, "name": "today" }] }))
    }

    async fn read_resource(
        &self,
        _params: ReadResourceRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResult, ErrorData> {
        Ok(ReadResourceResult::new(vec![ResourceContents::text(
            "a note", NOTE,
        )]))
    }

    async fn subscribe(
        &self,
        _params: SubscribeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.subscribed.store(true, Ordering::SeqCst);
        Ok(())
    }

    async fn unsubscribe(
        &self,
        _params: UnsubscribeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.subscribed.store(false, Ordering::SeqCst);
        Ok(())
    }
}
