//! The way of a browser: from a client's authorization request to our page, to the provider, and
//! back to the client with a code.
//!
//! The order is the security of it: nothing is stored and nobody is sent to the provider before
//! the user has agreed on our own page (2026-07-28, security best practices, "Confused Deputy
//! Problem"). Until then the request rides, sealed, in the page itself.

use std::fmt;
use std::io;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::SignIn;
use super::clients::NoClient;
use crate::auth::oauth::authorize::{self, PageError, Refusal, Request};
use crate::auth::oauth::client::pinned;
use crate::auth::oauth::token::challenge_of;
use crate::auth::oauth::{self, Client, Hash, redirect};
use crate::auth::store::{Login, NewGrant, StoreError, User};
use crate::auth::tokens::seconds;
use crate::auth::upstream::{SignedIn, UpstreamError};

/// How long our page may stay open.
const CONSENT_LIFETIME: Duration = Duration::from_mins(30);
/// What a sealed request is sealed for.
const CONSENT: &[u8] = b"consent";

/// What the user is asked.
pub(crate) struct Consent {
    pub(crate) request: Request,
    pub(crate) client: Client,
    /// The request, for the page to bring back.
    pub(crate) sealed: String,
    /// The cookie that the page must be brought back with.
    pub(crate) cookie: String,
}

/// The user has agreed.
pub(crate) struct Approved {
    /// The provider.
    pub(crate) location: String,
    /// The cookie that the browser must come back from there with: its name's end, and its value.
    pub(crate) cookie: (String, String),
}

/// The way back to the client.
pub(crate) struct Back {
    pub(crate) client_name: String,
    pub(crate) location: String,
}

/// The user is back from the provider.
pub(crate) struct Returned {
    pub(crate) back: Back,
    pub(crate) is_signed_in: bool,
    /// The end of the name of the cookie that was good for this.
    pub(crate) cookie: String,
}

/// Why a browser cannot go on: what a page says.
#[derive(Debug)]
pub(crate) enum Problem {
    /// The client's request is wrong, and it cannot be told.
    Request(PageError),
    UnknownClient,
    /// Its document cannot be had, or is wrong.
    Document(String),
    /// The page was open for too long, or was not ours.
    Stale,
    /// Not the browser that began, or it has lost its cookies.
    OtherBrowser,
    /// The login is used, or took too long.
    LoginOver,
    /// The provider does not let the user in; what it says.
    ProviderRefused(String),
    /// The provider cannot be reached.
    ProviderDown(String),
    /// What the provider says makes no sense, or it does not know us.
    ProviderBroken(String),
    NotAdmitted {
        name: String,
    },
    Store(StoreError),
    Random(io::Error),
}

impl SignIn {
    /// An authorization request (OAuth 2.1, section 4.1.1). `cookie` is what the browser has from
    /// an earlier page.
    ///
    /// # Errors
    /// What a page says, or where the client is to be told.
    pub(crate) fn ask(
        &self,
        query: &str,
        cookie: Option<&str>,
        now: SystemTime,
    ) -> Result<Consent, Result<String, Problem>> {
        let asked = authorize::read(query).map_err(|why| Err(Problem::Request(why)))?;
        let client = self.client(&asked.client_id);
        let client = client.map_err(|why| Err(Problem::from(why)))?;
        let request = asked.check(&client, &self.options.resources);
        let request = request.map_err(|why| match why {
            Refusal::Redirect(location) if is_trusted(&client, &location) => Ok(location),
            why => Err(Problem::Request(why.into_page())),
        })?;
        let cookie = match cookie.filter(|it| is_ours(it)) {
            // Pages in two tabs are both good.
            Some(cookie) => cookie.to_owned(),
            None => oauth::mint("").map_err(|why| Err(Problem::Random(why)))?,
        };
        let until = seconds(now + CONSENT_LIFETIME);
        let sealed = json!([request.to_json(), hex::encode(oauth::hash(&cookie)), until]);
        let sealed = self.key.seal(CONSENT, sealed.to_string().as_bytes());
        let sealed = sealed.map_err(|why| Err(Problem::Store(why)))?;
        Ok(Consent {
            request,
            client,
            sealed: URL_SAFE_NO_PAD.encode(sealed),
            cookie,
        })
    }

    /// The request of a page that came back.
    fn unseal(
        &self,
        sealed: &str,
        cookie: Option<&str>,
        now: SystemTime,
    ) -> Result<Request, Problem> {
        let sealed = URL_SAFE_NO_PAD.decode(sealed).map_err(|_| Problem::Stale)?;
        let text = self.key.open(CONSENT, &sealed);
        let text = text.map_err(|_| Problem::Stale)?;
        let parts: (String, String, u64) =
            serde_json::from_slice(&text).map_err(|_| Problem::Stale)?;
        let (request, browser, until) = parts;
        let cookie = cookie.ok_or(Problem::OtherBrowser)?;
        // Both are hashes: comparing them tells nothing about what was hashed.
        if browser != hex::encode(oauth::hash(cookie)) {
            return Err(Problem::OtherBrowser);
        }
        if seconds(now) >= until {
            return Err(Problem::Stale);
        }
        Request::from_json(&request).ok_or(Problem::Stale)
    }

    /// The user has said no: where the client is told.
    ///
    /// # Errors
    /// What a page says.
    pub(crate) fn deny(
        &self,
        sealed: &str,
        cookie: Option<&str>,
        now: SystemTime,
    ) -> Result<Back, Problem> {
        let request = self.unseal(sealed, cookie, now)?;
        Ok(self.refusal(&request, "access_denied", "the user said no"))
    }

    /// The user has agreed: the way to the provider. Only now anything is kept of it.
    ///
    /// # Errors
    /// What a page says.
    pub(crate) fn approve(
        &self,
        sealed: &str,
        cookie: Option<&str>,
        now: SystemTime,
    ) -> Result<Approved, Problem> {
        let request = self.unseal(sealed, cookie, now)?;
        let mint = || oauth::mint("").map_err(Problem::Random);
        let (state, browser, verifier, nonce) = (mint()?, mint()?, mint()?, mint()?);
        let challenge = challenge_of(&verifier);
        let callback = self.callback_uri();
        let upstream = &self.options.upstream;
        let location = upstream.authorization_url(&state, &challenge, &nonce, &callback)?;
        let login = Login {
            request,
            browser: oauth::hash(&browser),
            verifier,
            nonce,
        };
        let state = oauth::hash(&state);
        self.store.add_login(&state, &login, now)?;
        Ok(Approved {
            location,
            cookie: (cookie_of(&state), browser),
        })
    }

    /// The browser is back from the provider. `cookie` reads its cookies, by the ends of their
    /// names.
    ///
    /// # Errors
    /// What a page says.
    pub(crate) fn come_back(
        &self,
        query: &str,
        cookie: &dyn Fn(&str) -> Option<String>,
        now: SystemTime,
    ) -> Result<Returned, Problem> {
        let parameter = |name: &str| {
            let mut all = form_urlencoded::parse(query.as_bytes());
            all.find(|(key, _)| key == name)
                .map(|(_, it)| it.into_owned())
        };
        let state = oauth::hash(&parameter("state").ok_or(Problem::LoginOver)?);
        let cookie_end = cookie_of(&state);
        let browser = cookie(&cookie_end).ok_or(Problem::OtherBrowser)?;
        let login = self.store.take_login(&state, now)?;
        let login = login.ok_or(Problem::LoginOver)?;
        if login.browser != oauth::hash(&browser) {
            return Err(Problem::OtherBrowser);
        }
        let Login {
            request,
            verifier,
            nonce,
            ..
        } = login;
        // RFC 9207, section 2.4: before an error too is taken for this provider's.
        let upstream = &self.options.upstream;
        upstream.check_issuer(parameter("iss").as_deref())?;
        if let Some(error) = parameter("error") {
            return Ok(Returned {
                back: self.sent_back(&request, &error)?,
                is_signed_in: false,
                cookie: cookie_end,
            });
        }
        let code = parameter("code").ok_or(Problem::LoginOver)?;
        let who = upstream.exchange(&code, &verifier, &nonce, &self.callback_uri())?;
        if !upstream.admits(&who.subject, &who.admission()) {
            log::warn!("sign-in refused user={:?}: not on the list", who.name);
            return Err(Problem::NotAdmitted { name: who.name });
        }
        Ok(Returned {
            back: self.let_in(request, who, now)?,
            is_signed_in: true,
            cookie: cookie_end,
        })
    }

    /// What the provider says instead of a code.
    fn sent_back(&self, request: &Request, error: &str) -> Result<Back, Problem> {
        match error {
            "access_denied" => Ok(self.refusal(request, error, "the user said no at the provider")),
            "temporarily_unavailable" | "server_error" => {
                Err(Problem::ProviderDown(printable(error)))
            }
            other => Err(Problem::ProviderRefused(printable(other))),
        }
    }

    /// The user is who they say, and may come in.
    fn let_in(&self, request: Request, who: SignedIn, now: SystemTime) -> Result<Back, Problem> {
        let admission = who.admission();
        let user = User {
            issuer: who.issuer,
            subject: who.subject,
            name: who.name,
            email: who.email,
        };
        let key = (user.issuer.as_str().into(), user.subject.as_str().into());
        {
            // What a refresh under way brings is older than this.
            let _flight = self.renewals.alone(&key);
            let (
                store,
                User {
                    issuer, subject, ..
                },
            ) = (&self.store, &user);
            store.save_user(&user, &who.tokens, now)?;
            store.save_admission(issuer, subject, &admission)?;
            self.renewals.replaced(&key);
        }
        let code = oauth::mint("mcpc_").map_err(Problem::Random)?;
        let id = oauth::mint("").map_err(Problem::Random)?;
        let grant = NewGrant {
            grant: id,
            issuer: user.issuer,
            subject: user.subject,
            client_id: request.client_id.clone(),
            client_name: request.client_name.clone(),
            resource: request.resource.clone(),
            scope: request.scope.clone(),
            redirect_uri: request.redirect_uri.clone(),
            challenge: request.challenge.clone(),
            expires: now + self.options.grant_lifetime,
        };
        let dropped = self.store.add_code(&oauth::hash(&code), &grant, now)?;
        if !dropped.is_empty() {
            self.reload(now)?;
        }
        log::info!(
            "sign-in user={} client={:?} server={}",
            user.name,
            request.client_name,
            request.resource.server
        );
        let issuer = self.options.resources.issuer();
        Ok(Back {
            location: authorize::success_location(&request, &code, issuer),
            client_name: request.client_name,
        })
    }

    fn refusal(&self, request: &Request, error: &str, description: &str) -> Back {
        let location = authorize::error_location(
            &request.redirect_uri,
            request.state.as_deref(),
            self.options.resources.issuer(),
            error,
            description,
        );
        Back {
            client_name: request.client_name.clone(),
            location,
        }
    }

    /// Where the provider sends browsers: one path for one provider, so that no other's answer can
    /// be taken for it (2026-07-28, authorization, "Mix-Up Attacks").
    pub(crate) fn callback_uri(&self) -> String {
        format!("{}/oauth/callback", self.options.resources.issuer())
    }
}

/// Whether a browser may be sent there although nobody has agreed to anything. Anybody can register
/// a client, or have a document, with any address: a link to us shall not lead there by itself
/// (S10, S11; OAuth 2.1, section 7.12.2).
fn is_trusted(client: &Client, location: &str) -> bool {
    let address = location.split('?').next().unwrap_or_default();
    pinned(&client.id).is_some() || redirect::is_loopback(address)
}

/// Two logins at a time in one browser have a cookie each.
fn cookie_of(state: &Hash) -> String {
    hex::encode(&state[..8])
}

/// As [`oauth::mint`] makes them.
fn is_ours(cookie: &str) -> bool {
    let decoded = URL_SAFE_NO_PAD.decode(cookie);
    decoded.is_ok_and(|bytes| bytes.len() == size_of::<Hash>())
}

/// An error code of somebody else, for a page and the log.
fn printable(code: &str) -> String {
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || "_-.".contains(*c);
    code.chars().filter(is_plain).take(64).collect()
}

impl From<NoClient> for Problem {
    fn from(why: NoClient) -> Self {
        match why {
            NoClient::Unknown => Self::UnknownClient,
            NoClient::Unreachable(why) => Self::Document(why.to_string()),
            NoClient::Wrong(why) => Self::Document(why.to_string()),
            NoClient::Store(why) => Self::Store(why),
        }
    }
}

impl From<UpstreamError> for Problem {
    fn from(why: UpstreamError) -> Self {
        match why {
            UpstreamError::SignInAgain(why) => Self::ProviderRefused(why),
            UpstreamError::TryAgain(why) => Self::ProviderDown(why),
            UpstreamError::Broken(why) => Self::ProviderBroken(why),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(why: StoreError) -> Self {
        Self::Store(why)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(why) => f.write_str(&why.what),
            Self::UnknownClient => f.write_str("the client is not known"),
            Self::Document(why) => write!(f, "the client's document: {why}"),
            Self::Stale => f.write_str("the page was open for too long"),
            Self::OtherBrowser => f.write_str("another browser, or one that keeps no cookies"),
            Self::LoginOver => f.write_str("the login is used, or took too long"),
            Self::ProviderRefused(why) => write!(f, "the provider refused: {why}"),
            Self::ProviderDown(why) => write!(f, "the provider cannot be reached: {why}"),
            Self::ProviderBroken(why) => write!(f, "the provider: {why}"),
            Self::NotAdmitted { name } => write!(f, "user {name:?} is not on the list"),
            Self::Store(why) => why.fmt(f),
            Self::Random(why) => write!(f, "the operating system gave no random numbers: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::oauth::ClientAuth;
    use crate::auth::oauth::ClientKind;

    /// S10, S11: of whom a browser is sent away from, unasked.
    #[test]
    fn nobody_is_sent_to_a_strangers_address_by_an_error() {
        let claude = "https://claude.ai/oauth/mcp-oauth-client-metadata";
        let long = format!(
            "http://127.0.0.1:4444/cb?error=x&state={}",
            "s".repeat(2048)
        );
        for (id, location, expected) in [
            ("client-x", "https://app.example/cb?error=x", false),
            ("client-x", "com.example.app:/cb?error=x", false),
            (
                "https://app.example/c.json",
                "https://app.example/cb?error=x",
                false,
            ),
            ("https://app.example/c.json", &*long, true),
            ("client-x", "http://localhost/cb?error=x", true),
            (
                claude,
                "https://claude.ai/api/mcp/auth_callback?error=x",
                true,
            ),
        ] {
            let client = Client {
                id: id.to_owned(),
                name: "A client".to_owned(),
                redirect_uris: Vec::new(),
                auth: ClientAuth::None,
                kind: ClientKind::Registered,
            };
            assert_eq!(is_trusted(&client, location), expected, "{id} {location}");
        }
        let told =
            "https://a.example/?error_description=theirs&error=e&error_description=ours+it+is";
        let page = Refusal::Redirect(told.to_owned()).into_page();
        assert!(page.what.ends_with(": ours it is."), "{}", page.what);
    }
}
