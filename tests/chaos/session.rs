//! A client's session: opening, calling and ending it. [`words`] checks every word that comes;
//! [`crate::streams`] goes on from here to streams that break.

mod words;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Client, Done, Halt, PATIENCE, Request, Standing, start_of};
use crate::ledger::{Kind, Why};
use crate::wire::{Broken, Connection, Event, Response};
use crate::world::{State, World};

pub(crate) struct Session<'c, 'w> {
    pub(crate) client: &'c Client<'w>,
    pub(crate) server: &'static str,
    pub(crate) standing: Standing,
    next_id: u64,
    /// The process behind it.
    nonce: Option<String>,
    connection: Option<Connection>,
    /// Of each stream: the last event, and the last flood message, that came.
    last_events: HashMap<u64, u64>,
    last_floods: HashMap<u64, (String, u64)>,
    /// What came of floods, by process and number.
    floods: HashSet<(String, u64)>,
}

/// A call to be made.
#[derive(Clone, Copy, Default)]
pub(crate) struct Work {
    pub(crate) steps: u64,
    pub(crate) step_ms: u64,
    /// Bytes of padding there, and back.
    pub(crate) send: usize,
    pub(crate) back: usize,
    pub(crate) die: Option<&'static str>,
    /// Messages of a flood; then it is no witness that is called.
    pub(crate) flood: u64,
}

/// A request under way: what it must bring.
pub(crate) struct Expected {
    pub(crate) began: Instant,
    pub(crate) what: &'static str,
    /// The broker's generation then.
    generation: u64,
    /// Whether another process than before may answer.
    may_be_new: bool,
    /// `None` for the session's own stream.
    pub(crate) id: Option<u64>,
    mark: String,
    pub(crate) steps: u64,
    pub(crate) seen: u64,
    pub(crate) last_event: Option<String>,
    pub(crate) answered: bool,
    /// Requests of the child that came meanwhile.
    pub(crate) questions: Vec<Value>,
}

impl Expected {
    pub(crate) fn of_stream(world: &World) -> Self {
        let generation = world.generation();
        Self {
            began: Instant::now(),
            generation,
            may_be_new: false,
            what: "GET",
            id: None,
            mark: String::new(),
            steps: 0,
            seen: 0,
            last_event: None,
            answered: false,
            questions: Vec::new(),
        }
    }
}

impl<'c, 'w> Session<'c, 'w> {
    /// Opens a session as a client does: `initialize`, then `notifications/initialized`.
    pub(crate) fn open(client: &'c Client<'w>, server: &'static str) -> Done<Self> {
        let world = client.world;
        let (began, generation, token) = (Instant::now(), world.generation(), client.token());
        let body = initialize().to_string();
        let request = Request {
            method: "POST",
            server,
            token: Some(&token),
            session: None,
            fields: "",
            body: Some(&body),
        };
        world.ledger.asked();
        let what = "initialize";
        let place = world.take_place(client.principal);
        let mut response = client
            .exchange(&request, PATIENCE)
            .map_err(|why| client.broken(None, began, &why, what))?;
        if response.head.status != 200 {
            place.ended();
            return Err(client.refused(None, began, &mut response, what));
        }
        let answer = answer_of(&mut response)
            .map_err(|why| client.broken(None, began, &why, what))?
            .unwrap_or_default();
        let id = response.head.session.clone();
        let (Some(id), true) = (id, answer["id"] == 0 && answer["result"].is_object()) else {
            let got = start_of(&answer.to_string());
            return Err(match client.excuse(None, began) {
                Some(why) => {
                    world.ledger.interrupted(why);
                    Halt
                }
                None => client.failed(Kind::Wrong, None, &format!("initialize: got {got}")),
            });
        };
        world.ledger.answered();
        let listed = world.list(&id, client.principal, server, generation);
        let mut session = Self {
            client,
            server,
            standing: Standing {
                id,
                generation,
                token,
                revives: server == "revive" && world.features.revive,
                doomed: false,
                used: began,
                place,
                listed,
            },
            next_id: 1,
            nonce: None,
            connection: response.done(),
            last_events: HashMap::new(),
            last_floods: HashMap::new(),
            floods: HashSet::new(),
        };
        let told =
            session.tell(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        if told.is_err() {
            session.forget();
        }
        told.map(|()| session)
    }

    /// The session is given up: nobody may expect anything of it any more.
    pub(crate) fn forget(&mut self) {
        self.standing.listed.set(State::Ending);
        self.connection = None;
    }

    /// Its child is about to be made to die.
    pub(crate) fn doom(&mut self) {
        self.standing.listed.set(State::Ending);
        self.standing.doomed = true;
    }

    /// A request of this session, as bytes.
    pub(crate) fn bytes(&self, method: &'static str, fields: &str, body: Option<&str>) -> Vec<u8> {
        let request = Request {
            method,
            server: self.server,
            token: Some(&self.standing.token),
            session: Some(&self.standing.id),
            fields,
            body,
        };
        request.bytes(self.client.world)
    }

    /// Sends bytes on the session's connection if it has one, else on a new one.
    pub(crate) fn send(&mut self, bytes: &[u8], began: Instant, what: &str) -> Done<Connection> {
        self.renew();
        let kept = self.connection.take();
        let kept = kept.filter(|it| it.generation == self.client.world.generation());
        let connection = kept.map_or_else(|| self.client.connect(), Ok);
        let sent = connection.and_then(|mut connection| {
            connection.send(bytes)?;
            Ok(connection)
        });
        sent.map_err(|why| self.client.broken(Some(&self.standing), began, &why, what))
    }

    /// Whether the process behind the session may be another one by now. Its streams begin anew
    /// then.
    fn may_be_new(&self) -> bool {
        let Standing {
            generation,
            revives,
            doomed,
            ..
        } = self.standing;
        let is_struck = generation != self.client.world.generation();
        let is_evictable = self.client.is_evictable(&self.standing);
        revives && (is_struck || doomed || is_evictable || self.standing.is_idle())
    }

    fn renew(&mut self) {
        if self.may_be_new() {
            self.last_events.clear();
            self.last_floods.clear();
        }
    }

    /// Waits for the head of a response; a refusal is judged.
    pub(crate) fn head(
        &mut self,
        connection: Connection,
        began: Instant,
        success: u16,
        what: &str,
    ) -> Done<Response> {
        let standing = Some(&self.standing);
        let response = connection.response(PATIENCE);
        let mut response =
            response.map_err(|why| self.client.broken(standing, began, &why, what))?;
        if response.head.status != success {
            return Err(self.client.refused(standing, began, &mut response, what));
        }
        self.standing.used = began;
        self.standing.place.used(self.client.world.generation());
        Ok(response)
    }

    /// Sends a notification, or an answer to the child.
    pub(crate) fn tell(&mut self, message: &Value) -> Done<()> {
        self.plain("POST", Some(message), 202, "a notification")
    }

    /// A request whose answer is a status.
    pub(crate) fn plain(
        &mut self,
        method: &'static str,
        message: Option<&Value>,
        success: u16,
        what: &'static str,
    ) -> Done<()> {
        let began = Instant::now();
        let body = message.map(Value::to_string);
        self.client.world.ledger.asked();
        let bytes = self.bytes(method, "", body.as_deref());
        let connection = self.send(&bytes, began, what)?;
        let mut response = self.head(connection, began, success, what)?;
        let standing = Some(&self.standing);
        response
            .text()
            .map_err(|why| self.client.broken(standing, began, &why, what))?;
        self.connection = response.done();
        self.client.world.ledger.answered();
        Ok(())
    }

    /// Ends the session, and sees that it has ended.
    pub(crate) fn close(&mut self) -> Done<()> {
        self.standing.listed.set(State::Ending);
        self.plain("DELETE", None, 204, "DELETE")?;
        self.standing.listed.set(State::Ended);
        self.standing.place.ended();
        Ok(())
    }

    /// Makes a call and waits for its answer.
    pub(crate) fn call(&mut self, work: &Work) -> Done<()> {
        let (connection, mut expected) = self.begin(work, None)?;
        let mut response = self.head(connection, expected.began, 200, expected.what)?;
        self.finish(&mut expected, &mut response)?;
        self.connection = response.done();
        Ok(())
    }

    /// Sends a call, on this connection if one is given.
    pub(crate) fn begin(
        &mut self,
        work: &Work,
        connection: Option<Connection>,
    ) -> Done<(Connection, Expected)> {
        let id = self.fresh_id();
        let client = self.client;
        let mark = format!("{}/{}/{id}", client.no, client.round);
        let (tool, what) = match work.flood {
            0 => ("witness", "a call"),
            _ => ("deluge", "a flood"),
        };
        let mut arguments = json!({
            "mark": mark, "steps": work.steps, "step_ms": work.step_ms, "pad": work.back,
            "n": work.flood, "bytes": work.back, "garbage": work.flood / 8,
            "stderr": work.flood / 8, "sent": "x".repeat(work.send),
        });
        if let Some(die) = work.die {
            arguments["die"] = Value::from(die);
        }
        let params = json!({
            "name": tool, "arguments": arguments, "_meta": { "progressToken": id },
        });
        let body = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params });
        let bytes = self.bytes("POST", "", Some(&body.to_string()));
        let expected = Expected {
            id: Some(id),
            mark,
            steps: work.steps,
            may_be_new: self.may_be_new(),
            what,
            ..Expected::of_stream(client.world)
        };
        client.world.ledger.asked();
        if connection.is_some() {
            self.connection = connection;
        }
        let connection = self.send(&bytes, expected.began, what)?;
        Ok((connection, expected))
    }

    /// Reads a response to its end: the answer must come once, after all that belongs before it.
    pub(crate) fn finish(&mut self, expected: &mut Expected, response: &mut Response) -> Done<()> {
        let patience = PATIENCE + Duration::from_secs(expected.steps);
        response.within(patience);
        if !response.head.is_stream {
            let answer = answer_of(response).map_err(|why| self.broken(expected, &why))?;
            return self.answer(expected, &answer.unwrap_or_default());
        }
        loop {
            match response
                .event()
                .map_err(|why| self.broken(expected, &why))?
            {
                Some(event) => self.take(expected, &event)?,
                None if expected.answered => return Ok(()),
                None => {
                    let why = Broken::Malformed("the stream ended without the answer");
                    return Err(self.broken(expected, &why));
                }
            }
        }
    }

    pub(crate) fn broken(&self, expected: &Expected, why: &Broken) -> Halt {
        // What was answered is no loss, however the stream ends then; and a GET was, by its head.
        let (standing, began) = (Some(&self.standing), expected.began);
        match expected.answered || expected.id.is_none() {
            true => match self.client.excuse(standing, began) {
                Some(_) => Halt,
                None => {
                    let what = format!("{}: after the answer: {why}", expected.what);
                    self.client.violation(Kind::Stream, standing, &what)
                }
            },
            false => self.client.broken(standing, began, why, expected.what),
        }
    }

    /// Gives the session up after something went wrong: ends it if the broker still knows it.
    pub(crate) fn abandon(&mut self) {
        self.forget();
        let is_known = self.client.world.generation() == self.standing.generation;
        if is_known || self.standing.revives {
            let request = Request {
                method: "DELETE",
                server: self.server,
                token: Some(&self.standing.token),
                session: Some(&self.standing.id),
                fields: "",
                body: None,
            };
            let answer = self.client.exchange(&request, Duration::from_secs(5));
            if answer.is_ok_and(|answer| answer.head.status == 204) {
                self.standing.place.ended();
            }
        }
    }

    /// An id that no request of this session has had.
    pub(crate) fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// A request whose stream could not be read to its end, for a reason that is in the ledger.
    pub(crate) fn lost_with_stream(&self) {
        self.client.world.ledger.interrupted(Why::Unread);
    }

    /// The client leaves: whatever it waits for is its own loss.
    pub(crate) fn left(&self) {
        self.client.world.ledger.interrupted(Why::Left);
    }
}

/// The message of a response, plain or streamed; the events before it are not looked at.
pub(crate) fn answer_of(response: &mut Response) -> Result<Option<Value>, Broken> {
    if !response.head.is_stream {
        return Ok(serde_json::from_str(&response.text()?).ok());
    }
    let mut last = None;
    while let Some(event) = response.event()? {
        if let Ok(message) = serde_json::from_str(&event.data) {
            last = Some(message);
        }
    }
    Ok(last)
}

/// The message that opens a session.
pub(crate) fn initialize() -> Value {
    json!({
        "jsonrpc": "2.0", "id": 0, "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": { "roots": {} },
            "clientInfo": { "name": "chaos", "version": "1" },
        },
    })
}
