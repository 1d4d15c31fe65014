//! The provider that users sign in with: Forgejo, Gitea, or any other by OpenID Connect.
//!
//! `discovery` finds its endpoints · `token` reads what its token endpoint says · `claims` turns
//! what it says of a user into [`SignedIn`].
mod claims;
mod discovery;
#[cfg(test)]
mod tests;
mod token;

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use super::web::{Answer, TIMEOUT, Web, WebError};
use discovery::{Discovery, Provider};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UpstreamKind {
    /// Forgejo or Gitea.
    Forgejo,
    /// Any provider of OpenID Connect; it must give an ID token.
    Oidc,
}

/// One provider, as the operator has configured it.
#[derive(Clone)]
pub(crate) struct UpstreamOptions {
    pub(crate) kind: UpstreamKind,
    /// Its issuer; one trailing slash makes no difference.
    pub(crate) url: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
    /// Separated by spaces.
    pub(crate) scopes: String,
    /// What people call it.
    pub(crate) name: String,
    pub(crate) allow: Allow,
    /// A PEM file of the roots to trust instead of the public ones.
    pub(crate) ca_file: Option<PathBuf>,
}

/// Who may enter; nobody by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Allow {
    /// Login names without regard to case, or subjects.
    pub(crate) users: Vec<String>,
    /// As the provider writes them. Of Forgejo: `org` and `org:team`.
    pub(crate) groups: Vec<String>,
    /// Without regard to case; only where the provider vouches for them.
    pub(crate) emails: Vec<String>,
    pub(crate) anyone: bool,
}

/// The tokens of one user. They are secrets.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct UpstreamTokens {
    pub(crate) access: String,
    pub(crate) refresh: Option<String>,
    /// When the access token ends. `None`: the provider does not say.
    pub(crate) expires: Option<SystemTime>,
    /// How long it lived from the start.
    pub(crate) lifetime: Option<Duration>,
    /// What the provider granted, where it says so.
    pub(crate) scope: Option<String>,
}

/// Somebody for whom the provider vouches.
#[derive(Clone, Debug)]
pub(crate) struct SignedIn {
    /// The provider, without a trailing slash.
    pub(crate) issuer: String,
    /// Unique for the issuer; has no control characters.
    pub(crate) subject: String,
    /// For people: the login name if there is one. Fit for logs and environments, 64 characters at
    /// most; who may enter is not decided by it.
    pub(crate) name: String,
    /// The login name as the provider has it (`preferred_username`).
    pub(crate) username: Option<String>,
    /// `None` also where the provider says that it is not verified.
    pub(crate) email: Option<String>,
    /// Whether the provider vouches for the address.
    pub(crate) is_email_verified: bool,
    pub(crate) groups: Vec<String>,
    pub(crate) tokens: UpstreamTokens,
}

/// By what somebody is let in, as the provider said when they signed in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Admission {
    pub(crate) username: Option<String>,
    /// Only if the provider vouches for it.
    pub(crate) email: Option<String>,
    pub(crate) groups: Vec<String>,
}

impl SignedIn {
    pub(crate) fn admission(&self) -> Admission {
        Admission {
            username: self.username.clone(),
            email: self.email.clone().filter(|_| self.is_email_verified),
            groups: self.groups.clone(),
        }
    }
}

/// Why the provider cannot be used. One line for the operator, without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UpstreamError {
    /// The provider no longer knows the user, or not yet: they must sign in again.
    SignInAgain(String),
    /// It may work later: network, overload.
    TryAgain(String),
    /// What it says makes no sense, or the configuration here is wrong.
    Broken(String),
}

/// One provider. Its endpoints are discovered when they are needed first.
pub(crate) struct Upstream {
    options: UpstreamOptions,
    web: Web,
    discovery: Discovery,
}

impl Upstream {
    /// Asks nobody yet.
    ///
    /// # Errors
    /// `Broken` for a URL that cannot be one and for a bad `ca_file`.
    pub(crate) fn new(options: UpstreamOptions) -> Result<Self, UpstreamError> {
        Self::with_timeout(options, TIMEOUT)
    }

    fn with_timeout(options: UpstreamOptions, timeout: Duration) -> Result<Self, UpstreamError> {
        let broken = |error: WebError| UpstreamError::Broken(error.to_string());
        let web = Web::new(options.ca_file.as_deref(), timeout).map_err(broken)?;
        let discovery = Discovery::new(&options.url)
            .map_err(|error| UpstreamError::Broken(format!("the provider's url: {error}")))?;
        Ok(Self {
            options,
            web,
            discovery,
        })
    }

    /// What people call the provider.
    pub(crate) fn name(&self) -> &str {
        &self.options.name
    }

    /// As [`SignedIn::issuer`] has it.
    pub(crate) fn issuer(&self) -> &str {
        self.discovery.issuer()
    }

    pub(crate) fn is_forgejo(&self) -> bool {
        self.options.kind == UpstreamKind::Forgejo
    }

    /// What is asked for at the provider, for the consent page.
    pub(crate) fn scopes(&self) -> &str {
        &self.options.scopes
    }

    /// Where to send the browser (RFC 6749 section 4.1.1, RFC 7636, OpenID Connect Core 3.1.2.1).
    /// `challenge` is that of PKCE, S256.
    ///
    /// # Errors
    /// If the provider cannot be discovered.
    pub(crate) fn authorization_url(
        &self,
        state: &str,
        challenge: &str,
        nonce: &str,
        redirect_uri: &str,
    ) -> Result<String, UpstreamError> {
        let provider = self.provider()?;
        let endpoint = &provider.authorization;
        let scopes = &self.options.scopes;
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs([
            ("response_type", "code"),
            ("client_id", &self.options.client_id),
            ("redirect_uri", redirect_uri),
            ("scope", scopes),
            ("state", state),
            ("nonce", nonce),
            ("code_challenge", challenge),
            ("code_challenge_method", "S256"),
        ]);
        // Without it providers drop that scope (OpenID Connect Core section 11).
        if scopes.split(' ').any(|scope| scope == "offline_access") {
            query.append_pair("prompt", "consent");
        }
        // An endpoint may have a query of its own (RFC 6749 section 3.1).
        let joint = match endpoint.split_once('?') {
            None => "?",
            Some((_, "")) => "",
            Some(_) => "&",
        };
        Ok(format!("{endpoint}{joint}{}", query.finish()))
    }

    /// Checks the `iss` of an authorization response (RFC 9207 section 2.4): the right one, or none
    /// from a provider that does not announce any.
    ///
    /// # Errors
    /// `Broken` for another provider's answer; else if the provider cannot be discovered.
    pub(crate) fn check_issuer(&self, iss: Option<&str>) -> Result<(), UpstreamError> {
        let is_right = match iss {
            Some(iss) => discovery::is_same_issuer(iss, self.issuer()),
            None => !self.provider()?.sends_iss,
        };
        match is_right {
            true => Ok(()),
            false => Err(UpstreamError::Broken(format!(
                "{}: the answer came from another provider: sign in again",
                self.issuer()
            ))),
        }
    }

    /// Turns a code into tokens and into who it is. `nonce` and `redirect_uri` are those of the
    /// authorization request, `verifier` is that of its challenge.
    ///
    /// # Errors
    /// `SignInAgain` for a code that is no longer good.
    pub(crate) fn exchange(
        &self,
        code: &str,
        verifier: &str,
        nonce: &str,
        redirect_uri: &str,
    ) -> Result<SignedIn, UpstreamError> {
        let provider = self.provider()?;
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect_uri),
            ("code_verifier", verifier),
        ];
        let granted = self.ask_for_tokens(&provider, &form)?;
        let id = match &granted.id_token {
            Some(token) => {
                let expected = claims::Expected {
                    issuer: &provider.issuer,
                    client_id: &self.options.client_id,
                    nonce,
                };
                Some(claims::read_id_token(token, &expected, SystemTime::now())?)
            }
            None if self.options.kind == UpstreamKind::Forgejo => None,
            None => return Err(claims::no_id_token(self.issuer())),
        };
        let info = self.user_info(&provider, &granted.tokens.access)?;
        claims::combine(self.issuer(), id, info, granted.tokens)
    }

    /// Trades a refresh token for new tokens. One user's refreshes must not run side by side: the
    /// provider may take the second for theft.
    ///
    /// # Errors
    /// `SignInAgain` once the provider no longer accepts the token.
    pub(crate) fn refresh(&self, refresh_token: &str) -> Result<UpstreamTokens, UpstreamError> {
        let provider = self.provider()?;
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token),
        ];
        let mut tokens = self.ask_for_tokens(&provider, &form)?.tokens;
        // RFC 6749 section 6: none in the answer means that the old one stays.
        tokens
            .refresh
            .get_or_insert_with(|| refresh_token.to_owned());
        Ok(tokens)
    }

    /// Whether the operator lets this user in.
    pub(crate) fn admits(&self, subject: &str, admission: &Admission) -> bool {
        self.options.allow.admits(subject, admission)
    }

    fn provider(&self) -> Result<std::sync::Arc<Provider>, UpstreamError> {
        self.discovery.provider(&self.web, Instant::now())
    }

    fn ask_for_tokens(
        &self,
        provider: &Provider,
        form: &[(&str, &str)],
    ) -> Result<token::Granted, UpstreamError> {
        let client = (&*self.options.client_id, &*self.options.client_secret);
        let mut form = form.to_vec();
        let basic = match provider.takes_secret_in_body {
            true => {
                form.extend([("client_id", client.0), ("client_secret", client.1)]);
                None
            }
            false => Some(client),
        };
        // Counted from before the request, so that a token never seems to live longer than it does.
        let asked = SystemTime::now();
        let answer = self.web.post_form(&provider.token, &form, basic)?;
        let secrets: Vec<&str> = form.iter().map(|(_, value)| *value).collect();
        let context = token::Context {
            place: self.issuer(),
            secrets: &[&secrets[1..], &[client.1]].concat(),
        };
        token::read(&answer, &context, asked)
    }

    /// What the provider says of the user (OpenID Connect Core section 5.3), if it has such an
    /// endpoint.
    fn user_info(
        &self,
        provider: &Provider,
        access: &str,
    ) -> Result<Option<claims::Claims>, UpstreamError> {
        let Some(endpoint) = &provider.user_info else {
            return Ok(None);
        };
        let Answer { status, body, .. } = self.web.get_json(endpoint, Some(access))?;
        let says = format!("{}: its userinfo endpoint", self.issuer());
        match status {
            200 => claims::read_user_info(&body)
                .map(Some)
                .ok_or_else(|| UpstreamError::Broken(format!("{says} does not answer in JSON"))),
            401 => Err(UpstreamError::SignInAgain(format!(
                "{says} does not accept the token that the provider has just given"
            ))),
            status => Err(of_status(&says, status)),
        }
    }
}

impl Allow {
    fn admits(&self, subject: &str, admission: &Admission) -> bool {
        // Only ASCII letters have two cases here: others have look-alikes that fold to ASCII.
        let is_among = |list: &[String], text: &Option<String>| {
            let text = text.as_deref();
            text.is_some_and(|text| list.iter().any(|it| it.eq_ignore_ascii_case(text)))
        };
        self.anyone
            || is_among(&self.users, &admission.username)
            || self.users.iter().any(|it| it == subject)
            || self
                .groups
                .iter()
                .any(|group| admission.groups.contains(group))
            || is_among(&self.emails, &admission.email)
    }
}

/// A status that is no answer.
fn of_status(says: &str, status: u16) -> UpstreamError {
    match status {
        // 403 comes from what stands before a provider, when it is under attack or being moved.
        403 | 408 | 429 | 500.. => UpstreamError::TryAgain(format!(
            "{says} answers with status {status}: try again later"
        )),
        status => UpstreamError::Broken(format!(
            "{says} answers with status {status}: check the provider's url"
        )),
    }
}

impl From<WebError> for UpstreamError {
    fn from(error: WebError) -> Self {
        let why = error.to_string();
        match error {
            WebError::Unreachable { .. }
            | WebError::Tls { .. }
            | WebError::Timeout { .. }
            | WebError::NotPublic { .. }
            | WebError::Busy => Self::TryAgain(why),
            WebError::Url { .. }
            | WebError::TooLarge { .. }
            | WebError::Redirect { .. }
            | WebError::Status { .. }
            | WebError::Content { .. }
            | WebError::CaFile { .. } => Self::Broken(why),
        }
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SignInAgain(why) | Self::TryAgain(why) | Self::Broken(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for UpstreamError {}

impl fmt::Debug for UpstreamTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamTokens")
            .field("has_refresh", &self.refresh.is_some())
            .field("expires", &self.expires)
            .field("lifetime", &self.lifetime)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for UpstreamOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamOptions")
            .field("kind", &self.kind)
            .field("url", &self.url)
            .field("client_id", &self.client_id)
            .field("scopes", &self.scopes)
            .field("name", &self.name)
            .field("allow", &self.allow)
            .field("ca_file", &self.ca_file)
            .finish_non_exhaustive()
    }
}
