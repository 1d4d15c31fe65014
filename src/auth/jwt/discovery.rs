//! Where the outside server's keys are: as configured, else as its discovery document says (RFC
//! 8414, section 3; OpenID Connect Discovery 1.0, section 4). The fetching itself is the caller's.

use serde_json::Value;

use super::strict;
use super::{Fetched, KeySource};

/// Fetches keys with a function that fetches a URL.
pub(crate) struct KeysByUrl<G> {
    issuer: String,
    /// `None`: by discovery, each time anew, as it is needed no more often than the keys are.
    jwks_url: Option<String>,
    get: G,
}

impl<G: Fn(&str) -> Result<Fetched, String> + Send + Sync> KeysByUrl<G> {
    /// `get` fetches a URL; it takes an answer other than 200 for an error.
    pub(crate) fn new(issuer: &str, jwks_url: Option<&str>, get: G) -> Self {
        Self {
            issuer: issuer.to_owned(),
            jwks_url: jwks_url.map(str::to_owned),
            get,
        }
    }

    fn discover(&self) -> Result<String, String> {
        let mut first = None;
        for url in discovery_urls(&self.issuer) {
            match (self.get)(&url).and_then(|it| jwks_uri(&it.body, &self.issuer)) {
                Ok(found) => return Ok(found),
                Err(why) => first = first.or(Some(format!("{url}: {why}"))),
            }
        }
        Err(first.unwrap_or_else(|| "the issuer is no URL".to_owned()))
    }
}

impl<G: Fn(&str) -> Result<Fetched, String> + Send + Sync> KeySource for KeysByUrl<G> {
    fn fetch(&self) -> Result<Fetched, String> {
        let url = match &self.jwks_url {
            Some(url) => url.clone(),
            None => self.discover()?,
        };
        (self.get)(&url).map_err(|why| format!("{url}: {why}"))
    }
}

/// Where the document may be, in the order in which clients look, too.
fn discovery_urls(issuer: &str) -> Vec<String> {
    let issuer = issuer.strip_suffix('/').unwrap_or(issuer);
    let Some(authority) = issuer.find("://").map(|at| at + 3) else {
        return Vec::new();
    };
    let path = issuer[authority..].find('/');
    let (origin, path) = issuer.split_at(path.map_or(issuer.len(), |at| authority + at));
    let mut urls = ["oauth-authorization-server", "openid-configuration"]
        .map(|name| format!("{origin}/.well-known/{name}{path}"))
        .to_vec();
    if !path.is_empty() {
        urls.push(format!("{issuer}/.well-known/openid-configuration"));
    }
    urls
}

/// RFC 8414, section 3.3: a document of another issuer is not to be used.
fn jwks_uri(document: &str, issuer: &str) -> Result<String, String> {
    let document = strict::object(document.as_bytes()).ok_or("it is not a plain JSON object")?;
    let text = |name: &str| document.get(name).and_then(Value::as_str);
    if text("issuer") != Some(issuer) {
        return Err(format!("its issuer is not {issuer}, to the letter"));
    }
    let uri = text("jwks_uri").ok_or("it has no jwks_uri")?;
    // Over http only from a server that is itself reached so, which is one of this machine.
    match uri.starts_with("https://") || issuer.starts_with("http://") {
        true => Ok(uri.to_owned()),
        false => Err("its jwks_uri is not https".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_looked_for_where_clients_look() {
        for (issuer, expected) in [
            (
                "https://id.example.org/",
                &[
                    "/.well-known/oauth-authorization-server",
                    "/.well-known/openid-configuration",
                ][..],
            ),
            (
                "https://id.example.org/realms/a",
                &[
                    "/.well-known/oauth-authorization-server/realms/a",
                    "/.well-known/openid-configuration/realms/a",
                    "/realms/a/.well-known/openid-configuration",
                ],
            ),
            ("nothing", &[]),
        ] {
            let expected: Vec<String> = expected
                .iter()
                .map(|path| format!("https://id.example.org{path}"))
                .collect();
            assert_eq!(discovery_urls(issuer), expected, "{issuer}");
        }
    }

    #[test]
    fn keys_are_where_the_right_document_says() {
        let keys = |document: &str, issuer: &'static str, jwks_url: Option<&str>| {
            let document = document.to_owned();
            let get = move |url: &str| {
                let body = match url {
                    _ if url.ends_with("/oauth-authorization-server") => {
                        return Err("404".to_owned());
                    }
                    _ if url.ends_with("/openid-configuration") => document.clone(),
                    _ => url.to_owned(),
                };
                Ok(Fetched { body, cache: None })
            };
            let keys = KeysByUrl::new(issuer, jwks_url, get).fetch();
            keys.map(|it| it.body).ok()
        };
        let found = |url: &str| Some(url.to_owned());
        let (https, http) = ("https://i.org", "http://localhost");
        let good = r#"{"issuer":"https://i.org","jwks_uri":"https://k.org/k"}"#;
        assert_eq!(keys(good, https, None), found("https://k.org/k"));
        assert_eq!(
            keys(good, https, Some("https://j.org")),
            found("https://j.org")
        );
        let local = r#"{"issuer":"http://localhost","jwks_uri":"http://localhost/k"}"#;
        assert_eq!(keys(local, http, None), found("http://localhost/k"));
        for (document, issuer) in [
            (good, http),
            (good, "https://i.org/"),
            (r#"{"issuer":"https://i.org"}"#, https),
            (
                r#"{"issuer":"https://i.org","jwks_uri":"http://k.org/k"}"#,
                https,
            ),
            ("[]", https),
        ] {
            assert_eq!(keys(document, issuer, None), None, "{document} {issuer}");
        }
    }
}
