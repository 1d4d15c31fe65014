//! The pages that people see while they sign in: consent, what went wrong, and back to an app.
//!
//! Text in, HTML out; who asks and what follows is the endpoints' business. No page has a script,
//! and none loads anything. What clients say of themselves is cleaned here and escaped by askama.
mod scopes;
#[cfg(test)]
mod tests;
mod trouble;
mod words;

use std::sync::LazyLock;

use askama::Template;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use scopes::Scope;
pub(super) use trouble::{Trouble, trouble};
use words::{NAME_CHARS, URI_CHARS, shown};

const STYLE: &str = include_str!("pages/style.css");
/// A padlock. A page without an icon makes browsers ask for `/favicon.ico`.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24'%3E%3Cpath fill='%2314538f' d='M7 10V7a5 5 0 0 1 10 0v3h1a2 2 0 0 1 2 2v7a2 2 0 0 1-2 2H6a2 2 0 0 1-2-2v-7a2 2 0 0 1 2-2zm2 0h6V7a3 3 0 0 0-6 0z'/%3E%3C/svg%3E";
/// What a browser shows should rendering fail, which only a full memory could bring about.
const NO_PAGE: &str = "<!doctype html><html lang=\"en\"><title>Error</title><p>Try again.</p>";

/// A page, and what must go with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) status: u16,
    pub(super) html: String,
    /// The value of the Content-Security-Policy field. A page goes nowhere without it.
    pub(super) csp: String,
}

/// How much is known of who a client is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Standing<'a> {
    /// The broker has a copy of its metadata document from this host.
    Pinned { host: &'a str },
    /// Its metadata document was fetched from this host.
    Document { host: &'a str },
    /// It registered itself: its name is whatever it said.
    Registered,
}

/// Where the browser goes in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    Web,
    /// A port of the computer that the browser runs on.
    Loopback,
    /// Whichever app has claimed the URI's scheme.
    PrivateUse,
}

/// What a person decides on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Consent<'a> {
    /// The host of the broker's public URL.
    pub(super) broker: &'a str,
    /// What the client calls itself.
    pub(super) client_name: &'a str,
    pub(super) standing: Standing<'a>,
    pub(super) redirect_host: &'a str,
    pub(super) redirect_uri: &'a str,
    pub(super) destination: Destination,
    pub(super) server: &'a str,
    /// The server's resource URI.
    pub(super) resource: &'a str,
    /// The name of the upstream provider.
    pub(super) provider: &'a str,
    /// What the provider will be asked for, separated by spaces.
    pub(super) scopes: &'a str,
    /// The provider takes scopes that do not name an API for access to all of it (Forgejo, Gitea).
    pub(super) is_forgejo: bool,
    /// The sealed request, which comes back with the form.
    pub(super) request: &'a str,
}

struct Warning {
    what: &'static str,
    why: String,
}

#[derive(Template)]
#[template(path = "consent.html", config = "src/http/pages/askama.toml")]
struct ConsentPage<'a> {
    broker: &'a str,
    client: String,
    standing: String,
    warning: Option<Warning>,
    redirect_host: String,
    redirect_uri: String,
    server: &'a str,
    resource: &'a str,
    provider: &'a str,
    scopes: Vec<Scope<'a>>,
    is_everything: bool,
    request: &'a str,
}

#[derive(Template)]
#[template(path = "handover.html", config = "src/http/pages/askama.toml")]
struct HandoverPage<'a> {
    broker: &'a str,
    client: String,
    what: &'static str,
    location: &'a str,
    scheme: &'a str,
}

/// Asks whether the client may do what it wants (S10, S11, S18): sent to the browser before it
/// goes to the provider, each time.
pub(super) fn consent(consent: &Consent<'_>) -> Page {
    let client = shown(consent.client_name, NAME_CHARS);
    let page = ConsentPage {
        broker: consent.broker,
        standing: standing(consent.standing),
        warning: warning(consent, &client),
        client,
        redirect_host: shown(consent.redirect_host, URI_CHARS),
        redirect_uri: shown(consent.redirect_uri, URI_CHARS),
        server: consent.server,
        resource: consent.resource,
        provider: consent.provider,
        scopes: scopes::explain(consent.scopes),
        is_everything: consent.is_forgejo && !scopes::name_an_api(consent.scopes),
        request: consent.request,
    };
    render(200, policy(), &page)
}

/// Hands a private-use URI, success or error, to the browser at the press of a button. A redirect
/// to it would leave the person on the page before, with a form that has been used; and browsers
/// open an app only where a person has just done something.
pub(super) fn handover(
    broker: &str,
    client_name: &str,
    location: &str,
    is_signed_in: bool,
) -> Page {
    let scheme = scheme(location);
    if !is_of_an_app(scheme) {
        log::error!("no page for a URI of the scheme {scheme:?}");
        return trouble(broker, Trouble::Broken, None);
    }
    let what = match is_signed_in {
        true => "You are signed in. The app finishes the rest.",
        false => "You are not signed in. The app will tell you more.",
    };
    let page = HandoverPage {
        broker,
        client: shown(client_name, NAME_CHARS),
        what,
        location,
        scheme,
    };
    render(200, closed_policy(), &page)
}

fn render(status: u16, csp: String, page: &impl Template) -> Page {
    match page.render() {
        Ok(html) => Page { status, html, csp },
        Err(error) => {
            log::error!("cannot render a page: {error}");
            let html = NO_PAGE.to_owned();
            Page {
                status: 500,
                html,
                csp,
            }
        }
    }
}

/// The policy of pages with a form, which has no `form-action`: Chromium holds against it each
/// redirect that follows a POST, and where the provider knows the person already these lead
/// through hosts of its own and of the client, which may send the browser on to a scheme that only
/// its app knows. No list has all of them, and `https:`, which lets go to anyone, is no defence.
fn policy() -> String {
    static STYLE_HASH: LazyLock<String> =
        LazyLock::new(|| STANDARD.encode(Sha256::digest(STYLE.as_bytes())));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; img-src data:; \
         frame-ancestors 'none'; base-uri 'none'",
        *STYLE_HASH
    )
}

/// The policy of pages without a form.
fn closed_policy() -> String {
    policy() + "; form-action 'none'"
}

fn scheme(uri: &str) -> &str {
    uri.split(':').next().unwrap_or_default()
}

/// Whether an app may have claimed the scheme: that is, no browser acts on it by itself.
fn is_of_an_app(scheme: &str) -> bool {
    let is_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    let of_browsers = [
        "about",
        "blob",
        "data",
        "file",
        "filesystem",
        "ftp",
        "http",
        "https",
        "javascript",
        "vbscript",
        "view-source",
        "ws",
        "wss",
    ];
    scheme.chars().all(is_scheme) && !of_browsers.iter().any(|it| it.eq_ignore_ascii_case(scheme))
}

fn standing(standing: Standing<'_>) -> String {
    match standing {
        Standing::Pinned { host } => format!("A well-known app of {host}."),
        Standing::Document { host } => format!("{host} says that this is its app."),
        Standing::Registered => {
            "Not verified: it registered itself, and anybody can use any name.".to_owned()
        }
    }
}

fn warning(consent: &Consent<'_>, client: &str) -> Option<Warning> {
    match consent.destination {
        Destination::Web => None,
        Destination::Loopback => Some(Warning {
            what: "Only continue if you have just started this on this computer.",
            why: format!(
                "The access goes to a program on this computer, and any program here can \
                 call itself “{client}”."
            ),
        }),
        Destination::PrivateUse => Some(Warning {
            what: "Only continue if you have just started this in an app on this device.",
            why: format!(
                "The access goes to whichever app here answers to {}: links, and any app can \
                 call itself “{client}”.",
                scheme(consent.redirect_uri)
            ),
        }),
    }
}
