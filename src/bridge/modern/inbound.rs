//! From the child to clients: thread `r:`. Owns the streams, and answers everybody who waits.
//!
//! `era` knows a modern child · `inquiry` asks for the tools · `life` is how it all begins and ends

mod era;
mod inquiry;
mod life;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::check::log_level;
use super::desk::{Call, Taken};
use super::tools::Inquiry;
use super::{Errand, Shared};
use crate::bridge::lane::Heard;
use crate::bridge::words::{Garbage, last_words};
use crate::bridge::{End, EraNews, EventWriter, Inbound, Reply, too_long};
use crate::jsonrpc::{self, Edit, Id, Kind, Message};
use crate::mcp::{meta, method};
use era::{error_code, served_versions};
use inquiry::tells_of_tools;
use life::Ending;

/// A comment is sent when nothing else was for so long; proxies cut idle streams after 60 s and
/// more.
const HEARTBEAT: Duration = Duration::from_secs(15);

pub(in crate::bridge) struct ModernInbound {
    shared: Arc<Shared>,
    /// By the numbers of their requests.
    streams: HashMap<u64, Stream>,
    garbage: Garbage,
    /// The child has shown that it is of the era that it was taken for, or that it is not.
    is_known: bool,
}

struct Stream {
    writer: Box<dyn EventWriter>,
    last_sent: Instant,
}

impl Stream {
    /// False if the client cannot be reached any more.
    fn send(&mut self, bytes: &[u8], now: Instant) -> bool {
        self.last_sent = now;
        self.writer.send(bytes).is_ok()
    }
}

impl ModernInbound {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            streams: HashMap::new(),
            garbage: Garbage::new(),
            is_known: false,
        }
    }
}

impl Inbound for ModernInbound {
    fn line(&mut self, line: &[u8], now: Instant) {
        let Ok(text) = str::from_utf8(line.trim_ascii()) else {
            return self.garbage("not UTF-8", &String::from_utf8_lossy(line));
        };
        // 2025-03-26, transports: a legacy child may write several messages in one line.
        if self.shared.lane.is_translating() && jsonrpc::is_batch(text) {
            match jsonrpc::split_batch(text) {
                Ok(messages) => messages.iter().for_each(|it| self.one(it, now)),
                Err(why) => self.garbage(&why.to_string(), text),
            }
        } else {
            self.one(text, now);
        }
    }

    fn line_too_long(&mut self) {
        self.garbage("longer than max_message", "");
    }

    /// If it was the answer to a request, nobody else will give one.
    fn line_skipped(&mut self, head: &[u8], tail: &[u8], now: Instant) {
        if let Some(id) = jsonrpc::answered_by(head, tail) {
            let error = too_long(&id, &self.shared.options.server);
            self.line(error.as_bytes(), now);
        }
    }

    fn service(&mut self, now: Instant) {
        while let Some(errand) = self.shared.errands.take() {
            match errand {
                Errand::HandIn(heard) => self.take_in(heard, now),
                Errand::LetGo(held) => self.let_go(held, now),
                Errand::LearnTools => self.inquire(Inquiry::default(), "", now),
                Errand::Gone { connection } => self.gone(connection, now),
                Errand::Close => self.end_all(&Ending::Closed, now),
            }
        }
        if self.shared.lane.is_translating() {
            let heard = self.shared.lane.tick(now);
            self.take_in(heard, now);
        }
        self.fail_late_start(now);
        self.let_go_overdue(now);
        let overdue = self.shared.desk.lock().overdue(now);
        for no in overdue {
            self.open_stream(no, now);
        }
        self.beat(now);
    }

    fn exited(&mut self, reason: &str, now: Instant) {
        let server = &self.shared.options.server;
        let is_starting = self.shared.desk.lock().is_starting();
        let when = if is_starting {
            " before it answered initialize"
        } else {
            ""
        };
        let detail = format!(
            "server \"{server}\" ended{when}: {reason}{}",
            last_words(&self.shared.options)
        );
        let why = reason.to_owned();
        match is_starting {
            true => self.fail_start(why, detail, now),
            false => {
                let ending = Ending::Exited(why.clone());
                self.shared.options.host.ended(End::Exited { why, detail });
                self.end_all(&ending, now);
            }
        }
        // What came in meanwhile.
        self.service(now);
    }
}

impl ModernInbound {
    /// Takes one message of the child.
    fn one(&mut self, text: &str, now: Instant) {
        if let Err(why) = jsonrpc::parse(text) {
            return self.garbage(&why.to_string(), text);
        }
        if !self.shared.lane.is_translating() {
            return self.message(text, now);
        }
        let heard = self.shared.lane.hear(text, now);
        if heard.is_ready && heard.failed.is_none() {
            self.shared.desk.lock().note_ready();
        }
        self.take_in(heard, now);
    }

    /// What has become of a line on its way through the translator.
    fn take_in(&mut self, heard: Heard, now: Instant) {
        for line in heard.lines {
            self.message(&line, now);
        }
        if let Some(failure) = heard.failed {
            if let Some(tell) = &self.shared.options.era_news {
                tell(EraNews::NotAsKnown);
            }
            let options = &self.shared.options;
            let told = failure.told(&*options.redact);
            let (server, stderr) = (&options.server, last_words(options));
            let detail = format!("server \"{server}\" cannot be used: it {told}{stderr}");
            self.fail_start(format!("it {}", failure.why), detail, now);
        }
        if let Some(due) = heard.due {
            (self.shared.options.wake_at)(due);
        }
    }

    /// A message of the modern era: of the child, or of the translator for it.
    fn message(&mut self, text: &str, now: Instant) {
        let Ok(message) = jsonrpc::parse(text) else {
            return;
        };
        match (message.kind, &*message.method) {
            (Kind::Response, _) => self.answer(&message, text, now),
            // 2026-07-28, stdio: there are none, and a client "MUST NOT write JSON-RPC responses".
            (Kind::Request, method) => {
                let label = &self.shared.options.label;
                log::warn!("child {label} asks for {method:?}, which its era has no way to");
            }
            (_, method::PROGRESS) => self.progress(&message, text, now),
            (_, method::MESSAGE) => self.log_message(&message, text, now),
            (_, method::CANCELLED) => self.ended_by_child(&message, now),
            _ => self.of_subscription(&message, text, now),
        }
    }

    fn answer(&mut self, message: &Message<'_>, text: &str, now: Instant) {
        let taken = number(&message.id).and_then(|no| {
            let taken = self.shared.desk.lock().take(no);
            taken.map(|taken| (no, taken))
        });
        if let Some((_, taken)) = &taken {
            self.note_era(taken, message);
        }
        let label = &self.shared.options.label;
        match taken {
            Some((no, Taken::Call(call))) => self.deliver(no, call, message, text, now),
            Some((_, Taken::Tools(inquiry))) => self.page_of_tools(inquiry, message.result, now),
            Some((_, Taken::ToolChanges)) => {
                log::debug!("child {label} does not tell of changes of its tools");
                if message.error.is_none() {
                    // It did until now.
                    self.shared.desk.lock().forget_tools();
                }
            }
            None => log::debug!("child {label} answered nobody's request"),
        }
    }

    /// Gives an answer to whoever waits for it, under the id that the client knows.
    fn deliver(&mut self, no: u64, call: Call, message: &Message<'_>, text: &str, now: Instant) {
        let mut edit = Edit::of(text);
        edit.replace(message.id_text, &*call.id_text);
        let ended = message.result.filter(|_| call.is_listen);
        if let Some(id) = ended.and_then(subscription_id) {
            edit.replace(id, &*call.id_text);
        }
        let discovered = message.result.filter(|_| call.is_discover);
        if let Some((versions, served)) = discovered.and_then(served_versions) {
            edit.replace(versions, served);
        }
        let json = edit.done();
        self.finish(no, call, &json, error_code(message), now);
    }

    /// Ends an exchange with its response.
    fn finish(&mut self, no: u64, call: Call, json: &str, error: Option<i64>, now: Instant) {
        if let Some(exchange) = call.exchange {
            let json = json.as_bytes();
            return exchange.reply(Reply::Answer { json, error });
        }
        self.end_stream(no, json, now);
    }

    fn end_stream(&mut self, no: u64, json: &str, now: Instant) {
        if let Some(mut stream) = self.streams.remove(&no) {
            stream.send(&event(json), now);
            stream.writer.finish();
        }
    }

    /// 2026-07-28, progress: belongs to the request whose token it carries. There is none on the
    /// stream of a subscription (streamable HTTP, "Receiving Messages").
    fn progress(&mut self, message: &Message<'_>, text: &str, now: Instant) {
        let token = message
            .params
            .and_then(|params| jsonrpc::member(params, meta::PROGRESS_TOKEN));
        let no = token.and_then(Id::parse).and_then(|id| number(&id));
        let (Some(token), Some(no)) = (token, no) else {
            return self.unclaimed(message);
        };
        let own = self
            .shared
            .desk
            .lock()
            .call(no)
            .filter(|it| !it.is_listen)
            .map(|it| it.token_text.clone());
        match own {
            Some(Some(own)) => {
                let json = Edit::of(text).replace(token, own).done();
                self.send(no, &json, now);
            }
            _ => self.unclaimed(message),
        }
    }

    /// 2026-07-28, logging, "Per-request log level". Which request a message is about does not
    /// stand in it; the newest that asked for messages is the best guess, as it is in a child that
    /// does one thing at a time the only one.
    fn log_message(&mut self, message: &Message<'_>, text: &str, now: Instant) {
        let level = message.params.and_then(|it| jsonrpc::member(it, "level"));
        let severity = level.and_then(log_level);
        let no = severity.and_then(|severity| self.shared.desk.lock().wants_log(severity));
        match no {
            Some(no) => self.send(no, text, now),
            None => self.unclaimed(message),
        }
    }

    /// 2026-07-28, subscriptions, "Receiving Notifications": they name their subscription.
    fn of_subscription(&mut self, message: &Message<'_>, text: &str, now: Instant) {
        let id = message.params.and_then(subscription_id);
        let no = id.and_then(Id::parse).and_then(|id| number(&id));
        let (Some(id), Some(no)) = (id, no) else {
            return self.unclaimed(message);
        };
        let own = {
            let mut desk = self.shared.desk.lock();
            if desk.tool_changes == Some(no) && message.method == method::TOOLS_CHANGED {
                desk.forget_tools();
            }
            if desk.tool_changes == Some(no) && message.method == method::ACKNOWLEDGED {
                desk.is_told_changes = message.params.is_some_and(tells_of_tools);
            }
            let listen = desk.call(no).filter(|it| it.is_listen);
            listen.map(|it| it.id_text.clone())
        };
        match own {
            Some(own) => self.send(no, &Edit::of(text).replace(id, own).done(), now),
            None => self.unclaimed(message),
        }
    }

    /// 2026-07-28, cancellation: so a child over stdio takes a subscription down. Over HTTP its end
    /// is a response ("Graceful Closure").
    fn ended_by_child(&mut self, message: &Message<'_>, now: Instant) {
        let id = message
            .params
            .and_then(|it| jsonrpc::member(it, "requestId"));
        let Some(no) = id.and_then(Id::parse).and_then(|id| number(&id)) else {
            return self.unclaimed(message);
        };
        let listen = {
            let mut desk = self.shared.desk.lock();
            desk.end_watch(no);
            match desk.call(no) {
                Some(call) if call.is_listen => desk.remove(no),
                _ => None,
            }
        };
        if let Some(listen) = listen {
            self.close_gracefully(no, listen, now);
        }
    }

    fn close_gracefully(&mut self, no: u64, listen: Call, now: Instant) {
        let id = &listen.id_text;
        let result = format!(
            r#"{{"resultType":"complete","_meta":{{"{}":{id}}}}}"#,
            meta::SUBSCRIPTION_ID
        );
        let json = jsonrpc::result_response(id, &result);
        self.finish(no, listen, &json, None, now);
    }

    fn unclaimed(&self, message: &Message<'_>) {
        let label = &self.shared.options.label;
        log::debug!("child {label} says {:?} to nobody", message.method);
    }

    /// Sends one message on the stream of a request, which it becomes now if it is none yet.
    fn send(&mut self, no: u64, json: &str, now: Instant) {
        self.open_stream(no, now);
        let is_lost = self
            .streams
            .get_mut(&no)
            .is_some_and(|stream| !stream.send(&event(json), now));
        if is_lost {
            self.lose(no, now);
        }
    }

    fn open_stream(&mut self, no: u64, now: Instant) {
        let exchange = self
            .shared
            .desk
            .lock()
            .call(no)
            .and_then(|it| it.exchange.take());
        let Some(exchange) = exchange else {
            return;
        };
        log::debug!("stream opened sid={} call={no}", self.shared.options.label);
        let opened = exchange.stream(None).and_then(|mut writer| {
            // The head goes with it.
            writer.send(b": \n\n")?;
            Ok(writer)
        });
        let Ok(writer) = opened else {
            return self.lose(no, now);
        };
        let last_sent = now;
        self.streams.insert(no, Stream { writer, last_sent });
        let due = now + HEARTBEAT;
        let mut desk = self.shared.desk.lock();
        desk.streams_due = Some(desk.streams_due.map_or(due, |known| known.min(due)));
    }

    /// A client cannot be reached: what it waited for is cancelled.
    fn lose(&mut self, no: u64, now: Instant) {
        let call = self.shared.desk.lock().remove(no);
        if let Some(call) = call {
            self.abandon(no, call, now);
        }
    }

    fn gone(&mut self, connection: u64, now: Instant) {
        let calls = self.shared.desk.lock().forget_connection(connection);
        for (no, call) in calls {
            self.abandon(no, call, now);
        }
    }

    /// 2026-07-28, cancellation, "Transport-Specific Cancellation": what closes a stream over HTTP
    /// is a message over stdio. It only means requests that the child knows of.
    fn abandon(&mut self, no: u64, call: Call, now: Instant) {
        self.streams.remove(&no);
        let was_held = call.was_held;
        drop(call);
        if was_held {
            return;
        }
        let cancelled = method::CANCELLED;
        self.say(
            &format!(
                r#"{{"jsonrpc":"2.0","method":"{cancelled}","params":{{"requestId":{no},"reason":"the client has gone"}}}}"#
            ),
            now,
        );
    }

    /// Says something to the child.
    fn say(&mut self, line: &str, now: Instant) {
        let heard = self.shared.lane.say(line, now);
        self.take_in(heard, now);
    }

    fn beat(&mut self, now: Instant) {
        let is_late = |stream: &Stream| now >= stream.last_sent + HEARTBEAT;
        let late = self.streams.iter().filter(|(_, stream)| is_late(stream));
        let late: Vec<u64> = late.map(|(no, _)| *no).collect();
        for no in late {
            let stream = self.streams.get_mut(&no);
            if stream.is_some_and(|stream| !stream.send(b": \n\n", now)) {
                self.lose(no, now);
            }
        }
        let due = self.streams.values().map(|it| it.last_sent + HEARTBEAT);
        self.shared.desk.lock().streams_due = due.min();
    }

    fn garbage(&mut self, why: &str, text: &str) {
        self.garbage.note(&self.shared.options, why, text);
    }
}

impl Drop for ModernInbound {
    /// A panic here must not leave a child behind that nobody serves.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.options.host.ended(End::Fault);
        }
    }
}

/// One of our numbers, as a child gives it back.
fn number(id: &Id) -> Option<u64> {
    match id {
        Id::Integer(no) => u64::try_from(*no).ok(),
        Id::Float(_) | Id::String(_) | Id::Null => None,
    }
}

/// The text of the subscription's id in the `_meta` of `params` or of a `result`.
fn subscription_id(object: &str) -> Option<&str> {
    let meta = jsonrpc::member(object, "_meta")?;
    jsonrpc::member(meta, meta::SUBSCRIPTION_ID)
}

/// Events have no ids: a stream of the modern era cannot be resumed.
fn event(json: &str) -> Vec<u8> {
    // Between tokens it is white space, but in an event it would end the line.
    format!("event: message\ndata: {}\n\n", json.replace('\r', " ")).into_bytes()
}
