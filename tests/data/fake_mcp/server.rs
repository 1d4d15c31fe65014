//! The server: takes lines, decides the era of each request, runs it (on a thread of its own where
//! it may take time), answers it. The one place that holds state: handshake, running requests, open
//! questions, subscriptions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::call::{Call, Era, Fault, Gate, LEVELS, Outcome, Reply};
use crate::catalogue::{self, LEGACY_VERSIONS, MODERN_VERSION};
use crate::message::{Incoming, Object, id_key, quote};
use crate::options::{AtDiscover, Eras, Options};
use crate::wire::Wire;
use crate::{content, process, tools};

const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";
const CAPABILITIES_KEY: &str = "io.modelcontextprotocol/clientCapabilities";

/// One running server.
pub(crate) struct Server {
    pub(crate) wire: Wire,
    options: Options,
    answered: AtomicU64,
    deaf: AtomicBool,
    /// `server/discover` has come.
    discovered: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Set by `initialize`: the client's capabilities, as text.
    handshake: Option<String>,
    /// Index into [`LEVELS`].
    log_level: usize,
    running: HashMap<String, Arc<Gate>>,
    questions: HashMap<String, Arc<Gate>>,
    /// How often each key has been used as an id.
    used_keys: HashMap<&'static str, u64>,
    /// Modern subscriptions: request id and filter, both as text.
    listeners: BTreeMap<String, String>,
    /// Legacy resource subscriptions.
    watched: BTreeSet<String>,
    /// Lists that `test_trigger_..._change` has changed.
    changed: BTreeSet<&'static str>,
    /// Notifications from the client, as JSON text.
    received: Vec<String>,
}

impl Server {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            wire: Wire::new(options.garbage),
            options,
            answered: AtomicU64::new(0),
            deaf: AtomicBool::new(false),
            discovered: AtomicBool::new(false),
            inner: Mutex::default(),
        }
    }

    /// Takes one line from the client.
    pub(crate) fn take(self: &Arc<Self>, line: &[u8]) {
        match Incoming::parse(line) {
            Ok(Incoming::Request { id, method, params }) => self.request(id, method, params),
            Ok(Incoming::Notification { method, params }) => self.notified(&method, params),
            Ok(Incoming::Response { id, answer }) => {
                let id = id_key(&id);
                if let Some(gate) = self.lock().questions.remove(&id) {
                    gate.answer(id, answer);
                }
            }
            Err((code, message)) => self.wire.error("null", code, message, None),
        }
    }

    /// Ends the subscriptions in good order; the client has closed stdin.
    pub(crate) fn close(&self) {
        for id in std::mem::take(&mut self.lock().listeners).into_keys() {
            let result = format!(
                r#"{{"resultType":"complete","_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}}}"#
            );
            self.wire.result(&id, &result);
        }
    }

    /// Stops reading stdin after the line at hand.
    pub(crate) fn go_deaf(&self) {
        self.deaf.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_deaf(&self) -> bool {
        self.deaf.load(Ordering::SeqCst)
    }

    /// The level that `logging/setLevel` has set: an index into [`LEVELS`].
    pub(crate) fn log_level(&self) -> usize {
        self.lock().log_level
    }

    /// The client's notifications so far, as a JSON array.
    pub(crate) fn received(&self) -> String {
        format!("[{}]", self.lock().received.join(","))
    }

    /// An id for a request to the client that has not been used before: the key itself the first
    /// time, so that a bridge between the eras can keep it.
    pub(crate) fn fresh_id(&self, key: &'static str) -> String {
        let mut inner = self.lock();
        let uses = inner.used_keys.entry(key).or_default();
        *uses += 1;
        match *uses {
            1 => quote(key),
            n => quote(&format!("{key}.{n}")),
        }
    }

    /// Answers to these ids open the gate.
    pub(crate) fn expect_answers(&self, ids: &[String], gate: &Arc<Gate>) {
        let entries = ids.iter().map(|id| (id.clone(), Arc::clone(gate)));
        self.lock().questions.extend(entries);
    }

    /// Nobody waits for these ids any more; returns the ones that were not answered.
    pub(crate) fn forget_answers(&self, ids: &[String]) -> Vec<String> {
        let mut inner = self.lock();
        let open = ids
            .iter()
            .filter(|id| inner.questions.remove(*id).is_some());
        open.cloned().collect()
    }

    /// Changes a list (`tools`, `prompts`) and tells whoever wants to know.
    pub(crate) fn change_list(&self, list: &'static str) {
        {
            let mut inner = self.lock();
            if !inner.changed.remove(list) {
                inner.changed.insert(list);
            }
        }
        let method = format!("notifications/{list}/list_changed");
        if self.lock().handshake.is_some() {
            self.wire.notification(&method, None);
        }
        let wants = |filter: &Object| filter.flag(&format!("{list}ListChanged"));
        self.tell_listeners(&method, "", wants);
    }

    /// Says that a resource has changed, to those who subscribed to it.
    pub(crate) fn touch(&self, uri: &str) {
        let method = "notifications/resources/updated";
        let quoted = quote(uri);
        if self.lock().watched.contains(uri) {
            let params = format!(r#"{{"uri":{quoted}}}"#);
            self.wire.notification(method, Some(&params));
        }
        let wants = |filter: &Object| {
            let uris = filter.value("resourceSubscriptions").unwrap_or_default();
            uris.as_array()
                .is_some_and(|uris| uris.iter().any(|known| known == uri))
        };
        self.tell_listeners(method, &format!(r#","uri":{quoted}"#), wants);
    }

    fn tell_listeners(&self, method: &str, rest: &str, wants: impl Fn(&Object) -> bool) {
        let listeners = self.lock().listeners.clone();
        for (id, filter) in listeners {
            if Object::parse(&filter).is_some_and(|filter| wants(&filter)) {
                let params = format!(
                    r#"{{"_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}{rest}}}"#
                );
                self.wire.notification(method, Some(&params));
            }
        }
    }

    fn notified(&self, method: &str, params: Option<String>) {
        let text = params.as_deref().unwrap_or("null");
        let entry = format!(r#"{{"method":{},"params":{text}}}"#, quote(method));
        let mut inner = self.lock();
        inner.received.push(entry);
        if method != "notifications/cancelled" {
            return;
        }
        let params = Object::parse(text).unwrap_or_default();
        if let Some(raw) = params.raw("requestId") {
            let id = id_key(raw);
            inner.listeners.retain(|known, _| id_key(known) != id);
            if let Some(gate) = inner.running.get(&id) {
                gate.cancel();
            }
        }
    }

    fn request(self: &Arc<Self>, id: String, method: String, params: Option<String>) {
        let answered = self.answered.load(Ordering::SeqCst);
        if self.options.die_after.is_some_and(|most| answered >= most) {
            process::quit(7);
        }
        if self.options.kill_after.is_some_and(|most| answered >= most) {
            process::kill_itself();
        }
        let opens = method == "initialize" || method == "server/discover";
        if opens && self.options.mute {
            return;
        }
        if self.misbehaves(&id, &method) {
            return;
        }
        if opens {
            thread::sleep(Duration::from_millis(self.options.slow_ms));
        }
        let params = Object::parse(params.as_deref().unwrap_or("{}")).unwrap_or_default();
        let call = match self.open(id.clone(), method, params) {
            Ok(call) => call,
            Err((era, fault)) => return self.answer(&id, era, Err(fault)),
        };
        self.lock()
            .running
            .insert(id_key(&id), Arc::clone(&call.gate));
        let may_wait = call.method == "tools/call" || call.method == "prompts/get";
        if !may_wait || call.name() == "deaf" {
            return self.run(&call);
        }
        let server = Arc::clone(self);
        let started = thread::Builder::new()
            .name("call".into())
            .spawn(move || server.run(&call));
        if started.is_err() {
            let fault = Fault::Rpc(-32603, "no thread for the call".into(), None);
            self.answer(&id, Era::Legacy, Err(fault));
        }
    }

    /// Does what the command line wants at `server/discover`; true if that is all.
    fn misbehaves(&self, id: &str, method: &str) -> bool {
        let was_discovered = match method {
            "server/discover" => self.discovered.swap(true, Ordering::SeqCst),
            _ => self.discovered.load(Ordering::SeqCst),
        };
        let Some(how) = self.options.at_discover else {
            return false;
        };
        match (how, method) {
            (AtDiscover::Exit, "server/discover") => process::quit(1),
            (AtDiscover::Silence, "server/discover") => true,
            (AtDiscover::Hang, "server/discover") => {
                self.go_deaf();
                true
            }
            (AtDiscover::Invalid, "server/discover") => {
                let fault = Fault::params("Invalid request parameters");
                self.answer(id, Era::Legacy, Err(fault));
                true
            }
            (AtDiscover::Lock, "initialize") if was_discovered => {
                self.answer(id, Era::Modern, Err(unsupported(Value::Null)));
                true
            }
            _ => false,
        }
    }

    /// Decides the era of a request, and whether it may be served at all.
    fn open(
        self: &Arc<Self>,
        id: String,
        method: String,
        params: Object,
    ) -> Result<Call, (Era, Fault)> {
        let meta = params.object("_meta").unwrap_or_default();
        let handshake = self.lock().handshake.clone();
        let era = match self.options.eras {
            Eras::Legacy => Era::Legacy,
            Eras::Modern => Era::Modern,
            Eras::Dual if meta.raw(VERSION_KEY).is_some() => Era::Modern,
            Eras::Dual if method == "initialize" || method == "ping" => Era::Legacy,
            Eras::Dual if handshake.is_some() && method != "server/discover" => Era::Legacy,
            Eras::Dual => Era::Modern,
        };
        let capabilities = match era {
            Era::Legacy => {
                if !self.options.lax {
                    legacy_order(&method, handshake.is_some())
                        .map_err(|message| (era, Fault::Rpc(-32600, message, None)))?;
                }
                Object::parse(handshake.as_deref().unwrap_or("{}")).unwrap_or_default()
            }
            Era::Modern => modern_meta(&method, &params, &meta).map_err(|fault| (era, fault))?,
        };
        Ok(Call {
            server: Arc::clone(self),
            id,
            method,
            era,
            params,
            meta,
            capabilities,
            gate: Arc::default(),
            gathered: Mutex::default(),
        })
    }

    fn run(self: &Arc<Self>, call: &Call) {
        let reply = self.dispatch(call);
        self.lock().running.remove(&id_key(&call.id));
        self.answer(&call.id, call.era, reply);
    }

    fn dispatch(&self, call: &Call) -> Reply {
        let list = |list: &str| self.lock().changed.contains(list);
        let result = match (call.method.as_str(), call.era) {
            ("initialize", Era::Legacy) => self.initialize(call),
            ("ping", Era::Legacy) => json!({}),
            ("logging/setLevel", Era::Legacy) => self.set_level(call)?,
            ("resources/subscribe", Era::Legacy) => self.watch(call, true)?,
            ("resources/unsubscribe", Era::Legacy) => self.watch(call, false)?,
            ("server/discover", Era::Modern) => catalogue::discover(),
            ("subscriptions/listen", Era::Modern) => return self.listen(call),
            ("tools/list", _) => catalogue::tools(call.era, list("tools")),
            ("prompts/list", _) => catalogue::prompts(call.era, list("prompts")),
            ("resources/list", _) => catalogue::resources(call.era),
            ("resources/templates/list", _) => catalogue::templates(call.era),
            ("resources/read", _) => content::read(call)?,
            ("completion/complete", _) => content::complete(call)?,
            ("prompts/get", _) => content::prompt(call)?,
            ("tools/call", _) => return tools::run(call),
            (method, _) => {
                let message = format!("method not found: {method}");
                return Err(Fault::Rpc(-32601, message, None));
            }
        };
        Ok(Outcome::Result(result))
    }

    /// Sends the answer, dressed as the era wants it.
    pub(crate) fn answer(&self, id: &str, era: Era, reply: Reply) {
        let result = match reply {
            Ok(Outcome::Silent) | Err(Fault::Cancelled) => return,
            Ok(Outcome::Result(result)) => catalogue::dress(era, result).to_string(),
            Ok(Outcome::Verbatim(text)) => text,
            Err(Fault::Tool(text)) => {
                let result = json!({
                    "content": [{ "type": "text", "text": text }],
                    "isError": true,
                });
                catalogue::dress(era, result).to_string()
            }
            Err(Fault::Input { requests, state }) => {
                let mut result = json!({
                    "resultType": "input_required",
                    "inputRequests": requests,
                });
                if let Some(state) = state {
                    result["requestState"] = Value::from(state);
                }
                catalogue::dress(era, result).to_string()
            }
            Err(Fault::Rpc(code, message, data)) => {
                let data = data.map(|data| data.to_string());
                self.answered.fetch_add(1, Ordering::SeqCst);
                return self.wire.error(id, code, &message, data.as_deref());
            }
        };
        self.answered.fetch_add(1, Ordering::SeqCst);
        self.wire.result(id, &result);
    }

    fn initialize(&self, call: &Call) -> Value {
        let asked = call.params.text("protocolVersion").unwrap_or_default();
        let known = LEGACY_VERSIONS.iter().find(|version| **version == asked);
        let capabilities = call.params.raw("capabilities").unwrap_or("{}");
        self.lock().handshake = Some(capabilities.to_owned());
        catalogue::initialize(known.unwrap_or(&LEGACY_VERSIONS[0]))
    }

    fn set_level(&self, call: &Call) -> Result<Value, Fault> {
        let level = call.params.text("level").unwrap_or_default();
        let rank = LEVELS.iter().position(|known| *known == level);
        let rank = rank.ok_or_else(|| Fault::params(format!("unknown level: {level}")))?;
        self.lock().log_level = rank;
        Ok(json!({}))
    }

    fn watch(&self, call: &Call, on: bool) -> Result<Value, Fault> {
        let uri = call.params.text("uri");
        let uri = uri.ok_or_else(|| Fault::params("uri is missing"))?;
        let mut inner = self.lock();
        if on {
            inner.watched.insert(uri);
        } else {
            inner.watched.remove(&uri);
        }
        Ok(json!({}))
    }

    /// Opens a subscription: it stays unanswered until it is cancelled or stdin ends.
    fn listen(&self, call: &Call) -> Reply {
        let filter = call.params.raw("notifications");
        let filter = filter.ok_or_else(|| Fault::params("notifications is missing"))?;
        let id = &call.id;
        let params = format!(
            r#"{{"_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}},"notifications":{filter}}}"#
        );
        self.wire
            .notification("notifications/subscriptions/acknowledged", Some(&params));
        let mut inner = self.lock();
        inner.listeners.insert(id.clone(), filter.to_owned());
        Ok(Outcome::Silent)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Legacy: `initialize` comes first, and once (2025-11-25, "Lifecycle").
fn legacy_order(method: &str, initialized: bool) -> Result<(), String> {
    match (method, initialized) {
        ("initialize", true) => Err("already initialized".into()),
        ("initialize" | "ping", _) | (_, true) => Ok(()),
        ("server/discover", false) => Ok(()),
        _ => Err(format!("{method} before initialize")),
    }
}

/// Modern: the metadata every request must carry (2026-07-28, "Basic", `_meta`). Returns the
/// client's capabilities.
fn modern_meta(method: &str, params: &Object, meta: &Object) -> Result<Object, Fault> {
    let Some(version) = meta.value(VERSION_KEY) else {
        if method == "initialize" {
            return Err(unsupported(
                params.value("protocolVersion").unwrap_or_default(),
            ));
        }
        return Err(Fault::params(format!("_meta lacks {VERSION_KEY}")));
    };
    if version != MODERN_VERSION {
        return Err(unsupported(version));
    }
    meta.object(CAPABILITIES_KEY)
        .ok_or_else(|| Fault::params(format!("_meta lacks {CAPABILITIES_KEY}")))
}

fn unsupported(requested: Value) -> Fault {
    let message = format!("unsupported protocol version, supported: {MODERN_VERSION}");
    let data = json!({ "supported": [MODERN_VERSION], "requested": requested });
    Fault::Rpc(-32022, message, Some(data))
}
