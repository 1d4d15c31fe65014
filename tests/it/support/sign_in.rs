//! Signing in, with everybody who takes part: a broker over the stand-in for Forgejo and the
//! fixture child, a browser (`browser`) and an OAuth client (`app`).

pub(crate) mod app;
pub(crate) mod browser;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use serde_json::{Map, Value, json};

use super::broker::Setup;
use super::{Broker, Request, Response, Session, example, fake_mcp};
pub(crate) use app::{App, Tokens};
pub(crate) use browser::Browser;

/// `fake_forgejo`, which see for what it can be told.
pub(crate) struct Forge {
    child: Child,
    pub(crate) url: String,
}

impl Forge {
    #[track_caller]
    fn start(options: &[String]) -> Self {
        let mut child = Command::new(example("fake_forgejo"))
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the forge starts");
        let mut url = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        stdout.read_line(&mut url).expect("its first line");
        let url = url.trim().to_owned();
        Self { child, url }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        let addr = self.url.trim_start_matches("http://");
        addr.parse().expect("an address")
    }

    /// Obeyed, or the test fails.
    #[track_caller]
    pub(crate) fn control(&self, order: &Value) -> Value {
        let request = Request::new("POST", "/control").body(order.to_string());
        let response = request.send(self.addr());
        assert_eq!(response.status, 200, "{order}: {response:?}");
        response.json()
    }

    /// How often that has happened.
    #[track_caller]
    pub(crate) fn count(&self, what: &str) -> u64 {
        let status = self.control(&json!({ "do": "status" }));
        status["counts"][what].as_u64().unwrap_or(0)
    }

    /// Requests there go wrong, so often. What is said to hang does so for a second.
    #[track_caller]
    pub(crate) fn fail(&self, place: &str, how: &str, times: u64) {
        self.control(&json!({
            "do": "fail", "place": place, "how": how, "times": times, "ms": 1000,
        }));
    }

    /// How often it was asked for new tokens, with whatever success.
    #[track_caller]
    pub(crate) fn refreshes_asked(&self) -> usize {
        let events = self.control(&json!({ "do": "events" }));
        let events = events.as_array().expect("a list").iter();
        let body = |it: &&Value| it["body"].as_str().map(str::to_owned);
        let asked = events
            .filter(|it| body(it).is_some_and(|body| body.contains("grant_type=refresh_token")));
        asked.count()
    }

    /// Seconds that access tokens live which are issued from now on.
    #[track_caller]
    pub(crate) fn set_lifetime(&self, seconds: u64) {
        self.control(&json!({ "do": "lifetime", "seconds": seconds }));
    }
}

impl Drop for Forge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a [`Site`] shall be. Unless told otherwise: one server, `fake`, whose child has all of the
/// user in its environment; alice and bob may enter.
pub(crate) struct SiteSetup {
    setup: Setup,
    has_servers: bool,
    forge: Vec<String>,
    kind: &'static str,
    provider: Map<String, Value>,
    auth: Map<String, Value>,
    public_url: Option<String>,
}

impl SiteSetup {
    /// Changes how the broker is set up otherwise.
    pub(crate) fn with(mut self, change: impl FnOnce(Setup) -> Setup) -> Self {
        self.setup = change(self.setup);
        self
    }

    /// A server, as [`server_entry`] has it.
    pub(crate) fn server(self, name: &str) -> Self {
        self.server_entry(name, server_entry())
    }

    pub(crate) fn server_entry(mut self, name: &str, entry: Value) -> Self {
        self.has_servers = true;
        self.with(|setup| setup.server_entry(name, entry))
    }

    /// Arguments of the forge.
    pub(crate) fn forge(mut self, args: &[&str]) -> Self {
        self.forge.extend(args.iter().map(ToString::to_string));
        self
    }

    /// `oidc`, if it is not to be `forgejo`.
    pub(crate) fn kind(mut self, kind: &'static str) -> Self {
        self.kind = kind;
        self
    }

    /// A key of `auth.forgejo`.
    pub(crate) fn provider(mut self, key: &str, value: Value) -> Self {
        self.provider.insert(key.to_owned(), value);
        self
    }

    /// A key of `auth`.
    pub(crate) fn auth(mut self, key: &str, value: Value) -> Self {
        self.auth.insert(key.to_owned(), value);
        self
    }

    /// What users type. The browser and the client find the broker under it.
    pub(crate) fn public_url(mut self, url: &str) -> Self {
        self.public_url = Some(url.to_owned());
        self.with(|setup| setup.setting("public_url", url))
    }

    #[track_caller]
    pub(crate) fn start(mut self) -> Site {
        if !self.has_servers {
            self = self.server("fake");
        }
        let forge = Forge::start(&self.forge);
        self.provider.insert("url".to_owned(), json!(forge.url));
        let mut auth = self.auth;
        auth.insert(self.kind.to_owned(), self.provider.into());
        let broker = self.setup.setting("auth", auth).start();
        let issuer = self.public_url;
        let issuer = issuer.unwrap_or_else(|| format!("http://{}", broker.addr()));
        let uri = format!("{issuer}/oauth/callback");
        forge.control(&json!({ "do": "redirect_uri", "uri": uri }));
        Site {
            broker,
            forge,
            issuer,
        }
    }
}

/// A server whose child has all of the user in its environment.
pub(crate) fn server_entry() -> Value {
    json!({ "command": fake_mcp(), "env": {
        "NAME": "${user.name}",
        "MAIL": "${user.email}",
        "SUB": "${user.sub}",
        "TOKEN": "${user.token}",
    }})
}

/// A broker, and the forge at which its users sign in.
pub(crate) struct Site {
    pub(crate) broker: Broker,
    pub(crate) forge: Forge,
    pub(crate) issuer: String,
}

impl Site {
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::setup().start()
    }

    pub(crate) fn setup() -> SiteSetup {
        let provider = json!({
            "client_id": "broker",
            "client_secret": "broker-secret",
            "allow": { "users": ["alice", "bob"] },
        });
        SiteSetup {
            setup: Broker::setup(),
            has_servers: false,
            forge: Vec::new(),
            kind: "forgejo",
            provider: provider.as_object().cloned().unwrap_or_default(),
            auth: Map::new(),
            public_url: None,
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.broker.addr()
    }

    /// The authority of the broker's URL.
    pub(crate) fn host(&self) -> &str {
        let host = self.issuer.split_once("://").map(|(_, host)| host);
        host.expect("a URL")
    }

    /// A request as it is sent to the broker's URL.
    pub(crate) fn request(&self, method: &str, path: &str) -> Request {
        Request::new(method, path).header("Host", self.host())
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Response {
        self.request("GET", path).send(self.addr())
    }

    #[track_caller]
    pub(crate) fn post_form(&self, path: &str, form: &[(&str, &str)]) -> Response {
        self.request("POST", path)
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(browser::encode(form))
            .send(self.addr())
    }

    #[track_caller]
    pub(crate) fn post_json(&self, path: &str, body: &Value) -> Response {
        self.request("POST", path)
            .header("Content-Type", "application/json")
            .body(body.to_string())
            .send(self.addr())
    }

    /// A client that has registered, for the one server.
    #[track_caller]
    pub(crate) fn app(&self) -> App {
        App::register(self, "http://127.0.0.1:7777/callback")
    }

    /// A user who has signed in with a browser and a client of their own.
    #[track_caller]
    pub(crate) fn sign_in(&self, user: &str) -> (App, Tokens) {
        let app = self.app();
        let tokens = app.sign_in(self, &mut Browser::new(), user);
        (app, tokens)
    }

    /// An MCP client with a token, not yet initialized.
    pub(crate) fn client(&self, tokens: &Tokens) -> Session {
        self.broker.client().with_token(&tokens.access)
    }

    /// A session with a token.
    #[track_caller]
    pub(crate) fn session(&self, tokens: &Tokens) -> Session {
        self.client(tokens).ready()
    }

    /// The status of a `GET` with this token and without a session: 401 for nobody, 400 for
    /// somebody.
    #[track_caller]
    pub(crate) fn knock(&self, tokens: &Tokens) -> u16 {
        self.client(tokens).request("GET").send(self.addr()).status
    }

    /// The broker is ended with this signal, and started again.
    #[track_caller]
    pub(crate) fn restart(self, signal: Signal) -> Self {
        Self {
            broker: self.broker.restart(signal),
            ..self
        }
    }
}

/// A variable of the child's environment.
#[track_caller]
pub(crate) fn env(session: &mut Session, name: &str) -> String {
    session.call_text("env", json!({ "name": name }))
}
