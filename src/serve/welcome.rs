//! What a user sees when the broker starts: where it is, and what to do next.

use std::io::{self, Write};

use crate::config::{Config, Listen};
use crate::edge::Listener;

/// Whose token is made on the first run.
pub(super) const FIRST_USER: &str = "me";
/// Stands for a token that cannot be shown again.
const TOKEN_PLACEHOLDER: &str = "$TOKEN";

/// Where clients find the broker.
pub(super) fn url(config: &Config, listener: &Listener) -> String {
    match (&config.listen, listener.tcp_addr()) {
        (_, Some(addr)) => format!("http://{addr}"),
        (Listen::Unix(path), _) => format!("unix:{}", path.display()),
        (Listen::Tcp(addr), None) => format!("http://{addr}"),
    }
}

/// Prints the address (always the first line, for scripts) and the next steps.
pub(super) fn print(config: &Config, url: &str, first_token: Option<&str>) {
    // A closed stdout is no reason not to serve.
    let _ = write(&mut io::stdout().lock(), config, url, first_token);
}

fn write(
    out: &mut impl Write,
    config: &Config,
    url: &str,
    first_token: Option<&str>,
) -> io::Result<()> {
    writeln!(out, "listening on {url}")?;
    let base = match &config.public_url {
        Some(public) => public.to_string(),
        None => url.to_owned(),
    };
    let [first, others @ ..] = config.servers.as_slice() else {
        return Ok(());
    };
    let endpoint = |name: &str| match others.is_empty() {
        true => format!("{base}/mcp"),
        false => format!("{base}/mcp/{name}"),
    };
    writeln!(out)?;
    for server in &config.servers {
        writeln!(out, "server {}: {}", server.name, endpoint(&server.name))?;
    }
    if let Some(token) = first_token {
        writeln!(out, "token of user {FIRST_USER}, shown only now: {token}")?;
        writeln!(out, "(more users: mcp-broker token add NAME)")?;
    }
    let endpoint = endpoint(&first.name);
    let header = config.auth.then(|| {
        format!(
            "Authorization: Bearer {}",
            first_token.unwrap_or(TOKEN_PLACEHOLDER)
        )
    });
    let curl = header
        .as_ref()
        .map(|it| format!(" -H \"{it}\""))
        .unwrap_or_default();
    let client = header
        .as_ref()
        .map(|it| format!(" --header \"{it}\""))
        .unwrap_or_default();
    if config.auth && first_token.is_none() {
        writeln!(
            out,
            "TOKEN below is what `mcp-broker token add NAME` printed."
        )?;
    }
    writeln!(out, "\nTry it:")?;
    writeln!(
        out,
        "  curl -i {endpoint}{curl} -H 'Content-Type: application/json' \
         -H 'Accept: application/json, text/event-stream' -d '{INITIALIZE}'"
    )?;
    writeln!(out, "Add it to a client, for instance Claude Code:")?;
    writeln!(
        out,
        "  claude mcp add --transport http {} {endpoint}{client}",
        first.name
    )?;
    out.flush()
}

/// What a client says first (2025-11-25, lifecycle, "Initialization").
const INITIALIZE: &str = concat!(
    r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","#,
    r#""capabilities":{},"clientInfo":{"name":"curl","version":"1"}}}"#
);
