//! What people see: the page that asks, and where their browser goes next.

use std::time::SystemTime;

use tiny_http::{Method, Request};

use super::{Endpoint, field};
use crate::auth::oauth::{ClientKind, redirect};
use crate::auth::sign_in::{Approved, Back, Consent, Problem, SignIn};
use crate::http::pages::{self, Destination, Page, Standing, Trouble};
use crate::http::reply::Rendered;

/// The cookie that a consent page must come back with.
const CONSENT_COOKIE: &str = "mcpb-consent";
/// How the cookies of logins begin.
const LOGIN_COOKIE: &str = "mcpb-login-";
/// RFC 6265bis, "The __Host- Prefix": no other host, and no page without TLS, can have set it.
const HOST_PREFIX: &str = "__Host-";
const LOGIN_COOKIE_SECONDS: u64 = 600;

/// A browser and what it asks.
struct Visit<'a> {
    sign_in: &'a SignIn,
    request: &'a Request,
    now: SystemTime,
}

pub(super) fn serve(
    sign_in: &SignIn,
    endpoint: &Endpoint,
    request: &Request,
    body: &str,
) -> Rendered {
    let visit = Visit {
        sign_in,
        request,
        now: SystemTime::now(),
    };
    let result = match (endpoint, request.method()) {
        (Endpoint::Authorize, Method::Post) => visit.decide(body),
        (Endpoint::Authorize, _) => visit.ask(),
        _ => visit.come_back(),
    };
    result.unwrap_or_else(|problem| visit.explain(&problem))
}

/// To a page of another site that sends its visitors here with a form.
pub(super) fn foreign(sign_in: &SignIn) -> Rendered {
    page(pages::trouble(broker(sign_in), Trouble::OtherBrowser, None))
}

pub(super) fn too_many() -> Rendered {
    page(pages::trouble("This server", Trouble::RateLimited, None))
}

impl Visit<'_> {
    fn ask(&self) -> Result<Rendered, Problem> {
        let cookie = self.cookie(CONSENT_COOKIE);
        match self.sign_in.ask(self.query(), cookie.as_deref(), self.now) {
            Ok(consent) => {
                let set = self.set_cookie(CONSENT_COOKIE, &consent.cookie, None);
                Ok(page(self.consent(&consent)).with("Set-Cookie", &set))
            }
            Err(Ok(location)) => Ok(redirect_to(&location)),
            Err(Err(problem)) => Err(problem),
        }
    }

    fn consent(&self, consent: &Consent) -> Page {
        let (request, client) = (&consent.request, &consent.client);
        let upstream = self.sign_in.upstream();
        let host = host_of(&client.id);
        pages::consent(&pages::Consent {
            broker: self.broker(),
            client_name: &client.name,
            standing: match client.kind {
                ClientKind::Pinned => Standing::Pinned { host },
                ClientKind::Document => Standing::Document { host },
                ClientKind::Registered => Standing::Registered,
            },
            redirect_host: &redirect::host_for_people(&request.redirect_uri),
            redirect_uri: &request.redirect_uri,
            destination: destination(&request.redirect_uri),
            server: &request.resource.server,
            resource: &request.resource.uri,
            provider: upstream.name(),
            scopes: upstream.scopes(),
            is_forgejo: upstream.is_forgejo(),
            request: &consent.sealed,
        })
    }

    /// The page that asks has come back.
    fn decide(&self, body: &str) -> Result<Rendered, Problem> {
        // The cookie is not sent along by pages of other sites, but by those of our own site.
        let site = field(self.request, "Sec-Fetch-Site").unwrap_or("same-origin");
        let origin = field(self.request, "Origin");
        let own = self.sign_in.resources().issuer();
        if site != "same-origin" || origin.is_some_and(|it| !it.eq_ignore_ascii_case(own)) {
            return Err(Problem::OtherBrowser);
        }
        let value = |name: &str| {
            let mut all = form_urlencoded::parse(body.as_bytes());
            let found = all.find(|(key, _)| key == name);
            found.map(|(_, value)| value.into_owned())
        };
        let (sealed, cookie) = (value("request"), self.cookie(CONSENT_COOKIE));
        let (sealed, cookie) = (sealed.unwrap_or_default(), cookie.as_deref());
        if value("action").as_deref() != Some("allow") {
            let denied = self.sign_in.deny(&sealed, cookie, self.now)?;
            return Ok(self.to_client(&denied, false));
        }
        let Approved { location, cookie } = self.sign_in.approve(&sealed, cookie, self.now)?;
        let (name, value) = cookie;
        let name = format!("{LOGIN_COOKIE}{name}");
        let set = self.set_cookie(&name, &value, Some(LOGIN_COOKIE_SECONDS));
        Ok(redirect_to(&location).with("Set-Cookie", &set))
    }

    /// The provider has sent the browser back.
    fn come_back(&self) -> Result<Rendered, Problem> {
        let cookie = |end: &str| self.cookie(&format!("{LOGIN_COOKIE}{end}"));
        let returned = self.sign_in.come_back(self.query(), &cookie, self.now)?;
        let name = format!("{LOGIN_COOKIE}{}", returned.cookie);
        let unset = self.set_cookie(&name, "", Some(0));
        let answer = self.to_client(&returned.back, returned.is_signed_in);
        Ok(answer.with("Set-Cookie", &unset))
    }

    /// Back to the client: browsers follow a redirect to an app only if somebody asked for it.
    fn to_client(&self, back: &Back, is_signed_in: bool) -> Rendered {
        match destination(&back.location) {
            Destination::PrivateUse => page(pages::handover(
                self.broker(),
                &back.client_name,
                &back.location,
                is_signed_in,
            )),
            Destination::Web | Destination::Loopback => redirect_to(&back.location),
        }
    }

    fn explain(&self, problem: &Problem) -> Rendered {
        let provider = self.sign_in.upstream().name();
        let detail = problem.to_string();
        match problem {
            Problem::Store(_) | Problem::Random(_) | Problem::ProviderBroken(_) => {
                log::error!("sign-in: {detail}");
            }
            _ => log::info!("sign-in: {detail}"),
        }
        let (trouble, detail) = match problem {
            Problem::Request(why) => {
                let (what, advice) = (&*why.what, why.advice);
                (Trouble::Request { what, advice }, None)
            }
            Problem::UnknownClient => (Trouble::UnknownClient, None),
            Problem::Document(_) => (Trouble::UnknownClient, Some(&*detail)),
            Problem::Stale | Problem::LoginOver => (Trouble::Expired, None),
            Problem::OtherBrowser => (Trouble::OtherBrowser, None),
            Problem::ProviderRefused(_) => (Trouble::ProviderSaidNo { provider }, Some(&*detail)),
            Problem::ProviderDown(_) => (Trouble::ProviderUnreachable { provider }, None),
            Problem::NotAdmitted { name } => (Trouble::NotAdmitted { name, provider }, None),
            // What is wrong here is the operator's to know.
            Problem::ProviderBroken(_) | Problem::Store(_) | Problem::Random(_) => {
                (Trouble::Broken, None)
            }
        };
        page(pages::trouble(self.broker(), trouble, detail))
    }

    fn query(&self) -> &str {
        let url = self.request.url();
        url.split_once('?').map_or("", |(_, query)| query)
    }

    fn broker(&self) -> &str {
        broker(self.sign_in)
    }

    fn is_secure(&self) -> bool {
        self.sign_in.resources().issuer().starts_with("https:")
    }

    fn cookie_name(&self, name: &str) -> String {
        match self.is_secure() {
            true => format!("{HOST_PREFIX}{name}"),
            false => name.to_owned(),
        }
    }

    /// A cookie's value; of several of one name none is to be trusted.
    fn cookie(&self, name: &str) -> Option<String> {
        let name = self.cookie_name(name);
        let fields = self.request.headers().iter();
        let fields = fields.filter(|it| it.field.equiv("Cookie"));
        let pairs = fields.flat_map(|it| it.value.as_str().split(';'));
        let mut values = pairs.filter_map(|pair| {
            let (key, value) = pair.trim().split_once('=')?;
            (key == name).then_some(value)
        });
        let value = values.next()?;
        values.next().is_none().then(|| value.to_owned())
    }

    fn set_cookie(&self, name: &str, value: &str, seconds: Option<u64>) -> String {
        let mut set = format!(
            "{}={value}; Path=/; HttpOnly; SameSite=Lax",
            self.cookie_name(name)
        );
        if self.is_secure() {
            set.push_str("; Secure");
        }
        if let Some(seconds) = seconds {
            set.push_str(&format!("; Max-Age={seconds}"));
        }
        set
    }
}

/// The host of the broker's own URL.
fn broker(sign_in: &SignIn) -> &str {
    let issuer = sign_in.resources().issuer();
    issuer.split_once("://").map_or(issuer, |(_, host)| host)
}

fn destination(uri: &str) -> Destination {
    if redirect::is_loopback(uri) {
        Destination::Loopback
    } else if uri.starts_with("https://") {
        Destination::Web
    } else {
        Destination::PrivateUse
    }
}

/// Of the URL that is a client's id.
fn host_of(id: &str) -> &str {
    let rest = id.split_once("://").map_or(id, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

fn page(page: Page) -> Rendered {
    for_browsers(Rendered::html(page.status, page.html)).with("Content-Security-Policy", &page.csp)
}

fn redirect_to(location: &str) -> Rendered {
    for_browsers(Rendered::empty(303)).with("Location", location)
}

/// OAuth 2.1, section 7.9; 2026-07-28, security best practices, "Confused Deputy Problem". A
/// policy of `no-referrer` would make browsers send our own form without its `Origin`.
fn for_browsers(rendered: Rendered) -> Rendered {
    rendered
        .with("Cache-Control", "no-store")
        .with("Referrer-Policy", "same-origin")
        .with("X-Frame-Options", "DENY")
        .with("X-Content-Type-Options", "nosniff")
}
