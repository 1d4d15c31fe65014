//! Outgoing requests over HTTPS: bounded, timed, and never to where they must not go.
//!
//! [`Web`] asks those that the operator has configured. [`Documents`] asks whomever an unknown
//! visitor names, hence its many rules.
//!
//! `address` says which addresses are public · `document` is [`Documents`] · `error` is
//! [`WebError`].
mod address;
mod document;
mod error;
#[cfg(test)]
pub(super) mod tests;

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use fluent_uri::Uri;
use ureq::config::ConfigBuilder;
use ureq::http::{HeaderMap, Response, header};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::typestate::AgentScope;
use ureq::{Agent, Body, Proxy};

pub(crate) use document::Documents;
pub(crate) use error::{WebError, plain};

/// How long a whole exchange may take, from the look-up of the name to the last byte.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

const MAX_BODY_BYTES: u64 = 1 << 20;
const MAX_HEAD_BYTES: usize = 32 << 10;
const MAX_PLACE_CHARS: usize = 200;

/// Asks servers that the operator has configured, and those that they name. Only over HTTPS, but
/// for servers on this machine; redirects are not followed; every request has its own connection,
/// so that none fails because an idle one was about to be closed, and a code is never sent twice.
///
/// A proxy is used where `HTTPS_PROXY` names one: whoever sets that means requests such as these.
/// The other proxy variables alone are not looked at, nor is any for servers on this machine.
#[derive(Clone)]
pub(crate) struct Web {
    direct: Agent,
    proxied: Option<Agent>,
    timeout: Duration,
}

/// What a server said. The body may hold tokens.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// At most 1 MiB.
    pub(crate) body: String,
    /// How long it may be kept, as the server has it (RFC 9111 section 5.2.2). `None`: it says
    /// nothing; zero: not at all.
    pub(crate) cache: Option<Duration>,
}

impl Web {
    /// `timeout` is that of a whole exchange. `ca_file` is a PEM file of roots that are trusted
    /// *instead of* the public ones: who runs a private CA wants no other to vouch for its servers.
    ///
    /// # Errors
    /// [`WebError::CaFile`].
    pub(crate) fn new(ca_file: Option<&Path>, timeout: Duration) -> Result<Self, WebError> {
        let variables = ["HTTPS_PROXY", "https_proxy"];
        let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        // It reads the lists of exceptions (`NO_PROXY`) as well.
        let proxy = variables.iter().any(is_set).then(Proxy::try_from_env);
        Self::with_proxy(ca_file, timeout, proxy.flatten())
    }

    fn with_proxy(
        ca_file: Option<&Path>,
        timeout: Duration,
        proxy: Option<Proxy>,
    ) -> Result<Self, WebError> {
        let roots = match ca_file {
            Some(path) => read_roots(path)?,
            None => RootCerts::WebPki,
        };
        let tls = TlsConfig::builder().root_certs(roots).build();
        let build = |proxy| {
            let config = careful(timeout).tls_config(tls.clone()).proxy(proxy);
            config.build().new_agent()
        };
        Ok(Self {
            direct: build(None),
            proxied: proxy.map(|proxy| build(Some(proxy))),
            timeout,
        })
    }

    /// Whether a URL is one that can be asked.
    ///
    /// # Errors
    /// [`WebError::Url`].
    pub(crate) fn check(url: &str) -> Result<(), WebError> {
        Target::read(url)?.of_operator().map(|_| ())
    }

    /// Fetches JSON. Any status but a redirect is an answer.
    ///
    /// # Errors
    /// If there is no answer, or one that breaks the limits.
    pub(crate) fn get_json(&self, url: &str, bearer: Option<&str>) -> Result<Answer, WebError> {
        let target = Target::read(url)?.of_operator()?;
        let mut request = self.agent(&target).get(url);
        if let Some(token) = bearer {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let response = request.call();
        self.answer(&target, response)
    }

    /// Sends a form. `basic` is the id and the secret of a client, which are encoded as a form
    /// before they are encoded for the header (RFC 6749 section 2.3.1).
    ///
    /// # Errors
    /// As [`get_json`](Self::get_json).
    pub(crate) fn post_form(
        &self,
        url: &str,
        form: &[(&str, &str)],
        basic: Option<(&str, &str)>,
    ) -> Result<Answer, WebError> {
        let target = Target::read(url)?.of_operator()?;
        let mut request = self
            .agent(&target)
            .post(url)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some((id, secret)) = basic {
            request = request.header(header::AUTHORIZATION, basic_header(id, secret));
        }
        let response = request.send(encode_form(form));
        self.answer(&target, response)
    }

    fn agent(&self, target: &Target) -> &Agent {
        match &self.proxied {
            Some(agent) if !target.is_loopback => agent,
            _ => &self.direct,
        }
    }

    fn answer(
        &self,
        target: &Target,
        response: Result<Response<Body>, ureq::Error>,
    ) -> Result<Answer, WebError> {
        let failed = |error| WebError::of(error, &target.place, self.timeout);
        let mut response = response.map_err(failed)?;
        let status = response.status().as_u16();
        if (300..400).contains(&status) {
            let place = target.place.clone();
            return Err(WebError::Redirect { place });
        }
        let cache = lifetime(response.headers());
        let body = read_text(&mut response, MAX_BODY_BYTES, &target.place, self.timeout)?;
        Ok(Answer {
            status,
            body,
            cache,
        })
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.body.len();
        write!(
            f,
            "Answer({}, {bytes} bytes, {:?})",
            self.status, self.cache
        )
    }
}

/// What all requests have in common: no redirects, no proxy, no idle connections, a limit on
/// everything, and statuses that are answers.
fn careful(timeout: Duration) -> ConfigBuilder<AgentScope> {
    Agent::config_builder()
        .timeout_global(Some(timeout))
        .max_redirects(0)
        .proxy(None)
        .max_idle_connections(0)
        .max_response_header_size(MAX_HEAD_BYTES)
        // Larger than a head, or one that is too large would look like a lost connection.
        .input_buffer_size(2 * MAX_HEAD_BYTES)
        .http_status_as_error(false)
        .user_agent(concat!("mcp-broker/", env!("CARGO_PKG_VERSION")))
        .accept("application/json")
}

fn read_roots(path: &Path) -> Result<RootCerts, WebError> {
    let refuse = |why: String| WebError::CaFile {
        path: path.to_owned(),
        why,
    };
    let pem = fs::read(path).map_err(|error| refuse(error.to_string()))?;
    let mut roots = Vec::new();
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(root)) => roots.push(root),
            Ok(_) => {}
            Err(_) => return Err(refuse("it is not PEM".to_owned())),
        }
    }
    match roots.is_empty() {
        true => Err(refuse("there is no certificate in it".to_owned())),
        false => Ok(RootCerts::from(roots)),
    }
}

fn read_text(
    response: &mut Response<Body>,
    limit: u64,
    place: &str,
    timeout: Duration,
) -> Result<String, WebError> {
    let body = response.body_mut().with_config().limit(limit).read_to_vec();
    let body = body.map_err(|error| WebError::of(error, place, timeout))?;
    String::from_utf8(body).map_err(|_| WebError::Content {
        place: place.to_owned(),
        why: "is not UTF-8",
    })
}

fn encode_form(form: &[(&str, &str)]) -> String {
    let mut text = form_urlencoded::Serializer::new(String::new());
    text.extend_pairs(form);
    text.finish()
}

fn basic_header(id: &str, secret: &str) -> String {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = format!("{}:{}", encode(id), encode(secret));
    format!("Basic {}", BASE64_STANDARD.encode(pair))
}

/// How long `Cache-Control` lets an answer be kept.
fn lifetime(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(header::CACHE_CONTROL).iter();
    let text: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
    let text = text.join(",").to_ascii_lowercase();
    let mut found = None;
    for directive in text.split(',').map(str::trim) {
        if directive == "no-store" || directive == "no-cache" {
            return Some(Duration::ZERO);
        }
        if let Some(seconds) = directive.strip_prefix("max-age=") {
            let seconds = seconds.trim_matches('"').parse().ok();
            found = found.or(seconds.map(Duration::from_secs));
        }
    }
    found
}

/// Where a request goes to.
struct Target {
    /// Origin and path: what may be said of it.
    place: String,
    is_https: bool,
    is_loopback: bool,
    port: Option<u16>,
    has_path: bool,
}

impl Target {
    fn read(url: &str) -> Result<Self, WebError> {
        let refuse = |why| WebError::Url { why };
        let uri = Uri::parse(url).map_err(|_| refuse("is not a URL"))?;
        let authority = uri.authority().ok_or(refuse("names no host"))?;
        let host = authority.host();
        let is_https = uri.scheme().as_str().eq_ignore_ascii_case("https");
        let is_http = uri.scheme().as_str().eq_ignore_ascii_case("http");
        let path = uri.path().as_str();
        let is_dots = |segment: &str| matches!(&*segment.replace("%2e", "."), "." | "..");
        let why = match () {
            () if !is_https && !is_http => "is not an https URL",
            () if host.is_empty() => "names no host",
            () if authority.has_userinfo() => "has a user name in it",
            () if uri.has_fragment() => "has a fragment",
            () if path.to_ascii_lowercase().split('/').any(is_dots) => "has dot segments",
            () => "",
        };
        if !why.is_empty() {
            return Err(refuse(why));
        }
        let port = authority.port_to_u16();
        let scheme = if is_https { "https" } else { "http" };
        let port_text = authority.port().map_or("", |port| port.as_str());
        let colon = if port_text.is_empty() { "" } else { ":" };
        let place = format!("{scheme}://{host}{colon}{port_text}{path}");
        Ok(Self {
            place: place.chars().take(MAX_PLACE_CHARS).collect(),
            is_https,
            is_loopback: is_loopback(host),
            port: port.map_err(|_| refuse("has a port that does not exist"))?,
            has_path: path.len() > 1,
        })
    }

    /// Operators may have servers without TLS on this machine.
    fn of_operator(self) -> Result<Self, WebError> {
        match self.is_https || self.is_loopback {
            true => Ok(self),
            false => Err(WebError::Url {
                why: "is http, which only servers on this machine may be asked by",
            }),
        }
    }
}

/// Whether the host of a URL is this machine by its very name.
fn is_loopback(host: &str) -> bool {
    let address: Result<IpAddr, _> = host.trim_matches(['[', ']']).parse();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|it| it.is_loopback())
}
