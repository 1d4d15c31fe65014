//! What a user sees when the broker starts: where it is, and what to do next.

use std::io::{self, Write};

use crate::config::{AuthConfig, AuthKind, Config};

/// Whose token is made on the first run.
pub(super) const FIRST_USER: &str = "me";
/// Stands for a token that cannot be shown again.
const TOKEN_PLACEHOLDER: &str = "$TOKEN";

/// Prints the addresses (always the first lines, for scripts) and the next steps.
pub(super) fn print(
    config: &Config,
    urls: &[String],
    admin_urls: &[String],
    first_token: Option<&str>,
) {
    let mut out = io::stdout().lock();
    // A closed stdout is no reason not to serve.
    let _ = write_addresses(&mut out, urls, admin_urls)
        .and_then(|()| write_steps(&mut out, config, urls, first_token));
}

fn write_addresses(out: &mut impl Write, urls: &[String], admin_urls: &[String]) -> io::Result<()> {
    for url in urls {
        writeln!(out, "listening on {url}")?;
    }
    for url in admin_urls {
        writeln!(out, "metrics on {url}")?;
    }
    Ok(())
}

fn write_steps(
    out: &mut impl Write,
    config: &Config,
    urls: &[String],
    first_token: Option<&str>,
) -> io::Result<()> {
    let base = match &config.public_url {
        Some(public) => public.to_string(),
        None => urls.first().cloned().unwrap_or_default(),
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
    if let Some(auth) = &config.auth_server {
        return write_sign_in(out, auth, (&base, &first.name, &endpoint));
    }
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

/// Where users sign in, there is no token to show.
fn write_sign_in(
    out: &mut impl Write,
    auth: &AuthConfig,
    (base, name, endpoint): (&str, &str, &str),
) -> io::Result<()> {
    match &auth.kind {
        AuthKind::Upstream(upstream) => {
            writeln!(out, "users sign in at {}", upstream.url)?;
            writeln!(
                out,
                "redirect URI of the application there: {base}/oauth/callback"
            )?;
        }
        AuthKind::Jwt(jwt) => writeln!(out, "tokens come from {}", jwt.issuer)?,
    }
    writeln!(
        out,
        "\nAdd it to a client by its URL alone, for instance to Claude Code:"
    )?;
    writeln!(out, "  claude mcp add --transport http {name} {endpoint}")?;
    out.flush()
}

/// What a client says first (2025-11-25, lifecycle, "Initialization").
const INITIALIZE: &str = concat!(
    r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","#,
    r#""capabilities":{},"clientInfo":{"name":"curl","version":"1"}}}"#
);
