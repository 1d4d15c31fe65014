//! The back channel: what clients send to the token and revocation endpoints, and what they get
//! (OAuth 2.1, section 3.2; RFC 7636; RFC 7009). All bodies are forms, all answers JSON.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::form::{Fault, Form, MAX_LONG, MAX_SHORT};
use super::{Client, ClientAuth, hash, is_same};

const PARAMETERS: &[&str] = &[
    "grant_type",
    "client_id",
    "client_secret",
    "client_assertion",
    "client_assertion_type",
    "code",
    "redirect_uri",
    "code_verifier",
    "refresh_token",
    "scope",
    "resource",
    "token",
];

/// An error of the back channel (RFC 6749, section 5.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenError {
    pub(crate) code: &'static str,
    /// ASCII without quotes.
    pub(crate) description: String,
}

impl TokenError {
    fn new(code: &'static str, description: impl Into<String>) -> Self {
        Self {
            code,
            description: description.into(),
        }
    }

    pub(crate) fn invalid_request(description: impl Into<String>) -> Self {
        Self::new("invalid_request", description)
    }

    /// The code or the refresh token is no good: clients start over.
    pub(crate) fn invalid_grant(description: impl Into<String>) -> Self {
        Self::new("invalid_grant", description)
    }

    /// The resource is not one of ours, or not the one of the code.
    pub(crate) fn invalid_target(description: impl Into<String>) -> Self {
        Self::new("invalid_target", description)
    }

    /// It will be all right later: the store, or the provider behind us, cannot be reached.
    pub(crate) fn unavailable(description: impl Into<String>) -> Self {
        Self::new("temporarily_unavailable", description)
    }

    /// The client is unknown, or is not who it says: clients register again.
    pub(crate) fn invalid_client() -> Self {
        Self::new(
            "invalid_client",
            "the client is unknown, or its secret wrong",
        )
    }

    /// The HTTP status.
    pub(crate) fn status(&self) -> u16 {
        match self.code {
            "invalid_client" => 401,
            "temporarily_unavailable" => 503,
            _ => 400,
        }
    }

    /// The `WWW-Authenticate` that goes with it where the request's `Authorization` field was meant
    /// to authenticate the client (RFC 6749, section 5.2).
    pub(crate) fn challenge(&self, authorization: Option<&str>) -> Option<&'static str> {
        let is_due = self.status() == 401 && authorization.is_some_and(is_basic);
        is_due.then_some("Basic realm=\"oauth\"")
    }

    pub(crate) fn to_json(&self) -> String {
        json!({ "error": self.code, "error_description": self.description }).to_string()
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.description)
    }
}

impl std::error::Error for TokenError {}

/// Who a client says it is, and how it shows that.
pub(crate) struct ClientProof {
    pub(crate) id: String,
    secret: Option<String>,
}

impl ClientProof {
    /// Whether it is the client of that id. A public client that sends a secret has mistaken itself
    /// for another.
    pub(crate) fn proves(&self, client: &Client) -> bool {
        let is_right = match (&client.auth, &self.secret) {
            (ClientAuth::None, secret) => secret.is_none(),
            (ClientAuth::Secret(_), None) => false,
            (ClientAuth::Secret(known), Some(secret)) => is_same(known, &hash(secret)),
        };
        is_right && client.id == self.id
    }
}

/// What a client wants of the token endpoint.
pub(crate) enum TokenRequest {
    Code {
        client: ClientProof,
        code: String,
        /// To be compared where it is given: OAuth 2.1 no longer asks for it.
        redirect_uri: Option<String>,
        verifier: String,
        resource: Option<String>,
    },
    Refresh {
        client: ClientProof,
        refresh_token: String,
        resource: Option<String>,
    },
}

/// What a client wants to be forgotten (RFC 7009). Which kind of token it is shows in the token.
pub(crate) struct Revocation {
    pub(crate) client: ClientProof,
    pub(crate) token: String,
}

/// Reads a form sent to the token endpoint, with the request's `Authorization` field.
pub(crate) fn read_token_request(
    body: &str,
    authorization: Option<&str>,
) -> Result<TokenRequest, TokenError> {
    let form = Body::read(body)?;
    let grant_type = form.needed("grant_type", MAX_SHORT)?;
    if !["authorization_code", "refresh_token"].contains(&grant_type.as_str()) {
        let why = "grant_type must be authorization_code or refresh_token";
        return Err(TokenError::new("unsupported_grant_type", why));
    }
    let client = form.client(authorization)?;
    let resource = form.resource()?;
    Ok(match grant_type.as_str() {
        "authorization_code" => TokenRequest::Code {
            client,
            code: form.needed("code", MAX_SHORT)?,
            redirect_uri: form.one("redirect_uri", MAX_LONG)?,
            verifier: form.needed("code_verifier", MAX_SHORT)?,
            resource,
        },
        _ => {
            // Nothing depends on it, as there is but one scope to have.
            form.one("scope", MAX_SHORT)?;
            TokenRequest::Refresh {
                client,
                refresh_token: form.needed("refresh_token", MAX_SHORT)?,
                resource,
            }
        }
    })
}

/// Reads a form sent to the revocation endpoint.
pub(crate) fn read_revocation(
    body: &str,
    authorization: Option<&str>,
) -> Result<Revocation, TokenError> {
    let form = Body::read(body)?;
    Ok(Revocation {
        client: form.client(authorization)?,
        token: form.needed("token", MAX_LONG)?,
    })
}

struct Body(Form);

impl Body {
    fn read(body: &str) -> Result<Self, TokenError> {
        let form = Form::read(body, PARAMETERS);
        form.map(Self)
            .ok_or_else(|| TokenError::invalid_request("the body is too long"))
    }

    fn one(&self, name: &str, longest: usize) -> Result<Option<String>, TokenError> {
        let faulty =
            |fault: Fault| TokenError::invalid_request(format!("{name} {}", fault.predicate()));
        let value = self.0.one(name, longest).map_err(faulty)?;
        Ok(value.map(str::to_owned))
    }

    fn needed(&self, name: &str, longest: usize) -> Result<String, TokenError> {
        let value = self.one(name, longest)?;
        value.ok_or_else(|| TokenError::invalid_request(format!("{name} is missing")))
    }

    fn resource(&self) -> Result<Option<String>, TokenError> {
        let mut named = self.0.all("resource").filter(|it| !it.is_empty());
        match (named.next(), named.next()) {
            (_, Some(_)) => Err(TokenError::invalid_target("more than one resource")),
            (Some(uri), None) if uri.len() > MAX_LONG => {
                Err(TokenError::invalid_target("resource is too long"))
            }
            (uri, None) => Ok(uri.map(str::to_owned)),
        }
    }

    /// Who sent it: by the field or by the body, never by both (RFC 6749, section 2.3). Naming the
    /// same id twice is no second method.
    fn client(&self, authorization: Option<&str>) -> Result<ClientProof, TokenError> {
        let id = self.one("client_id", MAX_LONG)?;
        let secret = self.one("client_secret", MAX_SHORT)?;
        let is_asserted = self.one("client_assertion", usize::MAX)?.is_some()
            || self.one("client_assertion_type", usize::MAX)?.is_some();
        if is_asserted {
            let why = "client assertions are not supported";
            return Err(TokenError::new("invalid_client", why));
        }
        if let Some(field) = authorization.filter(|field| is_basic(field)) {
            let proof = basic(field).ok_or_else(|| {
                TokenError::new("invalid_client", "the Authorization field cannot be read")
            })?;
            return match secret.is_some() || id.is_some_and(|id| id != proof.id) {
                true => Err(TokenError::invalid_request(
                    "the client authenticates in the header and in the body",
                )),
                false => Ok(proof),
            };
        }
        let id = id.ok_or_else(|| TokenError::new("invalid_client", "client_id is missing"))?;
        Ok(ClientProof { id, secret })
    }
}

/// Whether a field authenticates a client. One of another scheme does not: some programs send their
/// `Bearer` everywhere.
fn is_basic(field: &str) -> bool {
    let scheme = field.trim().split(' ').next().unwrap_or_default();
    scheme.eq_ignore_ascii_case("basic")
}

/// Id and secret of a `Basic` field, each encoded as in a form (RFC 6749, section 2.3.1).
fn basic(field: &str) -> Option<ClientProof> {
    let (_, encoded) = field.trim().split_once(' ')?;
    if encoded.len() > 2 * MAX_LONG {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = pair.split_once(':')?;
    let id = form_decoded(id)?;
    let secret = Some(form_decoded(secret)?).filter(|secret| !secret.is_empty());
    (!id.is_empty()).then_some(ClientProof { id, secret })
}

/// One value of a form, alone.
fn form_decoded(text: &str) -> Option<String> {
    if text.contains('&') {
        return None; // it would start another value
    }
    let form = format!("it={text}");
    let (_, value) = form_urlencoded::parse(form.as_bytes()).next()?;
    Some(value.into_owned())
}

/// Whether a text can be a verifier or a challenge (RFC 7636, section 4).
pub(super) fn is_pkce_text(text: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    (43..=128).contains(&text.len()) && text.bytes().all(valid)
}

/// The S256 challenge of a verifier (RFC 7636, section 4.2).
pub(crate) fn challenge_of(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()))
}

/// Whether the one who has the code is the one who asked for it (RFC 7636, section 4.6). A verifier
/// against its grammar matches nothing.
pub(crate) fn pkce_matches(verifier: &str, challenge: &str) -> bool {
    let computed = challenge_of(verifier);
    is_pkce_text(verifier) && is_same(computed.as_bytes(), challenge.as_bytes())
}

/// The answer to a granted request, `200`.
pub(crate) fn token_response(
    access: &str,
    refresh: &str,
    lifetime: Duration,
    scope: &str,
) -> String {
    json!({
        "access_token": access,
        "token_type": "Bearer",
        "expires_in": lifetime.as_secs(),
        "refresh_token": refresh,
        "scope": scope,
    })
    .to_string()
}
