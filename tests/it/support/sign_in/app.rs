//! An OAuth client as small as it can be: registers, asks, takes what it gets.

use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::browser::{encode, location, parameter};
use super::{Browser, Site};
use crate::support::Response;

/// What the token endpoint gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(crate) access: String,
    pub(crate) refresh: String,
}

impl Tokens {
    /// Those of a response that must have them (RFC 6749, section 5.1).
    #[track_caller]
    pub(crate) fn of(response: &Response) -> Self {
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.header("Cache-Control"), Some("no-store"));
        let json = response.json();
        assert_eq!(json["token_type"], "Bearer", "{json}");
        let text = |name: &str| json[name].as_str().expect("a token").to_owned();
        Self {
            access: text("access_token"),
            refresh: text("refresh_token"),
        }
    }
}

/// A client and one request of it.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) id: String,
    pub(crate) redirect_uri: String,
    /// What it asks to use.
    pub(crate) resource: Option<String>,
    pub(crate) state: String,
    pub(crate) verifier: String,
}

impl App {
    /// Registers with this one redirect URI.
    #[track_caller]
    pub(crate) fn register(site: &Site, redirect_uri: &str) -> Self {
        let response = site.post_json(
            "/oauth/register",
            &json!({
                "client_name": "An app",
                "redirect_uris": [redirect_uri],
                "token_endpoint_auth_method": "none",
            }),
        );
        assert_eq!(response.status, 201, "{}", response.text());
        let id = response.json()["client_id"]
            .as_str()
            .expect("an id")
            .to_owned();
        Self::known(&id, redirect_uri)
    }

    /// One that has an id.
    pub(crate) fn known(id: &str, redirect_uri: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let no = COUNT.fetch_add(1, Ordering::Relaxed);
        Self {
            id: id.to_owned(),
            redirect_uri: redirect_uri.to_owned(),
            resource: None,
            state: format!("state+{no}&="),
            verifier: format!("{no:-<8}a-verifier-that-has-as-many-characters"),
        }
    }

    /// For a server of the site.
    pub(crate) fn at(mut self, resource: &str) -> Self {
        self.resource = Some(resource.to_owned());
        self
    }

    pub(crate) fn challenge(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(self.verifier.as_bytes()))
    }

    /// Where it sends the user's browser.
    pub(crate) fn url(&self, site: &Site) -> String {
        self.url_with(site, &[])
    }

    /// The same with other parameters, of which an empty one is left out.
    pub(crate) fn url_with(&self, site: &Site, changes: &[(&str, &str)]) -> String {
        let challenge = self.challenge();
        let mut query = vec![
            ("response_type", "code"),
            ("client_id", &self.id),
            ("redirect_uri", &self.redirect_uri),
            ("state", &self.state),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        query.extend(self.resource.as_deref().map(|it| ("resource", it)));
        for (name, value) in changes {
            query.retain(|(other, _)| other != name);
            if !value.is_empty() {
                query.push((name, value));
            }
        }
        format!("{}/oauth/authorize?{}", site.issuer, encode(&query))
    }

    /// Takes the code from where the browser was sent, with all that a client must look at.
    #[track_caller]
    pub(crate) fn code(&self, site: &Site, back: &str) -> String {
        assert!(back.starts_with(&self.redirect_uri), "{back}");
        assert_eq!(
            parameter(back, "state").as_ref(),
            Some(&self.state),
            "{back}"
        );
        assert_eq!(
            parameter(back, "iss").as_ref(),
            Some(&site.issuer),
            "{back}"
        );
        parameter(back, "code").unwrap_or_else(|| panic!("no code in {back}"))
    }

    /// The error that came instead.
    #[track_caller]
    pub(crate) fn error(&self, site: &Site, response: &Response) -> String {
        let back = location(response);
        assert!(back.starts_with(&self.redirect_uri), "{back}");
        assert_eq!(
            parameter(&back, "state").as_ref(),
            Some(&self.state),
            "{back}"
        );
        assert_eq!(
            parameter(&back, "iss").as_ref(),
            Some(&site.issuer),
            "{back}"
        );
        assert_eq!(parameter(&back, "code"), None, "{back}");
        parameter(&back, "error").unwrap_or_else(|| panic!("no error in {back}"))
    }

    /// Takes a code to the token endpoint.
    #[track_caller]
    pub(crate) fn redeem(&self, site: &Site, code: &str) -> Response {
        self.redeem_with(site, code, &[])
    }

    /// The same with other parameters, of which an empty one is left out.
    #[track_caller]
    pub(crate) fn redeem_with(
        &self,
        site: &Site,
        code: &str,
        changes: &[(&str, &str)],
    ) -> Response {
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("client_id", &self.id),
            ("code", code),
            ("redirect_uri", &self.redirect_uri),
            ("code_verifier", &self.verifier),
        ];
        form.extend(self.resource.as_deref().map(|it| ("resource", it)));
        for (name, value) in changes {
            form.retain(|(other, _)| other != name);
            if !value.is_empty() {
                form.push((name, value));
            }
        }
        site.post_form("/oauth/token", &form)
    }

    #[track_caller]
    pub(crate) fn refresh(&self, site: &Site, tokens: &Tokens) -> Response {
        let mut form = vec![
            ("grant_type", "refresh_token"),
            ("client_id", &self.id),
            ("refresh_token", &tokens.refresh),
        ];
        form.extend(self.resource.as_deref().map(|it| ("resource", it)));
        site.post_form("/oauth/token", &form)
    }

    /// The next tokens, which there must be.
    #[track_caller]
    pub(crate) fn renewed(&self, site: &Site, tokens: &Tokens) -> Tokens {
        Tokens::of(&self.refresh(site, tokens))
    }

    #[track_caller]
    pub(crate) fn revoke(&self, site: &Site, token: &str) -> Response {
        site.post_form(
            "/oauth/revoke",
            &[("client_id", &self.id), ("token", token)],
        )
    }

    /// The code of a user who signs in and agrees to everything.
    #[track_caller]
    pub(crate) fn obtain_code(&self, site: &Site, browser: &mut Browser, user: &str) -> String {
        let back = browser.sign_in(site, &self.url(site), user);
        self.code(site, &back)
    }

    /// The tokens of a user who signs in and agrees to everything.
    #[track_caller]
    pub(crate) fn sign_in(&self, site: &Site, browser: &mut Browser, user: &str) -> Tokens {
        let code = self.obtain_code(site, browser, user);
        Tokens::of(&self.redeem(site, &code))
    }
}

/// The error code of an answer of the token endpoint, which nobody may keep.
#[track_caller]
pub(crate) fn refusal(response: &Response) -> (u16, String) {
    assert_eq!(response.header("Cache-Control"), Some("no-store"));
    let error = response.json()["error"].as_str().map(str::to_owned);
    let error = error.unwrap_or_else(|| panic!("{}", response.text()));
    (response.status, error)
}
