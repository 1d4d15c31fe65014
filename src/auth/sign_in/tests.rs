//! Whoever is taken away is out within a refresh, and nobody else is. The store is a real one;
//! `mcp-broker user` and `client` are a second store on the same files, as another process has it.

mod ending;
mod races;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::super::tests::TempDir;
use super::*;
use crate::auth::oauth::Resource;
use crate::auth::store::{NewGrant, User};
use crate::auth::upstream::{Allow, UpstreamKind, UpstreamOptions, UpstreamTokens};
use crate::auth::web::tests::fake::{Fake, json};
use crate::auth::{Authenticator, TokenStore};

const APP: &str = "https://app.example/client.json";
const IDE: &str = "https://ide.example/client.json";
const SERVER: &str = "forge";
const VERIFIER: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGH";

const HOUR: u64 = 3600;
/// How long grants last, in seconds.
const GRANT: u64 = 30 * 24 * HOUR;

/// So many seconds after the start: 2026-11-25.
fn at(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_600_000 + second)
}

/// What a client got.
#[derive(Clone)]
struct Tokens {
    access: String,
    refresh: String,
}

/// A broker's door, and a provider behind it that honours no refresh token.
struct World {
    dir: TempDir,
    sign_in: Arc<SignIn>,
    door: Authenticator,
    provider: Fake,
}

impl World {
    fn new(label: &str) -> Self {
        let dir = TempDir::new(label);
        let provider = Fake::http(|asked| match asked.line.as_str() {
            "POST /token" => json("400 Bad Request", r#"{"error":"invalid_grant"}"#),
            _ => {
                let host = asked.head.lines().find_map(|it| it.strip_prefix("host:"));
                let url = format!("http://{}", host.unwrap_or_default().trim());
                let document = serde_json::json!({
                    "issuer": url,
                    "authorization_endpoint": format!("{url}/authorize"),
                    "token_endpoint": format!("{url}/token"),
                    "userinfo_endpoint": format!("{url}/userinfo"),
                });
                json("200 OK", &document.to_string())
            }
        });
        let sign_in = Arc::new(open(&dir, &provider, anyone(), at(0)));
        let tokens = TokenStore::open(dir.path()).unwrap();
        let door = Authenticator::new(Some(tokens)).unwrap();
        Self {
            door: door.with_sign_in(Arc::clone(&sign_in)),
            dir,
            sign_in,
            provider,
        }
    }

    /// As another process has it.
    fn others(&self) -> Store {
        Store::open_existing(self.dir.path(), None)
            .unwrap()
            .unwrap()
    }

    /// A user has agreed, and is back from the provider: the code. It is named after the grant.
    fn agree(&self, subject: &str, client: &str, grant: &str, tokens: &UpstreamTokens) -> String {
        let issuer = self.provider.url("");
        let user = User {
            issuer: issuer.clone(),
            subject: subject.to_owned(),
            name: format!("user {subject}"),
            email: None,
        };
        let store = &self.sign_in.store;
        store.save_user(&user, tokens, at(0)).unwrap();
        let row = NewGrant {
            grant: grant.to_owned(),
            issuer,
            subject: subject.to_owned(),
            client_id: client.to_owned(),
            client_name: "A client".to_owned(),
            resource: Resource {
                uri: format!("https://mcp.example.org/mcp/{SERVER}"),
                server: SERVER.into(),
            },
            scope: "mcp".to_owned(),
            redirect_uri: "https://app.example/back".to_owned(),
            challenge: URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER)),
            expires: at(GRANT),
        };
        let code = format!("mcpc_{grant}");
        store.add_code(&oauth::hash(&code), &row, at(0)).unwrap();
        code
    }

    fn enter(&self, subject: &str, client: &str, grant: &str) -> Tokens {
        let code = self.agree(subject, client, grant, &lasting());
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", client),
            ("code", &*code),
            ("code_verifier", VERIFIER),
        ];
        self.ask(&form, at(0)).unwrap()
    }

    fn renew(&self, client: &str, refresh: &str, now: SystemTime) -> Result<Tokens, &'static str> {
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", client),
            ("refresh_token", refresh),
        ];
        self.ask(&form, now)
    }

    fn ask(&self, form: &[(&str, &str)], now: SystemTime) -> Result<Tokens, &'static str> {
        let answer = self.sign_in.token(&encoded(form), None, now);
        let answer = answer.map_err(|why| why.code)?;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let text = |key: &str| answer[key].as_str().unwrap().to_owned();
        Ok(Tokens {
            access: text("access_token"),
            refresh: text("refresh_token"),
        })
    }

    fn revoke(&self, client: &str, token: &str, now: SystemTime) {
        let form = encoded(&[("client_id", client), ("token", token)]);
        self.sign_in.revoke(&form, None, now).unwrap();
    }

    fn lets_in(&self, tokens: &Tokens, now: SystemTime) -> bool {
        let header = format!("Bearer {}", tokens.access);
        self.door.check(Some(&header), SERVER, now).is_ok()
    }

    /// Who must go, as `SUBJECT/GRANT`, in order.
    fn gone(&self, now: SystemTime) -> Vec<String> {
        let gone = self.door.refresh(now);
        let name = |it: &Principal| format!("{}/{}", it.subject, it.grant.as_deref().unwrap());
        let mut names: Vec<String> = gone.iter().map(name).collect();
        names.sort();
        names
    }
}

/// What a broker has that is started on this directory.
fn open(dir: &TempDir, provider: &Fake, allow: Allow, now: SystemTime) -> SignIn {
    let upstream = UpstreamOptions {
        allow,
        ..upstream(provider)
    };
    let options = SignInOptions {
        resources: Resources::new("https://mcp.example.org", &[SERVER.into()]),
        upstream: Upstream::new(upstream).unwrap(),
        access_lifetime: Duration::from_secs(HOUR),
        grant_lifetime: Duration::from_secs(GRANT),
    };
    SignIn::open(options, dir.path(), None, now).unwrap()
}

fn upstream(provider: &Fake) -> UpstreamOptions {
    UpstreamOptions {
        kind: UpstreamKind::Forgejo,
        url: provider.url(""),
        client_id: "our id".to_owned(),
        client_secret: "our secret".to_owned(),
        scopes: "openid".to_owned(),
        name: "Forge".to_owned(),
        allow: anyone(),
        ca_file: None,
    }
}

fn anyone() -> Allow {
    Allow {
        anyone: true,
        ..Allow::default()
    }
}

/// What a provider gives for ever.
fn lasting() -> UpstreamTokens {
    UpstreamTokens {
        access: "upstream-access".to_owned(),
        refresh: None,
        expires: None,
        lifetime: None,
        scope: None,
    }
}

fn encoded(form: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(form)
        .finish()
}
