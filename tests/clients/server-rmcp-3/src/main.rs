//! A server on `rmcp` 3.9, the third generation of the Rust SDK: both eras, on stdio, request by
//! request.
//!
//! It offers what `../server-rmcp-1` does. A tool that asks sends a request of its own in the
//! legacy era, and in the modern one ends with an `input_required` result, to be called again with
//! the answer.

#![allow(deprecated)] // sampling, and the subscriptions of the legacy era

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData,
    Implementation, InputRequiredResult, ListResourcesResult, ListToolsResult,
    PaginatedRequestParams, ProgressNotificationParam, ProtocolVersion, ReadResourceRequestParams,
    ReadResourceResponse, ReadResourceResult, Resource, ResourceContents,
    ResourceUpdatedNotificationParam, ServerConfig, SubscribeRequestParams, SubscriptionFilter,
    UnsubscribeRequestParams,
};
use rmcp::service::{Peer, RequestContext, RoleServer, ServiceError, SubscriptionContext};
use rmcp::{ServerHandler, ServiceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::broadcast;

const NOTE: &str = "note://today";

/// What a subscription is told.
#[derive(Clone)]
enum Change {
    Tools,
    Note,
}

struct Server {
    subscribed: AtomicBool,
    grown: AtomicBool,
    changes: broadcast::Sender<Change>,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let Ok(runtime) = runtime else {
        return ExitCode::FAILURE;
    };
    let server = Server {
        subscribed: AtomicBool::default(),
        grown: AtomicBool::default(),
        changes: broadcast::Sender::new(16),
    };
    let served = runtime.block_on(async {
        let service = server.serve(rmcp::transport::stdio()).await.ok()?;
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

fn text(said: impl Into<String>) -> Result<CallToolResponse, ErrorData> {
    Ok(CallToolResult::success(vec![ContentBlock::text(said)]).into())
}

fn failed(error: ServiceError) -> ErrorData {
    ErrorData::internal_error(error.to_string(), None)
}

/// A tool's question to the client.
struct Question {
    method: &'static str,
    params: Value,
}

impl Server {
    async fn count(
        &self,
        n: u64,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        if let Some(token) = context.meta.get_progress_token() {
            for now in 1..=n {
                let progress =
                    ProgressNotificationParam::new(token.clone(), now as f64).with_total(n as f64);
                context
                    .peer
                    .notify_progress(progress)
                    .await
                    .map_err(failed)?;
            }
        }
        text(format!("counted to {n}"))
    }

    async fn greet(
        &self,
        params: CallToolRequestParams,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let schema = json!({
            "type": "object",
            "properties": { "name": { "type": "string" } },
            "required": ["name"],
        });
        let question = Question {
            method: "elicitation/create",
            params: json!({
                "mode": "form",
                "message": "What is your name?",
                "requestedSchema": schema,
            }),
        };
        match self.ask(question, params, context).await? {
            Ok(answer) => text(format!(
                "hello {}",
                answer["content"]["name"].as_str().unwrap_or("stranger")
            )),
            Err(asked) => Ok(asked),
        }
    }

    async fn think(
        &self,
        params: CallToolRequestParams,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let message =
            json!({ "role": "user", "content": { "type": "text", "text": "Say something." } });
        let question = Question {
            method: "sampling/createMessage",
            params: json!({ "messages": [message], "maxTokens": 10 }),
        };
        match self.ask(question, params, context).await? {
            Ok(answer) => text(format!(
                "thought {}",
                answer["content"]["text"].as_str().unwrap_or_default()
            )),
            Err(asked) => Ok(asked),
        }
    }

    /// The client's answer; or, in the modern era, the result that asks for it.
    async fn ask(
        &self,
        question: Question,
        params: CallToolRequestParams,
        context: &RequestContext<RoleServer>,
    ) -> Result<Result<Value, CallToolResponse>, ErrorData> {
        let Question {
            method,
            params: asked,
        } = question;
        if context.protocol_version() == Some(ProtocolVersion::V_2026_07_28) {
            if let Some(answer) = params.input_responses.unwrap_or_default().remove("answer") {
                return Ok(Ok(answer));
            }
            let requests = of(json!({ "answer": { "method": method, "params": asked } }))?;
            return Ok(Err(
                InputRequiredResult::from_input_requests(requests).into()
            ));
        }
        let peer = &context.peer;
        let answer = match method {
            "elicitation/create" => {
                json!(peer.create_elicitation(of(asked)?).await.map_err(failed)?)
            }
            _ => json!(peer.create_message(of(asked)?).await.map_err(failed)?),
        };
        Ok(Ok(answer))
    }

    async fn touch(&self, peer: &Peer<RoleServer>) -> Result<CallToolResponse, ErrorData> {
        let _ = self.changes.send(Change::Note); // nobody need listen
        if self.subscribed.load(Ordering::SeqCst) {
            let updated = ResourceUpdatedNotificationParam::new(NOTE);
            peer.notify_resource_updated(updated)
                .await
                .map_err(failed)?;
        }
        text("touched")
    }

    async fn grow(
        &self,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        self.grown.store(true, Ordering::SeqCst);
        let _ = self.changes.send(Change::Tools); // nobody need listen
        if context.protocol_version() != Some(ProtocolVersion::V_2026_07_28) {
            context
                .peer
                .notify_tool_list_changed()
                .await
                .map_err(failed)?;
        }
        text("grown")
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let capabilities = json!({
            "tools": { "listChanged": true },
            "resources": { "subscribe": true },
        });
        ServerConfig::new(of(capabilities).unwrap_or_default())
            .with_server_info(Implementation::new("rmcp-3", "1.0.0"))
    }

    fn accepted_subscription_filter(
        &self,
        requested: &SubscriptionFilter,
    ) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let mut changes = self.changes.subscribe();
        loop {
            let change = tokio::select! {
                change = changes.recv() => change,
                () = context.cancelled() => return Ok(()),
            };
            // A filter that leaves one out is no failure of ours.
            let _ = match change {
                Ok(Change::Tools) => context.sink().notify_tool_list_changed().await,
                Ok(Change::Note) => context.sink().notify_resource_updated(NOTE).await,
                Err(_) => return Ok(()),
            };
        }
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
        Ok(ListToolsResult::with_all_items(of(Value::from_iter(
            tools,
        ))?))
    }

    async fn call_tool(
        &self,
        params: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        match params.name.as_ref() {
            "count" => {
                let n = params
                    .arguments
                    .unwrap_or_default()
                    .get("n")
                    .and_then(Value::as_u64);
                self.count(n.unwrap_or_default(), &context).await
            }
            "greet" => self.greet(params, &context).await,
            "think" => self.think(params, &context).await,
            "touch" => self.touch(&context.peer).await,
            "grow" => self.grow(&context).await,
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
        Ok(ListResourcesResult::with_all_items(vec![Resource::new(
            NOTE, "today",
        )]))
    }

    async fn read_resource(
        &self,
        _params: ReadResourceRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        Ok(ReadResourceResult::new(vec![ResourceContents::text("a note", NOTE)]).into())
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
