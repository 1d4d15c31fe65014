//! The front channel: what a browser brings to the authorization endpoint, and the addresses it is
//! sent away to (OAuth 2.1, section 4.1; RFC 7636; RFC 8707; RFC 9207).
//!
//! Until client and redirect address are known to belong together, an error is a page for a person
//! to read; from then on it goes to the client.

use std::sync::Arc;

use form_urlencoded::Serializer;
use serde_json::{Value, json};

use super::form::{Fault, Form, MAX_LONG, MAX_SHORT};
use super::metadata::SCOPE;
use super::{Client, Resource, Resources, redirect};

const PARAMETERS: &[&str] = &[
    "client_id",
    "redirect_uri",
    "state",
    "response_type",
    "response_mode",
    "request",
    "request_uri",
    "code_challenge",
    "code_challenge_method",
    "prompt",
    "scope",
    "resource",
];

/// An error that only the person at the browser can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageError {
    /// What is wrong: one sentence.
    pub(crate) what: String,
    /// What they can do about it: one sentence.
    pub(crate) advice: &'static str,
}

impl PageError {
    pub(crate) fn new(what: impl Into<String>, advice: &'static str) -> Self {
        let what = what.into();
        Self { what, advice }
    }

    /// Of an id that nobody is known by.
    pub(crate) fn unknown_client() -> Self {
        Self::new("The application is not known here.", TRY_AGAIN)
    }
}

const TRY_AGAIN: &str =
    "Remove this server in your application, add it again, and sign in from there.";
const TELL_MAKER: &str = "This is for the makers of your application to put right: tell them.";

/// Why a request is not granted.
#[cfg_attr(test, derive(Debug))]
pub(crate) enum Refusal {
    Page(PageError),
    /// The whole `Location` that tells the client.
    Redirect(String),
}

impl Refusal {
    /// The same for the person at the browser.
    pub(crate) fn into_page(self) -> PageError {
        let location = match self {
            Self::Page(page) => return page,
            Self::Redirect(location) => location,
        };
        let query = location.split_once('?').map_or("", |(_, query)| query);
        let told = form_urlencoded::parse(query.as_bytes());
        // What comes first may be the address's own.
        let why = told.filter(|(name, _)| name == "error_description").last();
        let why = why.map_or_else(Default::default, |(_, why)| why);
        let what = format!("The application's request cannot be granted: {why}.");
        PageError::new(what, TELL_MAKER)
    }
}

/// What the browser brought, before the client is known.
pub(crate) struct Asked {
    pub(crate) client_id: String,
    redirect_uri: Option<String>,
    form: Form,
}

/// A request that may be put to the user.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub(crate) struct Request {
    pub(crate) client_id: String,
    pub(crate) client_name: String,
    /// Where the answer goes, as it was asked for.
    pub(crate) redirect_uri: String,
    pub(crate) state: Option<String>,
    /// Of method S256.
    pub(crate) challenge: String,
    pub(crate) resource: Resource,
    /// What is granted, which need not be what was asked for.
    pub(crate) scope: String,
    /// Whether all of the client's addresses are on the user's computer: then anything there can
    /// claim to be it.
    pub(crate) is_loopback_only: bool,
}

/// Reads the query. Fails only where the client and its address remain unknown.
pub(crate) fn read(query: &str) -> Result<Asked, PageError> {
    let wrong = |name: &str, fault: Fault| {
        let what = format!(
            "In the application's request, {name} {}.",
            fault.predicate()
        );
        PageError::new(what, TELL_MAKER)
    };
    let form = Form::read(query, PARAMETERS)
        .ok_or_else(|| PageError::new("The application's request is too long.", TELL_MAKER))?;
    let one = |name: &'static str| {
        let value = form
            .one(name, MAX_LONG)
            .map_err(|fault| wrong(name, fault))?;
        Ok(value.map(str::to_owned))
    };
    let client_id = one("client_id")?.ok_or_else(|| {
        PageError::new(
            "The request does not say which application it is from.",
            TELL_MAKER,
        )
    })?;
    let redirect_uri = one("redirect_uri")?;
    Ok(Asked {
        client_id,
        redirect_uri,
        form,
    })
}

impl Asked {
    /// Holds the request against the client that it names and against what there is to be had.
    pub(crate) fn check(&self, client: &Client, resources: &Resources) -> Result<Request, Refusal> {
        if client.id != self.client_id {
            return Err(Refusal::Page(PageError::unknown_client()));
        }
        let redirect_uri = self.redirect_uri(client).map_err(Refusal::Page)?;
        // A state that cannot be repeated is left out of the answer that says so.
        let state = self.form.one("state", MAX_LONG);
        let known_state = state.ok().flatten();
        let refuse = |Deny(error, description): Deny| {
            let issuer = resources.issuer();
            let to = error_location(&redirect_uri, known_state, issuer, error, &description);
            Refusal::Redirect(to)
        };
        state.map_err(|fault| refuse(faulty("state", fault)))?;
        self.check_flow().map_err(refuse)?;
        let challenge = self.challenge().map_err(refuse)?;
        let resource = self.resource(resources).map_err(refuse)?;
        Ok(Request {
            client_id: client.id.clone(),
            client_name: client.name.clone(),
            state: known_state.map(str::to_owned),
            challenge,
            resource,
            scope: SCOPE.to_owned(),
            is_loopback_only: client
                .redirect_uris
                .iter()
                .all(|it| redirect::is_loopback(it)),
            redirect_uri,
        })
    }

    /// Where the answer goes. A client with one address need not name it, but one on this computer
    /// must: its program listens on a port that only the request can tell.
    fn redirect_uri(&self, client: &Client) -> Result<String, PageError> {
        let Some(asked) = &self.redirect_uri else {
            return match &client.redirect_uris[..] {
                [only] if redirect::is_allowed(only).is_ok() && !redirect::is_loopback(only) => {
                    Ok(only.clone())
                }
                _ => Err(PageError::new(
                    "The application does not say where you should be sent back to.",
                    TELL_MAKER,
                )),
            };
        };
        if let Err(why) = redirect::is_allowed(asked) {
            let what = format!("The address that you should be sent back to {why}.");
            return Err(PageError::new(what, TELL_MAKER));
        }
        match client
            .redirect_uris
            .iter()
            .any(|it| redirect::matches(it, asked))
        {
            true => Ok(asked.clone()),
            false => Err(PageError::new(
                "The address that you should be sent back to is not one of the application's.",
                "If you did not start this yourself just now, close this page. Otherwise remove \
                 this server in your application, add it again, and sign in from there.",
            )),
        }
    }

    fn one(&self, name: &'static str) -> Result<Option<&str>, Deny> {
        self.form
            .one(name, MAX_SHORT)
            .map_err(|fault| faulty(name, fault))
    }

    fn check_flow(&self) -> Result<(), Deny> {
        let deny = |error, why: &str| Err(Deny(error, why.to_owned()));
        let is_there = |name| self.form.all(name).any(|value| !value.is_empty());
        if is_there("request") {
            return deny("request_not_supported", "request objects are not supported");
        }
        if is_there("request_uri") {
            return deny("request_uri_not_supported", "request_uri is not supported");
        }
        match self.one("response_type")? {
            Some("code") => {}
            None => return deny("invalid_request", "response_type is missing"),
            Some(_) => return deny("unsupported_response_type", "response_type must be code"),
        }
        if self
            .one("response_mode")?
            .is_some_and(|mode| mode != "query")
        {
            return deny("invalid_request", "response_mode must be query");
        }
        // Any scope is fine, since all that is ever granted is ours (`offline_access`, `openid` and
        // the like are asked for out of habit).
        self.one("scope")?;
        let mut prompts = self.one("prompt")?.unwrap_or_default().split(' ');
        match prompts.any(|prompt| prompt == "none") {
            // The user is always asked.
            true => deny(
                "interaction_required",
                "this cannot be done without the user",
            ),
            false => Ok(()),
        }
    }

    /// PKCE, which is not optional (RFC 7636, section 4.2).
    fn challenge(&self) -> Result<String, Deny> {
        let deny = |why: &str| Err(Deny("invalid_request", why.to_owned()));
        let Some(challenge) = self.one("code_challenge")? else {
            return deny("code_challenge is missing: PKCE is required");
        };
        if self.one("code_challenge_method")? != Some("S256") {
            return deny("code_challenge_method must be S256");
        }
        match super::token::is_pkce_text(challenge) {
            true => Ok(challenge.to_owned()),
            false => deny("code_challenge is not 43 to 128 characters of its alphabet"),
        }
    }

    fn resource(&self, resources: &Resources) -> Result<Resource, Deny> {
        let deny = |why: &str| Deny("invalid_target", why.to_owned());
        let mut named = self.form.all("resource").filter(|it| !it.is_empty());
        let found = match (named.next(), named.next()) {
            (None, _) => {
                let only = resources.only();
                return only.ok_or_else(|| deny("resource is missing: there are several here"));
            }
            (Some(_), Some(_)) => return Err(deny("more than one resource")),
            (Some(uri), None) => resources.find(uri),
        };
        found.ok_or_else(|| deny("there is no such resource here"))
    }
}

/// An error code and its description.
struct Deny(&'static str, String);

fn faulty(name: &str, fault: Fault) -> Deny {
    Deny("invalid_request", format!("{name} {}", fault.predicate()))
}

impl Request {
    /// A text to keep it in; `from_json` reads it back.
    pub(crate) fn to_json(&self) -> String {
        json!({
            "client_id": self.client_id,
            "client_name": self.client_name,
            "redirect_uri": self.redirect_uri,
            "state": self.state,
            "challenge": self.challenge,
            "resource": self.resource.uri,
            "server": &*self.resource.server,
            "scope": self.scope,
            "loopback_only": self.is_loopback_only,
        })
        .to_string()
    }

    /// `None` for anything that `to_json` does not write.
    pub(crate) fn from_json(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let text = |key: &str| Some(value.get(key)?.as_str()?.to_owned());
        let state = match value.get("state")? {
            Value::Null => None,
            state => Some(state.as_str()?.to_owned()),
        };
        Some(Self {
            client_id: text("client_id")?,
            client_name: text("client_name")?,
            redirect_uri: text("redirect_uri")?,
            state,
            challenge: text("challenge")?,
            resource: Resource {
                uri: text("resource")?,
                server: Arc::from(text("server")?),
            },
            scope: text("scope")?,
            is_loopback_only: value.get("loopback_only")?.as_bool()?,
        })
    }
}

/// The `Location` that brings a client its code.
pub(crate) fn success_location(request: &Request, code: &str, issuer: &str) -> String {
    let state = request.state.as_deref();
    location(&request.redirect_uri, &[("code", code)], state, issuer)
}

/// The `Location` that brings a client an error. `redirect_uri` is one that was checked; the
/// description is ASCII without quotes (RFC 6749, section 4.1.2.1).
pub(crate) fn error_location(
    redirect_uri: &str,
    state: Option<&str>,
    issuer: &str,
    error: &str,
    description: &str,
) -> String {
    let own = [("error", error), ("error_description", description)];
    location(redirect_uri, &own, state, issuer)
}

/// Adds to the query that is there. `iss` always (RFC 9207): it keeps a client from taking our
/// answer for another server's.
fn location(uri: &str, own: &[(&str, &str)], state: Option<&str>, issuer: &str) -> String {
    let mut query = Serializer::new(String::new());
    query.extend_pairs(own);
    query.extend_pairs(state.map(|state| ("state", state)));
    query.append_pair("iss", issuer);
    let joint = match uri.find('?') {
        None => "?",
        Some(_) if uri.ends_with(['?', '&']) => "",
        Some(_) => "&",
    };
    format!("{uri}{joint}{}", query.finish())
}
