//! The endpoints of signing in: metadata, the pages of a browser, and what programs post.
//!
//! All but the metadata may wait for a database, a client's document or the provider, so they are
//! served by a few threads of their own, of which none is there while nobody signs in. What an
//! address may ask of them is limited before (`limits`).
//!
//! `browser` serves people, `programs` clients.

mod browser;
mod limits;
mod programs;

use std::io::Read;
use std::sync::{Arc, Weak};
use std::time::{Instant, SystemTime};

use tiny_http::{Method, Request};

use super::reply::{self, Answer, Face, Rendered};
use super::request::Incoming;
use super::workers::{NotTaken, Workers};
use super::{App, mcp, refuse};
use crate::auth::AuthError;
use crate::auth::oauth::metadata;
use crate::auth::oauth::{Resource, Resources};
use crate::auth::sign_in::SignIn;
pub(super) use limits::Limits;

/// Threads that serve these endpoints at a time. A provider that does not answer holds one for
/// seconds.
const THREADS_MAX: usize = 8;
const QUEUE_MAX: usize = 64;
/// The longest body that any of them takes.
const BODY_MAX_BYTES: usize = 64 * 1024;

const RESOURCE_METADATA: &str = "/.well-known/oauth-protected-resource";

/// What clients are told of how to get a token (RFC 9728).
pub(crate) struct Protected {
    pub(crate) resources: Resources,
    /// Who issues tokens; the first one is for clients that look no further.
    pub(crate) authorization_servers: Vec<String>,
    pub(crate) scopes: Vec<String>,
    /// Where that is this broker.
    pub(crate) sign_in: Option<Arc<SignIn>>,
    /// By the path of the MCP endpoint.
    challenges: Vec<(String, Arc<str>)>,
}

impl Protected {
    pub(crate) fn new(
        resources: Resources,
        authorization_servers: Vec<String>,
        scopes: Vec<String>,
        sign_in: Option<Arc<SignIn>>,
    ) -> Self {
        let issuer = resources.issuer();
        let scope = match scopes.is_empty() {
            true => String::new(),
            false => format!(", scope=\"{}\"", scopes.join(" ")),
        };
        let challenge = |uri: String| {
            let path = uri.strip_prefix(issuer)?.to_owned();
            let metadata = format!("{issuer}{RESOURCE_METADATA}{path}");
            let challenge = format!("resource_metadata=\"{metadata}\"{scope}");
            Some((path, challenge.into()))
        };
        let challenges = resources.all_uris().into_iter().filter_map(challenge);
        Self {
            challenges: challenges.collect(),
            resources,
            authorization_servers,
            scopes,
            sign_in,
        }
    }

    /// The fields of a challenge for a path of the MCP endpoint (RFC 9728, section 5.1), after
    /// `Bearer realm`. The scope is all that there is (2025-11-25, authorization, "Scope Selection
    /// Strategy").
    pub(super) fn challenge(&self, url: &str) -> Arc<str> {
        let path = url.split('?').next().unwrap_or(url);
        let known = self.challenges.iter().find(|(it, _)| it == path);
        known.map_or_else(|| "".into(), |(_, challenge)| Arc::clone(challenge))
    }

    /// RFC 9728, section 3.3: the document of a path is about that very path.
    fn resource(&self, suffix: &str) -> Option<Resource> {
        if suffix.is_empty() {
            return self.resources.only();
        }
        let uri = format!("{}{suffix}", self.resources.issuer());
        self.resources.find(&uri).filter(|it| it.uri == uri)
    }
}

/// One of the endpoints.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    ResourceMetadata(String),
    ServerMetadata,
    OpenIdMetadata,
    /// Of ID tokens, of which there are none.
    Keys,
    Authorize,
    Callback,
    Token,
    Register,
    Revoke,
}

impl Endpoint {
    /// The endpoint of a path, if there is one here.
    fn find(protected: &Protected, path: &str) -> Option<Self> {
        if let Some(suffix) = path.strip_prefix(RESOURCE_METADATA) {
            let resource = protected.resource(suffix)?;
            return Some(Self::ResourceMetadata(resource.uri));
        }
        protected.sign_in.as_ref()?;
        Some(match path {
            "/.well-known/oauth-authorization-server" => Self::ServerMetadata,
            "/.well-known/openid-configuration" => Self::OpenIdMetadata,
            metadata::JWKS_PATH => Self::Keys,
            metadata::AUTHORIZE_PATH => Self::Authorize,
            "/oauth/callback" => Self::Callback,
            metadata::TOKEN_PATH => Self::Token,
            metadata::REGISTER_PATH => Self::Register,
            metadata::REVOKE_PATH => Self::Revoke,
            _ => return None,
        })
    }

    fn methods(&self) -> &'static str {
        match self {
            Self::ResourceMetadata(_)
            | Self::ServerMetadata
            | Self::OpenIdMetadata
            | Self::Keys => "GET, OPTIONS",
            Self::Token | Self::Register | Self::Revoke => "POST, OPTIONS",
            Self::Authorize => "GET, POST",
            Self::Callback => "GET",
        }
    }

    /// Whether pages of any site may use it: it knows no cookies.
    fn is_for_programs(&self) -> bool {
        !matches!(self, Self::Authorize | Self::Callback)
    }
}

/// A request that waits for its turn.
pub(super) enum Job {
    /// One of these endpoints.
    Endpoint {
        request: Request,
        endpoint: Endpoint,
        face: Face,
    },
    /// A request to a server, whose token cannot be checked without waiting.
    Verify {
        request: Request,
        incoming: Box<Incoming>,
        face: Face,
        server: Arc<str>,
    },
}

pub(super) type Servants = Arc<Workers<Job>>;

/// Those of an app that is just being made.
pub(super) fn servants(app: Weak<App>) -> Servants {
    let run = move |job: Job| {
        if let Some(app) = app.upgrade() {
            work(&app, job);
        }
    };
    Arc::new(Workers::new("sign-in", THREADS_MAX, QUEUE_MAX, run))
}

/// Serves the request if it is for one of these endpoints, and gives it back if not. The `Origin`
/// was not looked at yet.
pub(super) fn serve(
    app: &Arc<App>,
    request: Request,
    incoming: &Incoming,
    face: &Face,
) -> Option<Request> {
    let Some(protected) = &app.protected else {
        return Some(request);
    };
    let path = request.url().split('?').next().unwrap_or_default();
    let Some(endpoint) = Endpoint::find(protected, path) else {
        return Some(request);
    };
    let face = face.clone();
    if let Some(answer) = check(app, &endpoint, incoming) {
        refuse(app, request, answer, face);
        return None;
    }
    let now = Instant::now();
    let answer = match &endpoint {
        _ if incoming.method == Method::Options => Answer::Rendered(preflight()),
        Endpoint::ResourceMetadata(uri) => Answer::Rendered(resource_metadata(protected, uri)),
        Endpoint::ServerMetadata => {
            let metadata = metadata::server_metadata(protected.resources.issuer());
            Answer::Rendered(public_json(&metadata))
        }
        Endpoint::OpenIdMetadata => {
            let metadata = metadata::openid_metadata(protected.resources.issuer());
            Answer::Rendered(public_json(&metadata))
        }
        Endpoint::Keys => Answer::Rendered(public_json(metadata::JWKS)),
        _ => match app.limits.take(&endpoint, &incoming.peer, now) {
            Err(wait) => Answer::Rendered(too_many(&endpoint, wait)),
            Ok(()) => {
                hand_over(
                    app,
                    Job::Endpoint {
                        request,
                        endpoint,
                        face,
                    },
                );
                return None;
            }
        },
    };
    refuse(app, request, answer, face);
    None
}

/// What is wrong with the head. `Host` was checked.
fn check(app: &App, endpoint: &Endpoint, incoming: &Incoming) -> Option<Answer> {
    let methods = endpoint.methods();
    let is_allowed = methods.split(", ").any(|it| it == incoming.method.as_str());
    if !is_allowed {
        return Some(Answer::MethodNotAllowed(methods));
    }
    if endpoint.is_for_programs() {
        return None;
    }
    let is_foreign = app.policy.check_origin(incoming.origin.as_deref()).is_err();
    let sign_in = app.protected.as_ref()?.sign_in.as_ref()?;
    is_foreign.then(|| Answer::Rendered(browser::foreign(sign_in)))
}

/// Serves a request to a server once its token is checked.
pub(super) fn verify(
    app: &App,
    request: Request,
    incoming: Incoming,
    face: Face,
    server: &Arc<str>,
) {
    let job = Job::Verify {
        request,
        incoming: Box::new(incoming),
        face,
        server: Arc::clone(server),
    };
    hand_over(app, job);
}

fn hand_over(app: &App, job: Job) {
    match app.servants.take(job) {
        Ok(()) => {}
        Err(NotTaken::Busy(Job::Endpoint {
            request,
            endpoint,
            face,
        })) => {
            refuse(app, request, Answer::Rendered(too_many(&endpoint, 1)), face);
        }
        Err(NotTaken::Busy(Job::Verify { request, face, .. })) => {
            refuse(app, request, Answer::Unauthorized(AuthError::Later), face);
        }
        // The request went with the job, which tiny_http answers with 500.
        Err(NotTaken::NoThread(error)) => {
            log::error!("cannot start a thread for signing in: {error}");
        }
    }
}

fn work(app: &Arc<App>, job: Job) {
    match job {
        Job::Endpoint {
            request,
            endpoint,
            face,
        } => {
            let protected = app.protected.as_ref();
            if let Some(sign_in) = protected.and_then(|it| it.sign_in.as_ref()) {
                work_at(sign_in, request, &endpoint, &face);
            }
        }
        Job::Verify {
            request,
            incoming,
            face,
            server,
        } => {
            let (authorization, now) = (incoming.authorization.as_deref(), SystemTime::now());
            match app.authenticator.check_slowly(authorization, &server, now) {
                Ok(principal) => {
                    mcp::serve_principal(app, request, *incoming, face, &server, principal);
                }
                Err(why) => mcp::unauthorized(app, request, &incoming, why, face),
            }
        }
    }
}

fn work_at(sign_in: &SignIn, mut request: Request, endpoint: &Endpoint, face: &Face) {
    let body = read(&mut request);
    let rendered = match (endpoint, body) {
        (Endpoint::Authorize | Endpoint::Callback, Some(body)) => {
            browser::serve(sign_in, endpoint, &request, &body)
        }
        (_, Some(body)) => programs::serve(sign_in, endpoint, &request, &body),
        (_, None) => Rendered::plain(413, "the body is too large, or no text"),
    };
    reply::send(request, &Answer::Rendered(rendered), face);
}

/// The body; `None` if it is too large, broken off or no UTF-8.
fn read(request: &mut Request) -> Option<String> {
    let len = request.body_length().unwrap_or(0);
    if len > BODY_MAX_BYTES {
        return None;
    }
    let mut body = Vec::with_capacity(len);
    let read = request.as_reader().take(len as u64).read_to_end(&mut body);
    read.ok().filter(|read| *read == len)?;
    String::from_utf8(body).ok()
}

/// A field's value, if it is there once.
fn field<'a>(request: &'a Request, name: &'static str) -> Option<&'a str> {
    let mut found = request.headers().iter().filter(|it| it.field.equiv(name));
    let value = found.next()?.value.as_str();
    found.next().is_none().then_some(value)
}

fn resource_metadata(protected: &Protected, uri: &str) -> Rendered {
    let servers: Vec<&str> = protected
        .authorization_servers
        .iter()
        .map(String::as_str)
        .collect();
    let scopes: Vec<&str> = protected.scopes.iter().map(String::as_str).collect();
    let name = protected.resources.find(uri).map(|it| it.server);
    let name = name.as_deref().unwrap_or_default();
    public_json(&metadata::resource_metadata(uri, &servers, &scopes, name))
}

/// Metadata: the same for everybody, and for pages of any site.
fn public_json(json: &str) -> Rendered {
    Rendered::json(200, json.as_bytes())
        .with("Access-Control-Allow-Origin", "*")
        .with("Cache-Control", "public, max-age=300")
}

/// Fetch standard, "CORS protocol".
fn preflight() -> Rendered {
    Rendered::empty(204)
        .with("Access-Control-Allow-Origin", "*")
        .with("Access-Control-Allow-Methods", "GET, POST")
        .with(
            "Access-Control-Allow-Headers",
            "Authorization, Content-Type, MCP-Protocol-Version",
        )
        .with("Access-Control-Max-Age", "600")
}

fn too_many(endpoint: &Endpoint, wait: u64) -> Rendered {
    let rendered = match endpoint.is_for_programs() {
        true => programs::too_many(),
        false => browser::too_many(),
    };
    rendered.with("Retry-After", &wait.to_string())
}
