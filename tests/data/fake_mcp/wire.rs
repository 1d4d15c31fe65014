//! The one writer of stdout: a whole line at a time, by string assembly, so that what is given is
//! what is sent. Knows the shape of a JSON-RPC message, nothing of MCP.

use std::io::{self, Write};

use crate::message::quote;
use crate::process;

/// Writes messages to stdout; the lock of [`io::Stdout`] keeps lines whole.
pub(crate) struct Wire {
    garbage: bool,
}

impl Wire {
    /// With `garbage`, every answer follows some lines that are none.
    pub(crate) fn new(garbage: bool) -> Self {
        Self { garbage }
    }

    /// Writes `line` and a newline. A client that has closed the pipe ends the process.
    pub(crate) fn line(&self, line: &str) {
        let mut bytes = Vec::with_capacity(line.len() + 1);
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
        let mut out = io::stdout().lock();
        if out.write_all(&bytes).and_then(|()| out.flush()).is_err() {
            process::quit(0);
        }
    }

    /// Lines that no client can make sense of: text, JSON that is not JSON-RPC, and an empty line.
    pub(crate) fn garbage(&self) {
        self.line("this is not JSON");
        self.line(r#"{"hello":"world"}"#);
        self.line("");
    }

    /// Answers `id` with `result`, which is JSON text.
    pub(crate) fn result(&self, id: &str, result: &str) {
        self.answer(&format!(
            r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#
        ));
    }

    /// Answers `id` with an error; `data` is JSON text.
    pub(crate) fn error(&self, id: &str, code: i64, message: &str, data: Option<&str>) {
        let message = quote(message);
        let data = data.map(|data| format!(r#","data":{data}"#));
        self.answer(&format!(
            r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{message}{}}}}}"#,
            data.unwrap_or_default()
        ));
    }

    /// Sends a notification; `params` is JSON text.
    pub(crate) fn notification(&self, method: &str, params: Option<&str>) {
        let method = quote(method);
        let params = params.map(|params| format!(r#","params":{params}"#));
        self.line(&format!(
            r#"{{"jsonrpc":"2.0","method":{method}{}}}"#,
            params.unwrap_or_default()
        ));
    }

    /// Sends a request to the client; `id` and `params` are JSON text.
    pub(crate) fn request(&self, id: &str, method: &str, params: &str) {
        let method = quote(method);
        self.line(&format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":{method},"params":{params}}}"#
        ));
    }

    fn answer(&self, line: &str) {
        if self.garbage {
            self.garbage();
        }
        self.line(line);
    }
}
