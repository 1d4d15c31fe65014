//! The handshake of a child that takes another's place: the writer thread says the first line, the
//! reader thread hears the answer and lets it say the rest; only then come the client's requests.

use crossbeam_channel::{Receiver, Sender, bounded};

use super::handshake::Handshake;
use crate::jsonrpc::Id;

/// What the writer thread says before anything else.
pub(super) enum Script {
    First {
        line: Vec<u8>,
        further: Receiver<Prompt>,
    },
    /// Comes when the child has answered; is closed if that went wrong.
    Further(Receiver<Prompt>),
    /// Being asked for more means that all of it was written.
    Said,
}

/// What the reader thread lets it say.
pub(super) enum Prompt {
    /// The first line in other words.
    Again(Vec<u8>),
    /// All the rest.
    Rest(Vec<u8>),
}

/// What the reader thread waits for. Dropping it ends the writer's waiting.
pub(super) struct Prompter {
    /// The id of the first request.
    id: Id,
    further: Sender<Prompt>,
    lines: Vec<u8>,
}

/// `label` makes the ids tell who asks, in case a child logs them.
pub(super) fn prepare(handshake: Handshake, label: &str) -> (Script, Prompter) {
    let prefix = format!("mcp-broker/{label}/");
    let id = format!("{prefix}initialize");
    let (sender, receiver) = bounded(1);
    let script = Script::First {
        line: handshake.first_line(&format!("\"{id}\"")),
        further: receiver,
    };
    let prompter = Prompter {
        id: Id::String(id.into()),
        further: sender,
        lines: handshake.further_lines(&prefix),
    };
    (script, prompter)
}

impl Prompter {
    pub(super) fn awaits(&self, id: &Id) -> bool {
        self.id == *id
    }

    /// The child has refused the first line, and is told another.
    pub(super) fn say_again(&self, line: String) {
        // There is room: the writer thread has said all before it.
        let _ = self.further.try_send(Prompt::Again(line.into_bytes()));
    }

    /// The child has answered as it should.
    pub(super) fn go_on(self) {
        // The writer thread is gone only when the child is.
        let _ = self.further.try_send(Prompt::Rest(self.lines));
    }
}
