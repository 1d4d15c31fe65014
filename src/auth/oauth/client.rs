//! Who may ask: clients known by the document at their id (OAuth Client ID Metadata Document),
//! clients that register themselves (RFC 7591), and our own copies of well-known documents.

use std::fmt;
use std::time::SystemTime;

use fluent_uri::Uri;
use serde_json::{Map, Value, json};

use super::form::MAX_LONG;
use super::metadata::SCOPE;
use super::{Client, ClientAuth, ClientKind, hash, redirect};
use crate::auth::tokens::seconds;

const MAX_DOCUMENT_BYTES: usize = 16 << 10;
const MAX_REDIRECT_URIS: usize = 32;
const MAX_NAME_CHARS: usize = 80;

/// Why a client cannot be taken as it describes itself (RFC 7591, section 3.2.2).
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ClientError {
    RedirectUri(String),
    Metadata(String),
}

impl ClientError {
    /// The answer to a registration, `400`.
    pub(crate) fn to_json(&self) -> String {
        let (code, why) = match self {
            Self::RedirectUri(why) => ("invalid_redirect_uri", why),
            Self::Metadata(why) => ("invalid_client_metadata", why),
        };
        json!({ "error": code, "error_description": why }).to_string()
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::RedirectUri(why) | Self::Metadata(why)) = self;
        f.write_str(why)
    }
}

impl std::error::Error for ClientError {}

/// Our copies of documents: the id, the name, the redirect addresses. They stand in where a
/// document cannot be had: many a broker has no way out, and some hosts refuse cloud addresses.
/// Known by the exact id, never by its host: some hosts have both a hosted and a loopback client.
const PINNED: [(&str, &str, &[&str]); 7] = [
    (
        "https://claude.ai/oauth/mcp-oauth-client-metadata",
        "Claude",
        &[
            "https://claude.ai/api/mcp/auth_callback",
            "https://claude.com/api/mcp/auth_callback",
        ],
    ),
    (
        "https://claude.ai/oauth/claude-code-client-metadata",
        "Claude Code",
        &["http://localhost/callback", "http://127.0.0.1/callback"],
    ),
    (
        "https://chatgpt.com/oauth/client.json",
        "ChatGPT",
        &["https://chatgpt.com/connector_platform_oauth_redirect"],
    ),
    (
        "https://chatgpt.com/oauth/codex/client.json",
        "Codex",
        &["http://127.0.0.1/callback", "http://localhost/callback"],
    ),
    (
        "https://vscode.dev/oauth/client-metadata.json",
        "Visual Studio Code",
        &["http://127.0.0.1:33418/", "https://vscode.dev/redirect"],
    ),
    (
        "https://opencode.ai/oauth/opencode/client.json",
        "OpenCode",
        &[
            "http://127.0.0.1/callback",
            "http://localhost/callback",
            "http://127.0.0.1:19876/mcp/oauth/callback",
        ],
    ),
    (
        "https://zed.dev/oauth/client-metadata.json",
        "Zed",
        &["http://127.0.0.1/callback"],
    ),
];

/// Our own copy of the document at a well-known id.
pub(crate) fn pinned(client_id: &str) -> Option<Client> {
    let (id, name, redirect_uris) = PINNED.iter().find(|(id, ..)| *id == client_id)?;
    Some(Client {
        id: (*id).to_owned(),
        name: (*name).to_owned(),
        redirect_uris: redirect_uris.iter().map(|it| (*it).to_owned()).collect(),
        auth: ClientAuth::None,
        kind: ClientKind::Pinned,
    })
}

/// Whether an id is the address of a document: `https`, with a path, and without what could make
/// two texts of one address. Says nothing about whether it is safe to go there.
pub(crate) fn is_document_id(client_id: &str) -> bool {
    client_id.starts_with("https://")
        && client_id.len() <= MAX_LONG
        && redirect::is_allowed(client_id).is_ok()
        && Uri::parse(client_id).is_ok_and(|uri| uri.path().as_str().len() > 1)
}

/// Reads the document that stands at `client_id`. It is wrong as a whole if anything in it is.
pub(crate) fn read_document(client_id: &str, document: &str) -> Result<Client, ClientError> {
    let document = parse(document)?;
    if document.get("client_id").and_then(Value::as_str) != Some(client_id) {
        return Err(metadata(
            "its client_id is not the address that it stands at",
        ));
    }
    for secret in ["client_secret", "client_secret_expires_at"] {
        if document.contains_key(secret) {
            return Err(metadata("it has a secret in it, for all to read"));
        }
    }
    let name = name(&document)?.ok_or_else(|| metadata("it has no client_name"))?;
    let redirect_uris = redirect_uris(&document)?;
    if let Some(uri) = redirect_uris
        .iter()
        .find(|uri| !redirect::is_of_the_web(uri))
    {
        let why = format!("{uri:?} has a scheme that only registered clients may use");
        return Err(ClientError::RedirectUri(why));
    }
    let methods = document_methods(&document)?;
    if methods
        .iter()
        .any(|method| method.starts_with("client_secret"))
    {
        return Err(metadata(
            "it asks to authenticate with a secret, and has none",
        ));
    }
    if !methods.is_empty() && !methods.contains(&"none") {
        return Err(metadata("\"none\" is not among its authentication methods"));
    }
    check_flow(&document)?;
    Ok(Client {
        id: client_id.to_owned(),
        name,
        redirect_uris,
        auth: ClientAuth::None,
        kind: ClientKind::Document,
    })
}

/// A registration that may be taken.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) name: String,
    pub(crate) redirect_uris: Vec<String>,
    method: &'static str,
    application_type: Option<&'static str>,
}

impl Registration {
    /// Whether a secret is to be made for it.
    pub(crate) fn wants_secret(&self) -> bool {
        self.method != "none"
    }

    /// What is to be stored, under an id that the caller made up.
    pub(crate) fn to_client(&self, id: &str, secret: Option<&str>) -> Client {
        Client {
            id: id.to_owned(),
            name: self.name.clone(),
            redirect_uris: self.redirect_uris.clone(),
            auth: secret.map_or(ClientAuth::None, |secret| ClientAuth::Secret(hash(secret))),
            kind: ClientKind::Registered,
        }
    }

    /// The answer, `201` (RFC 7591, section 3.2.1): the id, the secret if there is one, and what
    /// was registered, which need not be what was asked for.
    pub(crate) fn response(&self, id: &str, secret: Option<&str>, now: SystemTime) -> String {
        let mut answer = json!({
            "client_id": id,
            "client_id_issued_at": seconds(now),
            "client_name": self.name,
            "redirect_uris": self.redirect_uris,
            "token_endpoint_auth_method": self.method,
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "scope": SCOPE,
        });
        if let Some(application_type) = self.application_type {
            answer["application_type"] = json!(application_type);
        }
        if let Some(secret) = secret {
            answer["client_secret"] = json!(secret);
            answer["client_secret_expires_at"] = json!(0); // never
        }
        answer.to_string()
    }
}

/// Reads the body of a registration. Unknown metadata do not matter (RFC 7591, section 2).
pub(crate) fn read_registration(body: &str) -> Result<Registration, ClientError> {
    let body = parse(body)?;
    let redirect_uris = redirect_uris(&body)?;
    check_flow(&body)?;
    let method = match text(&body, "token_endpoint_auth_method")? {
        // The RFC's default is a secret. We may choose, and for a stranger's client a secret proves
        // nothing that PKCE does not.
        None | Some("none") => "none",
        Some("client_secret_post") => "client_secret_post",
        Some("client_secret_basic") => "client_secret_basic",
        Some(_) => return Err(metadata("token_endpoint_auth_method is not supported")),
    };
    // Not compared with the addresses: clients get it wrong, and nothing here depends on it.
    let application_type = match text(&body, "application_type")? {
        None => None,
        Some("native") => Some("native"),
        Some("web") => Some("web"),
        Some(_) => return Err(metadata("application_type is neither native nor web")),
    };
    Ok(Registration {
        name: name(&body)?.unwrap_or_else(|| "a client without a name".to_owned()),
        redirect_uris,
        method,
        application_type,
    })
}

fn metadata(why: &str) -> ClientError {
    ClientError::Metadata(why.to_owned())
}

fn parse(document: &str) -> Result<Map<String, Value>, ClientError> {
    if document.len() > MAX_DOCUMENT_BYTES {
        return Err(metadata("it is longer than 16 KiB"));
    }
    match serde_json::from_str(document) {
        Ok(Value::Object(document)) => Ok(document),
        _ => Err(metadata("it is not a JSON object")),
    }
}

/// `null` counts as absent.
fn text<'a>(of: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, ClientError> {
    match of.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(metadata(&format!("{key} is not a string"))),
    }
}

fn list<'a>(of: &'a Map<String, Value>, key: &str) -> Result<Option<Vec<&'a str>>, ClientError> {
    let wrong = || metadata(&format!("{key} is not a list of strings"));
    match of.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(items)) => {
            let texts = items.iter().map(|item| item.as_str().ok_or_else(wrong));
            texts.collect::<Result<_, _>>().map(Some)
        }
        Some(_) => Err(wrong()),
    }
}

/// Each method that a document names: alone, or in a list of all that its client can do.
fn document_methods(document: &Map<String, Value>) -> Result<Vec<&str>, ClientError> {
    let mut methods = Vec::new();
    for key in [
        "token_endpoint_auth_method",
        "token_endpoint_auth_methods",
        "token_endpoint_auth_methods_supported",
    ] {
        match document.get(key) {
            Some(Value::String(method)) => methods.push(method.as_str()),
            _ => methods.extend(list(document, key)?.unwrap_or_default()),
        }
    }
    Ok(methods)
}

fn redirect_uris(of: &Map<String, Value>) -> Result<Vec<String>, ClientError> {
    let wrong = |why: String| Err(ClientError::RedirectUri(why));
    let uris =
        list(of, "redirect_uris").map_err(|why| ClientError::RedirectUri(why.to_string()))?;
    let uris = uris.unwrap_or_default();
    if !(1..=MAX_REDIRECT_URIS).contains(&uris.len()) {
        return wrong(format!(
            "redirect_uris has not 1 to {MAX_REDIRECT_URIS} entries"
        ));
    }
    for (no, uri) in uris.iter().enumerate() {
        if let Err(why) = redirect::is_allowed(uri) {
            return wrong(format!("entry {} of redirect_uris {why}", no + 1));
        }
    }
    Ok(uris.into_iter().map(str::to_owned).collect())
}

/// The code flow must be among what a client does; what else it does is its own affair.
fn check_flow(of: &Map<String, Value>) -> Result<(), ClientError> {
    for (key, needed) in [
        ("response_types", "code"),
        ("grant_types", "authorization_code"),
    ] {
        if list(of, key)?.is_some_and(|types| !types.contains(&needed)) {
            return Err(metadata(&format!("{key} is without {needed}")));
        }
    }
    Ok(())
}

/// The client's name, fit for a page: nothing in it that moves or hides other text, and no longer
/// than a line.
fn name(of: &Map<String, Value>) -> Result<Option<String>, ClientError> {
    let Some(name) = text(of, "client_name")? else {
        return Ok(None);
    };
    let visible: String = name
        .chars()
        .map(|c| if is_space(c) { ' ' } else { c })
        .collect();
    let visible: String = visible.chars().filter(|c| !is_invisible(*c)).collect();
    let words: Vec<&str> = visible.split_whitespace().collect();
    let line: String = words.join(" ").chars().take(MAX_NAME_CHARS).collect();
    Ok(Some(line).filter(|line| !line.is_empty()))
}

fn is_space(c: char) -> bool {
    c.is_whitespace() || c.is_control()
}

/// Characters of no width, and those that turn the direction of writing.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}
