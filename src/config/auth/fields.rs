//! The values in `broker.auth`, each checked so far as it can be without asking anybody.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::auth::JwtAlgorithm;
use crate::config::address::PublicUrl;
use crate::config::json::{Entry, Fault, Node};
use crate::config::nearest::nearest;
use crate::config::template::Template;
use crate::private_file;

/// The longest value that is taken, in bytes.
const MAX_TEXT_BYTES: usize = 1024;

/// The URL of an issuer, as it was typed: it may end in a slash, and then that counts.
pub(super) fn issuer(entry: &Entry<'_>) -> Result<String, Fault> {
    let text = text(&entry.key, &entry.value)?;
    check_url(&text, &text).map_err(|why| entry.value.fault(format!("{}: {why}", entry.key)))?;
    Ok(text)
}

/// A URL to fetch: it may have a query.
pub(super) fn url(entry: &Entry<'_>) -> Result<String, Fault> {
    let text = text(&entry.key, &entry.value)?;
    let (page, query) = text.split_once('?').unwrap_or((&text, ""));
    let fault = |why: String| entry.value.fault(format!("{}: {why}", entry.key));
    check_url(page, &text).map_err(fault)?;
    match query.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        true => Ok(text),
        false => Err(fault(format!("{text:?} is not a URL"))),
    }
}

fn check_url(page: &str, whole: &str) -> Result<(), String> {
    let url = PublicUrl::parse(page)?;
    match url.scheme == "https" || is_loopback(&url) {
        true => Ok(()),
        false => Err(format!(
            "{whole:?} is neither https nor on this machine: secrets would be sent in the clear"
        )),
    }
}

/// Whether nothing that is sent there leaves the machine.
pub(super) fn is_loopback(url: &PublicUrl) -> bool {
    let address = url.host.trim_start_matches('[').trim_end_matches(']');
    url.host == "localhost"
        || address
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// What a provider is called if nobody said: its host.
pub(super) fn name_of(url: &str) -> String {
    PublicUrl::parse(url).map_or_else(|_| url.to_owned(), |url| url.host)
}

/// A short text that says something.
pub(super) fn text(key: &str, value: &Node<'_>) -> Result<String, Fault> {
    let text = value.string()?;
    let is_short = (1..=MAX_TEXT_BYTES).contains(&text.len());
    match is_short && text.trim() == text && !text.chars().any(char::is_control) {
        true => Ok(text),
        false => Err(value.fault(format!(
            "{key}: {text:?} is empty, longer than {MAX_TEXT_BYTES} bytes, or has control \
             characters or spaces around it"
        ))),
    }
}

/// A list of them.
pub(super) fn texts(entry: &Entry<'_>) -> Result<Vec<String>, Fault> {
    let items = entry.value.items()?;
    items.iter().map(|item| text(&entry.key, item)).collect()
}

/// RFC 6749, section 3.3.
fn is_scope(scope: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_graphic() && !b"\"\\".contains(&byte);
    !scope.is_empty() && scope.len() <= MAX_TEXT_BYTES && scope.bytes().all(valid)
}

/// Scopes with spaces between them; single ones, once this has returned.
pub(super) fn scope_text(value: &Node<'_>) -> Result<String, Fault> {
    let text = value.string()?;
    let scopes: Vec<&str> = text.split(' ').filter(|scope| !scope.is_empty()).collect();
    match !scopes.is_empty() && scopes.iter().all(|scope| is_scope(scope)) {
        true => Ok(scopes.join(" ")),
        false => Err(value.fault(format!(
            "scopes: {text:?} is not a list of scopes with spaces between them"
        ))),
    }
}

pub(super) fn scope_list(list: &Node<'_>) -> Result<Vec<String>, Fault> {
    let mut scopes = Vec::new();
    for item in list.items()? {
        let scope = item.string()?;
        if !is_scope(&scope) {
            return Err(item.fault(format!("scopes: {scope:?} is not a scope")));
        }
        scopes.push(scope);
    }
    Ok(scopes)
}

/// A secret that stands there, or in the broker's environment. The fault never has it.
pub(super) fn secret(
    value: &Node<'_>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<String, Fault> {
    let fault = |why: String| value.fault(format!("client_secret: {why}"));
    let template = Template::parse(&value.string()?).map_err(fault)?;
    check_secret(template.fill_for_nobody(env).map_err(fault)?).map_err(fault)
}

/// A secret in a file of its own; a line end at its end does not count.
pub(super) fn secret_file(value: &Node<'_>) -> Result<String, Fault> {
    let path = absolute("client_secret_file", value)?;
    let fault = |why: String| value.fault(format!("client_secret_file: {why}"));
    let text = private_file::read_secret(&path).map_err(|error| fault(error.to_string()))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    check_secret(line.to_owned()).map_err(|why| fault(format!("{}: {why}", path.display())))
}

fn check_secret(secret: String) -> Result<String, String> {
    match secret.is_empty() || secret.chars().any(char::is_control) {
        true => Err("the secret is empty or has control characters".to_owned()),
        false => Ok(secret),
    }
}

pub(super) fn ca_file(value: &Node<'_>) -> Result<PathBuf, Fault> {
    absolute("ca_file", value)
}

fn absolute(key: &str, value: &Node<'_>) -> Result<PathBuf, Fault> {
    let path = value.string()?;
    match Path::new(&path).is_absolute() && !path.contains('\0') {
        true => Ok(PathBuf::from(path)),
        false => Err(value.fault(format!("{key:?} must be an absolute path, not {path:?}"))),
    }
}

/// Why a name in `algorithms` is refused.
pub(super) fn unknown_algorithm(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    if lower == "none" {
        return format!("{name:?} would take tokens that nobody has signed");
    }
    if lower.starts_with("hs") {
        return format!("{name:?} needs a shared secret: only public keys are taken");
    }
    let known = JwtAlgorithm::ALL.map(JwtAlgorithm::name);
    let mut why = format!("{name:?} is not one of {}", known.join(", "));
    if let Some(meant) = nearest(name, known) {
        why.push_str(&format!(", did you mean {meant:?}?"));
    }
    why
}
