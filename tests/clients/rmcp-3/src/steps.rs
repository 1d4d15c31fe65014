//! The steps of the tour, in the order in which they are taken.

use std::future::Future;
use std::time::Duration;

use rmcp::model::{
    ArgumentInfo, CallToolRequestParams, ClientRequest, CompleteRequestParams,
    GetPromptRequestParams, LoggingLevel, ReadResourceRequestParams, Reference, Request,
    RequestMetaObject, SetLevelRequestParams, SubscribeRequestParams, SubscriptionFilter,
    UnsubscribeRequestParams,
};
use rmcp::service::{PeerRequestOptions, RequestHandle, RoleClient, ServiceError, Subscription};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use crate::{Outcome, Tour};

/// The longest any one step may take.
const STEP: Duration = Duration::from_secs(15);
const WATCHED: &str = "test://watched-resource";
const OTHER: &str = "test://static-text";
const CANCELLED: &str = "notifications/cancelled";

/// Takes one step, and says so.
pub async fn step<T>(name: &str, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    match tokio::time::timeout(STEP, work).await {
        Ok(Ok(done)) => {
            println!("ok {name}");
            Ok(done)
        }
        Ok(Err(why)) => Err(format!("{name}: {why}").into()),
        Err(_) => Err(format!("{name}: nothing within {STEP:?}").into()),
    }
}

fn same<T: PartialEq + std::fmt::Debug>(seen: T, wanted: T) -> Outcome<()> {
    if seen == wanted {
        return Ok(());
    }
    Err(format!(
        "{:.200} where {:.200} was wanted",
        format!("{seen:?}"),
        format!("{wanted:?}")
    )
    .into())
}

fn holds(fact: bool, what: impl std::fmt::Debug) -> Outcome<()> {
    if fact {
        Ok(())
    } else {
        Err(format!("{:.200}", format!("{what:?}")).into())
    }
}

/// The text of a result's first content.
fn text(result: impl Serialize) -> Outcome<String> {
    let result = serde_json::to_value(result)?;
    let text = result["content"][0]["text"].as_str();
    Ok(text.ok_or_else(|| format!("no text: {result}"))?.to_owned())
}

/// `key` of all the items.
fn all(items: impl Serialize, key: &str) -> Outcome<Vec<String>> {
    let items = serde_json::to_value(items)?;
    let items = items.as_array().ok_or("not a list")?;
    Ok(items
        .iter()
        .filter_map(|item| item[key].as_str().map(str::to_owned))
        .collect())
}

fn params(name: &str, arguments: Value) -> CallToolRequestParams {
    CallToolRequestParams::new(name.to_owned())
        .with_arguments(arguments.as_object().cloned().unwrap_or_default())
}

fn code<T>(done: Result<T, ServiceError>) -> Outcome<i32> {
    match done {
        Ok(_) => Err("no error".into()),
        Err(ServiceError::McpError(error)) => Ok(error.code.0),
        Err(other) => Err(other.into()),
    }
}

impl Tour {
    pub async fn go(self) -> Outcome<()> {
        self.listing().await?;
        self.calling().await?;
        self.being_asked().await?;
        self.cancelling().await?;
        self.being_told().await?;
        step("close", async { Ok(self.client.cancel().await.map(drop)?) }).await
    }

    async fn call(&self, name: &str, arguments: Value) -> Outcome<Value> {
        Ok(serde_json::to_value(
            self.client.call_tool(params(name, arguments)).await?,
        )?)
    }

    async fn listing(&self) -> Outcome<()> {
        let client = &self.client;
        step("version", async {
            let version = client
                .peer()
                .peer_info()
                .ok_or("the server has said nothing of itself")?
                .protocol_version
                .clone();
            same(version.as_str() == "2026-07-28", self.modern)
        })
        .await?;
        step("tools/list", async {
            let names = all(client.list_all_tools().await?, "name")?;
            holds(names.iter().any(|name| name == "echo"), names)
        })
        .await?;
        step("resources/list", async {
            let uris = all(client.list_all_resources().await?, "uri")?;
            holds(uris.iter().any(|uri| uri == OTHER), uris)
        })
        .await?;
        step("prompts/list", async {
            let names = all(client.list_all_prompts().await?, "name")?;
            holds(names.iter().any(|name| name == "test_simple_prompt"), names)
        })
        .await?;
        step("prompts/get", async {
            let prompt = client
                .get_prompt(GetPromptRequestParams::new("test_simple_prompt"))
                .await?;
            holds(!prompt.messages.is_empty(), prompt)
        })
        .await?;
        step("completion/complete", async {
            let prompt = Reference::for_prompt("test_prompt_with_arguments");
            let argument = ArgumentInfo::new("arg1", "par");
            let result = client
                .complete(CompleteRequestParams::new(prompt, argument))
                .await?;
            same(
                result.completion.values,
                vec!["paris".into(), "park".into(), "party".into()],
            )
        })
        .await?;
        step("resources/read", async {
            let read = client
                .read_resource(ReadResourceRequestParams::new(OTHER))
                .await?;
            holds(!read.contents.is_empty(), read)
        })
        .await
    }

    async fn calling(&self) -> Outcome<()> {
        step("tools/call", async {
            for said in [
                "hello",
                "a\u{2028}b \u{1f980} \"\\n\"",
                &"x".repeat(256 * 1024),
            ] {
                let result = self.call("echo", json!({ "text": said })).await?;
                let echoed: Value = serde_json::from_str(&text(&result)?)?;
                same(&echoed, &json!({ "text": said }))?;
                same(&result["structuredContent"], &json!({ "text": said }))?;
            }
            Ok(())
        })
        .await?;
        step("thirty-two calls at once", self.many()).await?;
        step("an argument in a header", async {
            for region in ["eu", "K\u{f6}ln", " a "] {
                let echoed: Value = serde_json::from_str(&text(
                    self.call("test_x_mcp_header", json!({ "region": region }))
                        .await?,
                )?)?;
                same(echoed, json!({ "region": region }))?;
            }
            Ok(())
        })
        .await?;
        step("tool error", async {
            let result = self.call("test_error_handling", json!({})).await?;
            same(&result["isError"], &json!(true))
        })
        .await?;
        step("protocol error", async {
            code(
                self.client
                    .get_prompt(GetPromptRequestParams::new("there is no such prompt"))
                    .await,
            )?;
            let code = code(
                self.client
                    .read_resource(ReadResourceRequestParams::new("test://missing"))
                    .await,
            )?;
            holds(code == -32602 || !self.modern && code == -32002, code)
        })
        .await?;
        step("progress", async {
            let before = self.handler.progress.seen().len();
            self.call("count", json!({ "n": 5, "delay_ms": 20 }))
                .await?;
            let seen = self.handler.progress.reached(before + 5).await;
            same(json!(seen[before..]), json!([1.0, 2.0, 3.0, 4.0, 5.0]))
        })
        .await?;
        step("logging", self.logging()).await
    }

    async fn many(&self) -> Outcome<()> {
        let mut calls = JoinSet::new();
        for index in 0..32 {
            let peer = self.client.peer().clone();
            calls.spawn(async move {
                (
                    index,
                    peer.call_tool(params("echo", json!({ "text": index })))
                        .await,
                )
            });
        }
        while let Some(done) = calls.join_next().await {
            let (index, result) = done?;
            same(text(result?)?, json!({ "text": index }).to_string())?;
        }
        Ok(())
    }

    async fn logging(&self) -> Outcome<()> {
        let three = |level: &str| params("log", json!({ "n": 3, "level": level }));
        if self.modern {
            let mut wanted = three("info");
            let mut meta = RequestMetaObject::new();
            meta.set_log_level(LoggingLevel::Info);
            wanted.meta = Some(meta);
            self.client.call_tool(wanted).await?;
            self.client.call_tool(three("info")).await?; // which has not asked for any
        } else {
            self.client
                .set_level(SetLevelRequestParams::new(LoggingLevel::Info))
                .await?;
            self.client.call_tool(three("info")).await?;
            self.client.call_tool(three("debug")).await?;
        }
        same(
            json!(self.handler.logs.reached(3).await),
            json!(["info", "info", "info"]),
        )
    }

    async fn ask(&self, kind: &str) -> Outcome<()> {
        let wanted = match kind {
            "sampling" => "sampled by the tour",
            "elicitation" => "tour-name",
            _ => "tour-root",
        };
        let said = text(self.call("ask", json!({ "kind": kind })).await?)?;
        holds(said.contains(wanted), said)
    }

    async fn being_asked(&self) -> Outcome<()> {
        for kind in ["sampling", "elicitation", "roots"] {
            step(kind, self.ask(kind)).await?;
        }
        step("elicitation by URL", async {
            let said = text(self.call("ask", json!({ "kind": "url" })).await?)?;
            holds(said.contains(r#""action":"accept""#), said)
        })
        .await?;
        step("three questions at once", async {
            let said = text(
                self.call("test_input_required_result_multiple_inputs", json!({}))
                    .await?,
            )?;
            let wanted = ["sampled by the tour", "tour-name", "tour-root"];
            holds(wanted.iter().all(|answer| said.contains(answer)), said)
        })
        .await?;
        step("two questions in a row", async {
            let said = text(
                self.call("test_input_required_result_multi_round", json!({}))
                    .await?,
            )?;
            holds(said.contains(r#""tour-name" likes "tour-color""#), said)
        })
        .await?;
        step("four calls that ask, at once", async {
            let (one, two) = (self.ask("sampling"), self.ask("elicitation"));
            tokio::try_join!(one, two, self.ask("roots"), self.ask("elicitation")).map(drop)
        })
        .await?;
        step("a prompt that asks", async {
            let prompt = GetPromptRequestParams::new("test_input_required_result_prompt");
            let prompt = serde_json::to_string(&self.client.get_prompt(prompt).await?.messages)?;
            holds(prompt.contains("tour-context"), prompt)
        })
        .await
    }

    /// The params of the notifications of one method that have reached the child.
    async fn heard(&self, method: &str) -> Outcome<Vec<Value>> {
        let all: Vec<Value> =
            serde_json::from_str(&text(self.call("received", json!({})).await?)?)?;
        Ok(all
            .into_iter()
            .filter(|one| one["method"] == method)
            .map(|one| one["params"].clone())
            .collect())
    }

    /// The newest of them, once there are more than `before`; `None` when the time is up.
    async fn heard_more(
        &self,
        method: &str,
        before: usize,
        time: Duration,
    ) -> Outcome<Option<Value>> {
        let until = tokio::time::Instant::now() + time;
        while tokio::time::Instant::now() < until {
            let now = self.heard(method).await?;
            if now.len() > before {
                return Ok(now.last().cloned());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(None)
    }

    async fn begin(&self, name: &str, arguments: Value) -> Outcome<RequestHandle<RoleClient>> {
        let request = ClientRequest::CallToolRequest(Request::new(params(name, arguments)));
        Ok(self
            .client
            .peer()
            .send_cancellable_request(request, PeerRequestOptions::no_options())
            .await?)
    }

    async fn cancelling(&self) -> Outcome<()> {
        if !self.modern && !self.modern_child {
            step("roots changed", async {
                self.client.notify_roots_list_changed().await?;
                let heard = self
                    .heard_more("notifications/roots/list_changed", 0, STEP)
                    .await?;
                holds(heard.is_some(), "the child has not heard of it")
            })
            .await?;
        }
        step("cancellation", async {
            let before = self.heard(CANCELLED).await?.len();
            let reported = self.handler.progress.seen().len();
            let call = self
                .begin("count", json!({ "n": 600, "delay_ms": 100 }))
                .await?;
            self.handler.progress.reached(reported + 1).await;
            call.cancel(Some("enough".to_owned())).await?;
            let heard = self
                .heard_more(CANCELLED, before, STEP)
                .await?
                .unwrap_or_default();
            holds(self.modern || heard["reason"] == "enough", heard)
        })
        .await?;
        step("cancellation of a call that says nothing", async {
            let before = self.heard(CANCELLED).await?.len();
            // Nothing tells when the call has reached the child, and one that has not need not be
            // cancelled there.
            for ms in [200, 1000, 3000] {
                let call = self.begin("sleep", json!({ "ms": 600_000 })).await?;
                tokio::time::sleep(Duration::from_millis(ms)).await;
                call.cancel(Some("enough".to_owned())).await?;
                if self
                    .heard_more(CANCELLED, before, Duration::from_secs(3))
                    .await?
                    .is_some()
                {
                    return Ok(());
                }
            }
            Err("the child has not heard of it".into())
        })
        .await
    }

    async fn being_told(&self) -> Outcome<()> {
        let handler = &self.handler;
        let listening = step("subscribe", self.subscribe()).await?;
        step("resource updated", async {
            self.call("touch_resource", json!({ "uri": OTHER })).await?;
            self.call("touch_resource", json!({ "uri": WATCHED }))
                .await?;
            same(json!(handler.updates.reached(1).await), json!([WATCHED]))
        })
        .await?;
        step("list changed, while a call is open", async {
            self.call("test_trigger_tool_change", json!({})).await?;
            handler.tool_changes.reached(1).await;
            Ok(())
        })
        .await?;
        step("list changed, while none is", async {
            self.call("change_after", json!({ "list": "prompts", "ms": 100 }))
                .await?;
            handler.prompt_changes.reached(1).await;
            Ok(())
        })
        .await?;
        step("nothing has come twice", async {
            let inboxes = [
                &handler.logs,
                &handler.updates,
                &handler.tool_changes,
                &handler.prompt_changes,
            ];
            same(inboxes.map(|inbox| inbox.seen().len()), [3, 1, 1, 1])
        })
        .await?;
        step("unsubscribe", async {
            match listening {
                Some(listening) => listening.stop().await?,
                None => {
                    self.client
                        .unsubscribe(UnsubscribeRequestParams::new(WATCHED))
                        .await?
                }
            }
            // The server may learn a moment later that a stream is closed.
            let mut before = None;
            while before.is_none_or(|before| before < handler.updates.seen().len()) {
                before = Some(handler.updates.seen().len());
                self.call("touch_resource", json!({ "uri": WATCHED }))
                    .await?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Ok(())
        })
        .await
    }

    /// Subscribes to everything that the tour wants to hear of.
    async fn subscribe(&self) -> Outcome<Option<Listening>> {
        if !self.modern {
            self.client
                .subscribe(SubscribeRequestParams::new(WATCHED))
                .await?;
            return Ok(None);
        }
        let filter = SubscriptionFilter::builder()
            .tools_list_changed()
            .prompts_list_changed()
            .resource_subscription(WATCHED);
        let filter = filter.build();
        let mut subscription = self.client.listen(filter.clone()).await?;
        same(subscription.acknowledged(), &filter)?;
        let handler = self.handler.clone();
        let (stop, mut stopped) = oneshot::channel();
        let pump = tokio::spawn(async move {
            loop {
                tokio::select! {
                    told = subscription.next() => match told {
                        Ok(Some(notification)) => handler.told(notification),
                        Ok(None) | Err(_) => return subscription,
                    },
                    _ = &mut stopped => return subscription,
                }
            }
        });
        Ok(Some(Listening { stop, pump }))
    }
}

/// An open subscription of the modern era, and the task that reads it.
struct Listening {
    stop: oneshot::Sender<()>,
    pump: JoinHandle<Subscription>,
}

impl Listening {
    async fn stop(self) -> Outcome<()> {
        if self.stop.send(()).is_err() {
            return Err("the subscription has ended by itself".into());
        }
        Ok(self.pump.await?.cancel().await?)
    }
}
