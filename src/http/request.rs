//! The fields of a request's head that anybody here asks for, read once.

use tiny_http::{Method, Request};

use super::reply::Answer;
use crate::bridge::modern::Mirrored;
use crate::edge;
use crate::mcp::{self, header};

/// Fields of parameters that a preflight is told of.
const MAX_WANTED: usize = 100;

/// A request's head.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) method: Method,
    /// The number the edge gave the client's connection.
    pub(super) connection: u64,
    /// The client's address; empty for a Unix socket.
    pub(super) peer: String,
    /// Came in through the admin listener.
    pub(super) is_admin: bool,
    pub(super) host: Option<String>,
    pub(super) origin: Option<String>,
    pub(super) authorization: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) accept: Option<String>,
    pub(super) session_id: Option<String>,
    pub(super) protocol_version: Option<String>,
    pub(super) last_event_id: Option<String>,
    /// `Mcp-Method` and `Mcp-Name`.
    rpc_method: Option<String>,
    rpc_name: Option<String>,
    /// `Mcp-Param-...`: the rest of the name, and the value.
    params: Vec<(String, String)>,
    /// A field stands twice that can mean only one thing.
    pub(super) has_repeated_field: bool,
    /// Likewise, and it repeats what stands in the body of a modern request.
    pub(super) has_repeated_mirror: bool,
}

impl Incoming {
    /// # Errors
    /// The answer to the edge's own request, which carries no connection number. `Accept` is a
    /// list, and is joined.
    pub(super) fn read(request: &Request) -> Result<Self, Answer> {
        let mut incoming = Self {
            method: request.method().clone(),
            connection: 0,
            peer: String::new(),
            is_admin: false,
            host: None,
            origin: None,
            authorization: None,
            content_type: None,
            accept: None,
            session_id: None,
            protocol_version: None,
            last_event_id: None,
            rpc_method: None,
            rpc_name: None,
            params: Vec::new(),
            has_repeated_field: false,
            has_repeated_mirror: false,
        };
        let mut connection = None;
        for field in request.headers() {
            let is = |name: &'static str| field.field.equiv(name);
            let value = field.value.as_str();
            if is(edge::CONNECTION_FIELD) {
                connection = value.parse().ok();
                continue;
            }
            if is(edge::PEER_FIELD) {
                value.clone_into(&mut incoming.peer);
                continue;
            }
            if is(edge::DOOR_FIELD) {
                incoming.is_admin = value == edge::ADMIN_DOOR;
                continue;
            }
            let Some(slot) = incoming.slot(&is) else {
                if let Some(name) = param_name(field.field.as_str().as_str()) {
                    incoming.params.push((name.to_owned(), value.to_owned()));
                }
                continue;
            };
            match slot {
                Some(list) if is("Accept") => {
                    list.push(',');
                    list.push_str(value);
                }
                Some(_) => {
                    let mirrors = [header::PROTOCOL_VERSION, header::METHOD, header::NAME];
                    incoming.has_repeated_field = true;
                    incoming.has_repeated_mirror |= mirrors.into_iter().any(is);
                }
                None => *slot = Some(value.to_owned()),
            }
        }
        incoming.connection = connection.ok_or(Answer::Proof)?;
        Ok(incoming)
    }

    fn slot(&mut self, is: &impl Fn(&'static str) -> bool) -> Option<&mut Option<String>> {
        Some(match () {
            () if is("Host") => &mut self.host,
            () if is("Accept") => &mut self.accept,
            () if is("Content-Type") => &mut self.content_type,
            () if is("Authorization") => &mut self.authorization,
            () if is(header::SESSION_ID) => &mut self.session_id,
            () if is(header::PROTOCOL_VERSION) => &mut self.protocol_version,
            () if is("Origin") => &mut self.origin,
            () if is(header::LAST_EVENT_ID) => &mut self.last_event_id,
            () if is(header::METHOD) => &mut self.rpc_method,
            () if is(header::NAME) => &mut self.rpc_name,
            () => return None,
        })
    }

    /// Whether the head says that the request is of the modern era.
    pub(super) fn is_modern(&self) -> bool {
        self.protocol_version.as_deref() == Some(mcp::MODERN_VERSION)
    }

    /// What the head repeats of the body, where that may be of the modern era.
    pub(super) fn mirrored(&self) -> Option<Mirrored> {
        let version = self.protocol_version.as_deref();
        if self.session_id.is_some() && version.is_some_and(mcp::is_supported) {
            return None;
        }
        Some(Mirrored {
            version: version.map(str::to_owned),
            method: self.rpc_method.clone(),
            name: self.rpc_name.clone(),
            params: self.params.clone(),
        })
    }

    /// Whether the body is said to be JSON, with or without parameters.
    pub(super) fn has_json(&self) -> bool {
        is_of_type(self.content_type.as_deref(), "application/json")
    }

    /// Whether the client takes this media type (RFC 9110 section 12.5.1; the only weight that
    /// counts is 0).
    pub(super) fn accepts(&self, wanted: &str) -> bool {
        let (kind, _) = wanted.split_once('/').unwrap_or_default();
        let ranges = self.accept.as_deref().unwrap_or_default().split(',');
        ranges.filter_map(accepted_range).any(|range| {
            range == "*/*"
                || range.eq_ignore_ascii_case(wanted)
                || range
                    .strip_suffix("/*")
                    .is_some_and(|it| it.eq_ignore_ascii_case(kind))
        })
    }
}

/// Whether a `Content-Type` is this media type, with or without parameters (RFC 9110, section
/// 8.3.1).
pub(super) fn is_of_type(field: Option<&str>, wanted: &str) -> bool {
    let essence = field.unwrap_or_default().split(';').next();
    essence.is_some_and(|it| it.trim().eq_ignore_ascii_case(wanted))
}

/// The fields of parameters that a page asks whether it may send (Fetch standard, "CORS-preflight
/// request"). Their names are the tools', so they cannot be listed.
pub(super) fn wanted_params(request: &Request) -> Vec<String> {
    let is_asking = |name: &str| name.eq_ignore_ascii_case("Access-Control-Request-Headers");
    let fields = request.headers().iter();
    let asked = fields.filter(|field| is_asking(field.field.as_str().as_str()));
    let names = asked.flat_map(|field| field.value.as_str().split(','));
    let is_param = |name: &&str| {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        param_name(name).is_some() && name.bytes().all(is_token)
    };
    let wanted = names.map(str::trim).filter(is_param);
    wanted.take(MAX_WANTED).map(str::to_owned).collect()
}

/// What follows `Mcp-Param-` in a field's name.
fn param_name(name: &str) -> Option<&str> {
    let (prefix, rest) = name.split_at_checked(header::PARAM_PREFIX.len())?;
    prefix
        .eq_ignore_ascii_case(header::PARAM_PREFIX)
        .then_some(rest)
}

/// The media range without its parameters; `None` if its weight is 0.
fn accepted_range(range: &str) -> Option<&str> {
    let (range, parameters) = range.split_once(';').unwrap_or((range, ""));
    let weight = parameters
        .split(';')
        .filter_map(|parameter| parameter.trim().strip_prefix("q="))
        .find_map(|weight| weight.parse::<f32>().ok());
    (weight != Some(0.0)).then(|| range.trim())
}
