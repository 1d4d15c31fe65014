//! Every word that comes is checked: whether it was meant for this principal, this session, this
//! request, and whether it comes once and in its turn.

use super::*;

impl Session<'_, '_> {
    /// Takes one event of a stream.
    pub(crate) fn take(&mut self, expected: &mut Expected, event: &Event) -> Done<()> {
        self.client.world.ledger.event();
        let wrong = |session: &Self, what: &str| {
            let what = format!(
                "{} {}: {what}, event {event:?}",
                expected.what, expected.mark
            );
            session
                .client
                .violation(Kind::Stream, Some(&session.standing), &what)
        };
        let position = event.id.as_deref().and_then(|id| {
            let (stream, no) = id.split_once('-')?;
            Some((stream.parse::<u64>().ok()?, no.parse::<u64>().ok()?))
        });
        let Some((stream, no)) = position else {
            return Err(wrong(self, "expected an id STREAM-NUMBER"));
        };
        let before = self.last_events.insert(stream, no).unwrap_or_default();
        if no <= before {
            return Err(wrong(
                self,
                &format!("expected an id above {stream}-{before}"),
            ));
        }
        let earlier = expected.last_event.as_deref().unwrap_or_default();
        if !earlier.is_empty() && !earlier.starts_with(&format!("{stream}-")) {
            return Err(wrong(
                self,
                &format!("the stream was that of {earlier} before"),
            ));
        }
        if event.data.is_empty() {
            expected.last_event.clone_from(&event.id);
            return Ok(());
        }
        let Ok(message) = serde_json::from_str::<Value>(&event.data) else {
            return Err(wrong(self, "expected JSON"));
        };
        if expected.answered {
            return Err(wrong(self, "nothing may follow the answer"));
        }
        expected.last_event.clone_from(&event.id);
        match message["method"].as_str() {
            None => self.answer(expected, &message),
            Some("notifications/progress") => self.progress(expected, &message),
            Some("notifications/message") => self.flood_message(expected, stream, &message),
            Some("roots/list") => {
                expected.questions.push(message);
                Ok(())
            }
            Some(_) => Err(wrong(self, "nobody sends that")),
        }
    }

    pub(super) fn progress(&mut self, expected: &mut Expected, message: &Value) -> Done<()> {
        let params = &message["params"];
        let text = params["message"].as_str().unwrap_or_default();
        let testimony: Value = serde_json::from_str(text).unwrap_or_default();
        self.check(expected, &expected.mark, &testimony)?;
        expected.seen += 1;
        let is_own = expected.id.is_some_and(|id| params["progressToken"] == id);
        if is_own && params["progress"] == expected.seen {
            return Ok(());
        }
        let (mark, seen) = (&expected.mark, expected.seen);
        let what = format!("call {mark}: expected progress {seen}, got {message}");
        Err(self
            .client
            .violation(Kind::Stream, Some(&self.standing), &what))
    }

    /// One message of a flood: from this session's process, once, and in order.
    pub(super) fn flood_message(
        &mut self,
        expected: &Expected,
        stream: u64,
        message: &Value,
    ) -> Done<()> {
        let testimony = &message["params"]["data"];
        let mark = testimony["mark"].as_str().unwrap_or_default();
        self.check(expected, mark, testimony)?;
        let nonce = self.nonce.clone().unwrap_or_default();
        let no = testimony["no"].as_u64().unwrap_or_default();
        let before = self.last_floods.insert(stream, (nonce.clone(), no));
        let in_order = before.is_none_or(|(of, before)| of != nonce || before < no);
        if self.floods.insert((nonce, no)) && in_order {
            return Ok(());
        }
        let what = format!("message {no} of a flood came twice or too late, on stream {stream}");
        Err(self
            .client
            .violation(Kind::Stream, Some(&self.standing), &what))
    }

    /// Different messages of floods that have come so far.
    pub(crate) fn flooded(&self) -> usize {
        self.floods.len()
    }

    /// The answer to a call.
    pub(crate) fn answer(&mut self, expected: &mut Expected, answer: &Value) -> Done<()> {
        let (client, what) = (self.client, expected.what);
        if expected.id.is_none_or(|id| answer["id"] != id) {
            let (id, got) = (expected.id, start_of(&answer.to_string()));
            let what = format!("{what} {}: expected id {id:?}, got {got}", expected.mark);
            return Err(client.failed(Kind::Wrong, Some(&self.standing), &what));
        }
        if answer["error"].is_object() {
            return Err(client.error_answer(&self.standing, expected.began, answer, what));
        }
        let text = answer["result"]["content"][0]["text"].as_str();
        let testimony: Value = serde_json::from_str(text.unwrap_or_default()).unwrap_or_default();
        self.check(expected, &expected.mark, &testimony)?;
        if expected.seen != expected.steps {
            let (seen, steps) = (expected.seen, expected.steps);
            let what = format!("{what}: expected {steps} steps of progress first, got {seen}");
            return Err(client.failed(Kind::Stream, Some(&self.standing), &what));
        }
        expected.answered = true;
        client.world.ledger.answered();
        Ok(())
    }

    /// Whether the child speaks for this call, principal and session.
    pub(super) fn check(&mut self, expected: &Expected, mark: &str, testimony: &Value) -> Done<()> {
        let (client, world) = (self.client, self.client.world);
        let text = |key: &str| testimony[key].as_str().unwrap_or_default();
        let nonce = text("nonce").to_owned();
        let wanted = [mark, client.name(), self.server];
        let mut wrong = None;
        if [text("mark"), text("user"), text("server")] != wanted || nonce.is_empty() {
            wrong = Some(format!("expected {wanted:?}"));
        } else if self.nonce.as_ref() != Some(&nonce) {
            wrong = world
                .spoke(&nonce, &self.standing.id, client.principal, self.server)
                .err();
            let may_be_new = expected.may_be_new || self.may_be_new();
            let before = self.nonce.replace(nonce);
            match before {
                None => {}
                Some(before) if !may_be_new => wrong = Some(format!("expected process {before}")),
                Some(_) => {
                    world.ledger.count("sessions revived");
                    self.standing.generation = expected.generation;
                    self.standing.doomed = false;
                }
            }
        }
        match wrong {
            None => Ok(()),
            Some(why) => {
                let got = start_of(&testimony.to_string());
                let what = format!("{why}, got {got}");
                Err(client.violation(Kind::Wrong, Some(&self.standing), &what))
            }
        }
    }
}
