//! Subscriptions: what modern clients listen for, on top of the child's one set of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::jsonrpc::{Edit, code, member, members, text};
use crate::mcp::{meta, method};
use crate::translate::Out;

use super::server::Server;

/// Of all clients of one child together. How many subscriptions there are, the bridge bounds.
const MAX_URIS: usize = 1024;
const MAX_URI_BYTES: usize = 1 << 20;
/// A child that does not answer a subscription is not waited for any longer.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) const ID_PREFIX: &str = "mcp-broker/subscribe/";
const UNSUBSCRIBE_ID_PREFIX: &str = "mcp-broker/unsubscribe/";

/// Why a subscription is refused: code and message.
type Refusal = (i32, String);

/// 2026-07-28, subscriptions.
#[derive(Debug, Default)]
pub(super) struct Listens {
    listens: BTreeMap<i64, Listen>,
    watches: HashMap<Box<str>, Watch>,
    /// How many requests of ours there have been.
    requests: u64,
}

/// One `subscriptions/listen`, by its id, which is the subscription's id too.
#[derive(Debug)]
struct Listen {
    tools: bool,
    prompts: bool,
    resources: bool,
    /// As text, and as they stand in the request.
    uris: Vec<(Box<str>, Box<str>)>,
    is_acknowledged: bool,
    /// What has changed before that.
    early: BTreeSet<Change>,
}

/// One that is listened for: the notification's name, and of a resource the URI listened for.
type Change = (Box<str>, Option<Box<str>>);

/// A resource that the child was asked to watch.
#[derive(Debug)]
struct Watch {
    /// The request that is not answered yet.
    asking: Option<(String, Instant)>,
}

impl Listens {
    /// 2026-07-28, subscriptions, "Opening a Stream".
    ///
    /// # Errors
    /// The filter is malformed, or there are too many.
    pub(super) fn open(
        &mut self,
        server: &Server,
        id: i64,
        params: &str,
        now: Instant,
        out: &mut Vec<Out>,
    ) -> Result<(), Refusal> {
        let listen = Listen::read(server, params)?;
        self.check_bounds(&listen)?;
        for (uri, uri_text) in &listen.uris {
            if !self.watches.contains_key(uri) {
                self.watch(uri, uri_text, now, out);
            }
        }
        self.listens.insert(id, listen);
        self.acknowledge(out);
        Ok(())
    }

    fn check_bounds(&self, new: &Listen) -> Result<(), Refusal> {
        let all = || self.listens.values().chain([new]).flat_map(|it| &it.uris);
        let bytes: usize = all().map(|(uri, raw)| uri.len() + raw.len()).sum();
        if all().count() > MAX_URIS || bytes > MAX_URI_BYTES {
            let why = format!(
                "more than {MAX_URIS} resources or {MAX_URI_BYTES} bytes of their URIs in all \
                 subscriptions: end one of them first"
            );
            return Err((code::INTERNAL_ERROR, why));
        }
        Ok(())
    }

    /// 2026-07-28, subscriptions, "Cancellation". Whether there was such a subscription.
    pub(super) fn close(&mut self, id: i64, out: &mut Vec<Out>) -> bool {
        let Some(closed) = self.listens.remove(&id) else {
            return false;
        };
        for (uri, uri_text) in &closed.uris {
            let is_answered = self.watches.get(uri).is_some_and(|it| it.asking.is_none());
            if is_answered && !self.is_watched_for(uri) {
                self.watches.remove(uri);
                self.unwatch(uri_text, out);
            }
        }
        true
    }

    /// The child has answered a `resources/subscribe` of ours.
    pub(super) fn answered(&mut self, id: &str, is_error: bool, out: &mut Vec<Out>) {
        let is_it = |watch: &Watch| watch.asking.as_ref().is_some_and(|(own, _)| own == id);
        let found = self.watches.iter_mut().find(|(_, watch)| is_it(watch));
        let Some((uri, watch)) = found else {
            return;
        };
        watch.asking = None;
        let uri = uri.clone();
        if is_error {
            self.give_up(&uri);
        } else if !self.is_watched_for(&uri) {
            self.watches.remove(&uri);
            let uri_text = serde_json::Value::from(uri.as_ref()).to_string();
            self.unwatch(&uri_text, out);
        }
        self.acknowledge(out);
    }

    pub(super) fn due(&self) -> Option<Instant> {
        let waiting = self.watches.values().filter_map(|it| it.asking.as_ref());
        waiting.map(|(_, until)| *until).min()
    }

    /// What the child did not answer in time counts as refused.
    pub(super) fn tick(&mut self, now: Instant, out: &mut Vec<Out>) {
        let is_late = |watch: &Watch| {
            watch
                .asking
                .as_ref()
                .is_some_and(|(_, until)| *until <= now)
        };
        let late = self.watches.iter().filter(|(_, watch)| is_late(watch));
        let late: Vec<_> = late.map(|(uri, _)| uri.clone()).collect();
        for uri in &late {
            self.give_up(uri);
        }
        if !late.is_empty() {
            self.acknowledge(out);
        }
    }

    /// 2026-07-28, subscriptions, "Receiving Notifications": one for each that listens for it.
    pub(super) fn notify(
        &mut self,
        name: &str,
        line: &str,
        params: Option<&str>,
        out: &mut Vec<Out>,
    ) {
        let uri = params.and_then(|it| member(it, "uri")).and_then(text);
        for (id, listen) in &mut self.listens {
            if !listen.is_acknowledged {
                listen.remember(name, uri.as_deref());
            } else if listen.wants(name, uri.as_deref()) {
                out.push(Out::Client(tagged(line, params, *id)));
            }
        }
    }

    /// 2025-11-25, resources, "Subscriptions".
    fn watch(&mut self, uri: &str, uri_text: &str, now: Instant, out: &mut Vec<Out>) {
        self.requests += 1;
        let id = format!("{ID_PREFIX}{}", self.requests);
        out.push(Out::Child(request(&id, method::SUBSCRIBE, uri_text)));
        let asking = Some((id, now + PATIENCE));
        self.watches.insert(uri.into(), Watch { asking });
    }

    fn unwatch(&mut self, uri_text: &str, out: &mut Vec<Out>) {
        self.requests += 1;
        let id = format!("{UNSUBSCRIBE_ID_PREFIX}{}", self.requests);
        out.push(Out::Child(request(&id, method::UNSUBSCRIBE, uri_text)));
    }

    /// The child does not watch it.
    fn give_up(&mut self, uri: &str) {
        self.watches.remove(uri);
        for listen in self.listens.values_mut() {
            listen.uris.retain(|(own, _)| own.as_ref() != uri);
        }
    }

    fn is_watched_for(&self, uri: &str) -> bool {
        let mut listens = self.listens.values();
        listens.any(|it| it.uris.iter().any(|(own, _)| own.as_ref() == uri))
    }

    /// 2026-07-28, subscriptions, "Acknowledgment": of those that know by now what they will get.
    fn acknowledge(&mut self, out: &mut Vec<Out>) {
        let watches = &self.watches;
        let is_known = |uri: &str| watches.get(uri).is_none_or(|it| it.asking.is_none());
        for (id, listen) in &mut self.listens {
            if !listen.is_acknowledged && listen.uris.iter().all(|(uri, _)| is_known(uri)) {
                listen.is_acknowledged = true;
                out.push(Out::Client(listen.acknowledgment(*id)));
                listen.catch_up(*id, out);
            }
        }
    }
}

impl Listen {
    /// What of the filter the child can honour (2026-07-28, subscriptions, "Notification Filter").
    fn read(server: &Server, params: &str) -> Result<Self, Refusal> {
        let malformed = |what: &str| {
            let why = format!("params.notifications{what}");
            Err((code::INVALID_PARAMS, why))
        };
        let mut listen = Self {
            tools: false,
            prompts: false,
            resources: false,
            uris: Vec::new(),
            is_acknowledged: false,
            early: BTreeSet::new(),
        };
        let Some(filter) = member(params, "notifications").filter(|it| it.starts_with('{')) else {
            return malformed(" is not an object");
        };
        for field in members(filter) {
            let name = text(field.key).unwrap_or_default();
            let (flag, is_offered) = match name.as_ref() {
                "toolsListChanged" => (&mut listen.tools, server.tools_change),
                "promptsListChanged" => (&mut listen.prompts, server.prompts_change),
                "resourcesListChanged" => (&mut listen.resources, server.resources_change),
                "resourceSubscriptions" => {
                    let Some(uris) = uris(field.value) else {
                        return malformed(".resourceSubscriptions is not an array of strings");
                    };
                    if server.subscribes {
                        listen.uris = uris;
                    }
                    continue;
                }
                _ => continue,
            };
            match field.value {
                "true" => *flag = is_offered,
                "false" => {}
                _ => return malformed(&format!(".{name} is neither true nor false")),
            }
        }
        Ok(listen)
    }

    fn wants(&self, name: &str, uri: Option<&str>) -> bool {
        match name {
            method::TOOLS_CHANGED => self.tools,
            method::PROMPTS_CHANGED => self.prompts,
            method::RESOURCES_CHANGED => self.resources,
            method::RESOURCE_UPDATED => uri.is_some_and(|uri| self.watched(uri).next().is_some()),
            _ => false,
        }
    }

    /// The URIs listened for that an update of this one is for.
    fn watched(&self, uri: &str) -> impl Iterator<Item = &str> {
        let own = self.uris.iter().map(|(own, _)| own.as_ref());
        own.filter(move |own| is_at_or_below(uri, own))
    }

    /// Keeps a change until the subscription is acknowledged. All that is below a URI counts as
    /// one, so that what is kept is bounded as the URIs are.
    fn remember(&mut self, name: &str, uri: Option<&str>) {
        if !self.wants(name, uri) {
            return;
        }
        let change = |own: Option<&str>| (name.into(), own.map(Into::into));
        let changes: Vec<Change> = match uri.filter(|_| name == method::RESOURCE_UPDATED) {
            Some(uri) => self.watched(uri).map(|own| change(Some(own))).collect(),
            None => vec![change(None)],
        };
        self.early.extend(changes);
    }

    /// Tells what has changed before the subscription was acknowledged.
    fn catch_up(&mut self, id: i64, out: &mut Vec<Out>) {
        for (name, uri) in std::mem::take(&mut self.early) {
            if !self.wants(&name, uri.as_deref()) {
                continue; // the child has refused to watch it
            }
            let mut params = serde_json::json!({ "_meta": { meta::SUBSCRIPTION_ID: id } });
            if let Some(uri) = uri {
                params["uri"] = uri.as_ref().into();
            }
            out.push(Out::Client(format!(
                r#"{{"jsonrpc":"2.0","method":"{name}","params":{params}}}"#
            )));
        }
    }

    fn acknowledgment(&self, id: i64) -> String {
        let flag = |name: &str, is_set: bool| is_set.then(|| format!(r#""{name}":true"#));
        let uris: Vec<_> = self.uris.iter().map(|(_, raw)| raw.as_ref()).collect();
        let uris = uris.join(",");
        let fields: Vec<_> = [
            flag("toolsListChanged", self.tools),
            flag("promptsListChanged", self.prompts),
            flag("resourcesListChanged", self.resources),
            (!uris.is_empty()).then(|| format!(r#""resourceSubscriptions":[{uris}]"#)),
        ]
        .into_iter()
        .flatten()
        .collect();
        format!(
            r#"{{"jsonrpc":"2.0","method":"{}","params":{{"_meta":{{"{}":{id}}},"notifications":{{{}}}}}}}"#,
            method::ACKNOWLEDGED,
            meta::SUBSCRIPTION_ID,
            fields.join(",")
        )
    }
}

/// 2025-11-25, schema, `ResourceUpdatedNotificationParams`: it may be a sub-resource of the one
/// that was subscribed to.
fn is_at_or_below(uri: &str, watched: &str) -> bool {
    uri.strip_prefix(watched)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || watched.ends_with('/'))
}

/// The strings of an array, each once, as text and as they stand.
fn uris(array: &str) -> Option<Vec<(Box<str>, Box<str>)>> {
    let raw: Vec<&serde_json::value::RawValue> = serde_json::from_str(array).ok()?;
    let mut uris: Vec<(Box<str>, Box<str>)> = Vec::with_capacity(raw.len().min(MAX_URIS));
    let mut seen = std::collections::HashSet::with_capacity(raw.len().min(MAX_URIS));
    for raw in raw {
        let uri = text(raw.get())?;
        if seen.insert(uri.clone()) {
            uris.push((uri.into(), raw.get().into()));
        }
    }
    Some(uris)
}

fn request(id: &str, method: &str, uri_text: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":"{id}","method":"{method}","params":{{"uri":{uri_text}}}}}"#)
}

/// A notification of the child with the id of the subscription that it is delivered for.
fn tagged(line: &str, params: Option<&str>, id: i64) -> String {
    let line = line.trim_start();
    let id = id.to_string();
    let tag = [(meta::SUBSCRIPTION_ID, id.as_str())];
    let alone = format!(r#"{{"{}":{id}}}"#, meta::SUBSCRIPTION_ID);
    let mut edit = Edit::of(line);
    let Some(params) = params.filter(|it| it.starts_with('{')) else {
        let whole = format!(r#"{{"_meta":{alone}}}"#);
        return match params {
            Some(params) => edit.replace(params, whole).done(),
            None => edit.put(line, &[("params", &whole)]).done(),
        };
    };
    match member(params, "_meta") {
        None => edit.put(params, &[("_meta", &alone)]),
        Some(own) if !own.starts_with('{') => edit.replace(own, alone),
        Some(own) => match member(own, meta::SUBSCRIPTION_ID) {
            Some(old) => edit.replace(old, id.as_str()),
            None => edit.put(own, &tag),
        },
    };
    edit.done()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jsonrpc::parse;

    #[test]
    fn a_resource_is_below_another_by_its_path() {
        let below = |uri, watched| is_at_or_below(uri, watched);
        assert!(below("file:///a", "file:///a"));
        assert!(below("file:///a/b", "file:///a"));
        assert!(below("file:///a/b", "file:///a/"));
        assert!(!below("file:///ab", "file:///a"));
        assert!(!below("file:///", "file:///a"));
    }

    #[test]
    fn a_tag_changes_nothing_else() {
        let check = |line: &str, wanted: &str| {
            let message = parse(line).unwrap();
            assert_eq!(tagged(line, message.params, 5), wanted);
        };
        check(
            r#" {"method":"m" ,"jsonrpc":"2.0"}"#,
            r#"{"params":{"_meta":{"io.modelcontextprotocol/subscriptionId":5}},"method":"m" ,"jsonrpc":"2.0"}"#,
        );
        check(
            r#"{"jsonrpc":"2.0","method":"m","params":{ "uri":"\u0061","n":1.0 }}"#,
            r#"{"jsonrpc":"2.0","method":"m","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":5}, "uri":"\u0061","n":1.0 }}"#,
        );
        check(
            r#"{"jsonrpc":"2.0","method":"m","params":{"_meta":{"x":1 }}}"#,
            r#"{"jsonrpc":"2.0","method":"m","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":5,"x":1 }}}"#,
        );
        check(
            r#"{"jsonrpc":"2.0","method":"m","params":{"_meta":{"io.modelcontextprotocol\/subscriptionId":"forged"}}}"#,
            r#"{"jsonrpc":"2.0","method":"m","params":{"_meta":{"io.modelcontextprotocol\/subscriptionId":5}}}"#,
        );
        check(
            r#"{"jsonrpc":"2.0","method":"m","params":{"_meta":null}}"#,
            r#"{"jsonrpc":"2.0","method":"m","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":5}}}"#,
        );
        check(
            r#"{"jsonrpc":"2.0","method":"m","params":[]}"#,
            r#"{"jsonrpc":"2.0","method":"m","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":5}}}"#,
        );
    }
}
