//! The operator's door: what it shows, what it does not, and who gets in.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::json;

use crate::support::broker::Setup;
use crate::support::{Broker, Connection, Request, TempDir, eventually};

/// Connections that the admin listener takes.
const ADMIN_CONNECTIONS: usize = 16;

/// Samples by what stands before the value.
pub(crate) struct Metrics(HashMap<String, f64>);

impl Metrics {
    #[track_caller]
    pub(crate) fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let samples = samples.map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a sample");
            let series = series.strip_prefix("mcp_broker_").expect("our prefix");
            (series.to_owned(), value.parse().expect("a number"))
        });
        Self(samples.collect())
    }

    #[track_caller]
    pub(crate) fn get(&self, series: &str) -> f64 {
        let value = self.0.get(series);
        *value.unwrap_or_else(|| panic!("no {series}"))
    }
}

/// Sends a GET to a Unix socket; gives status and body.
#[track_caller]
pub(crate) fn get(path: &Path, target: &str, host: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(path).expect("a connection");
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("a response");
    let (head, body) = response.split_once("\r\n\r\n").expect("a head");
    (head[9..12].parse().expect("a status"), body.to_owned())
}

/// A broker with an admin listener on a Unix socket.
pub(crate) struct Observed {
    pub(crate) broker: Broker,
    pub(crate) socket: PathBuf,
    _dir: TempDir,
}

impl Observed {
    #[track_caller]
    pub(crate) fn start(setup: Setup) -> Self {
        let dir = TempDir::new();
        let socket = dir.path().join("admin.sock");
        let address = format!("unix:{}", socket.display());
        Self {
            broker: setup.setting("admin", address).start(),
            socket,
            _dir: dir,
        }
    }

    #[track_caller]
    pub(crate) fn page(&self) -> String {
        let (status, body) = get(&self.socket, "/metrics", "localhost");
        assert_eq!(status, 200, "{body}");
        body
    }

    #[track_caller]
    pub(crate) fn metrics(&self) -> Metrics {
        Metrics::parse(&self.page())
    }

    /// Waits until a sample has this value.
    #[track_caller]
    fn until(&self, series: &str, value: f64) {
        eventually(series, || self.metrics().get(series) == value);
    }
}

#[test]
fn each_door_leads_to_its_own_rooms() {
    let observed = Observed::start(Broker::setup());
    let public = |method: &str, path: &str, field: (&str, &str)| {
        let request = Request::new(method, path).header(field.0, field.1);
        request.send(observed.broker.addr()).status
    };
    assert_eq!(public("GET", "/metrics", ("X", "y")), 404);
    assert_eq!(public("GET", "/metrics", ("Edge-Door", "admin")), 404);
    assert_eq!(public("GET", "/metrics", ("edge-door", "admin")), 404);
    assert_eq!(public("GET", "/healthz", ("Edge-Door", "admin")), 200);
    let admin = |target, host| get(&observed.socket, target, host).0;
    assert_eq!(admin("/metrics", "localhost"), 200);
    assert_eq!(admin("/healthz", "localhost"), 200);
    assert_eq!(admin("/mcp", "localhost"), 404);
    assert_eq!(admin("/mcp/fake", "localhost"), 404);
    assert_eq!(admin("/metrics", "metrics.example.org"), 403);
}

#[test]
fn the_admin_listener_can_be_a_loopback_address() {
    let broker = Broker::setup().setting("admin", "127.0.0.1:0").start();
    let mut line = None;
    eventually("the second line", || {
        line = broker.stdout().lines().nth(1).map(ToOwned::to_owned);
        line.is_some()
    });
    let line = line.expect("it was seen");
    let addr = line.strip_prefix("metrics on http://").expect("an address");
    let addr: SocketAddr = addr.parse().expect("an address");
    let send = |method, path| Request::new(method, path).send(addr);
    let page = send("GET", "/metrics");
    assert_eq!(page.status, 200);
    let content_type = Some("text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(page.header("Content-Type"), content_type);
    assert_eq!(send("POST", "/metrics").status, 405);
    assert_eq!(send("POST", "/mcp").status, 404);
    assert_eq!(broker.client().at("/mcp").initialize().status, 200);
}

#[test]
fn the_socket_is_its_owners_only_and_goes_at_the_end() {
    let dir = TempDir::new();
    let socket = dir.path().join("admin.sock");
    // What a killed broker leaves: a socket without a listener.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let address = format!("unix:{}", socket.display());
    let mut broker = Broker::setup().setting("admin", address).start();
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(get(&socket, "/healthz", "localhost").0, 200);
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait().code(), Some(0));
    assert!(!socket.exists());
}

#[test]
fn the_life_of_a_session_is_counted() {
    let setup = Broker::setup()
        .server("fake", &[])
        .server("gone", &["--exit-at-start", "3"]);
    let observed = Observed::start(setup.setting("max_sessions", 2));
    let at = |name: &str| observed.broker.client().at(&format!("/mcp/{name}"));
    let mut session = at("fake").ready();
    session.call_text("echo", json!({}));
    let stream = session.listen();
    let now = observed.metrics();
    assert_eq!(now.get("sessions{state=\"active\"}"), 1.0);
    assert_eq!(now.get("open_streams"), 1.0);
    assert_eq!(now.get("open_connections{door=\"admin\"}"), 1.0);
    assert_eq!(now.get("children"), 1.0);
    assert!(now.get("children_resident_memory_bytes") > 100_000.0);
    assert!(now.get("resident_memory_bytes") > 100_000.0);
    assert!(now.get("threads") > 5.0 && now.get("open_fds") > 5.0);
    assert_eq!(now.get("child_messages_sent_total"), 3.0);
    assert_eq!(now.get("child_messages_received_total"), 2.0);
    drop(stream);
    observed.until("open_streams", 0.0);
    assert_eq!(at("gone").initialize().status, 500);
    assert_eq!(session.delete().status, 204);
    observed.until("children", 0.0);
    let [first, second] = [at("fake").ready(), at("fake").ready()];
    assert_eq!(at("fake").initialize().status, 503);
    let mut dying = second.clone();
    dying.call("exit", json!({ "code": 3 }));
    observed.until("sessions{state=\"active\"}", 1.0);
    drop(first);
    let now = observed.metrics();
    for (series, value) in [
        ("sessions_opened_total", 4.0),
        ("sessions_ended_total{cause=\"deleted\"}", 1.0),
        ("sessions_ended_total{cause=\"start_failed\"}", 1.0),
        ("sessions_ended_total{cause=\"child_exit\"}", 1.0),
        ("children_spawned_total", 4.0),
        ("children_ended_total{kind=\"success\"}", 1.0),
        ("children_ended_total{kind=\"code\"}", 2.0),
        ("refusals_total{reason=\"full\"}", 1.0),
        ("http_requests_total{method=\"DELETE\",status=\"2xx\"}", 1.0),
        ("http_requests_total{method=\"POST\",status=\"5xx\"}", 2.0),
    ] {
        assert_eq!(now.get(series), value, "{series}");
    }
    let posts = now.get("http_requests_total{method=\"POST\",status=\"2xx\"}");
    assert_eq!(posts, 8.0, "three handshakes and two calls");
    let below = now.get("http_request_duration_seconds_bucket{le=\"+Inf\"}");
    assert!(below >= posts, "{below}");
    assert!(now.get("received_bytes_total") > 1000.0 && now.get("sent_bytes_total") > 1000.0);
}

#[test]
fn the_page_holds_no_secret() {
    let secret = "hunter2-is-the-word";
    let setup = Broker::setup()
        .user("ann-the-user", &["--env", &format!("KEY={secret}")])
        .server_entry(
            "fake",
            json!({ "command": crate::support::fake_mcp(),
                    "env": { "KEY": "${user.env.KEY}", "PLAIN": "plain-value" } }),
        );
    let observed = Observed::start(setup);
    let mut session = observed.broker.user("ann-the-user").ready();
    assert_eq!(session.call_text("env", json!({ "name": "KEY" })), secret);
    assert_eq!(observed.broker.client().initialize().status, 401);
    let page = observed.page();
    let id = session.id.clone().expect("an id");
    let token = observed.broker.token("ann-the-user");
    for word in [secret, "plain-value", "ann-the-user", token, &id, &id[..8]] {
        assert!(!page.contains(word), "{word} in:\n{page}");
    }
    let unauthorized = "refusals_total{reason=\"unauthorized\"}";
    assert_eq!(observed.metrics().get(unauthorized), 1.0);
}

#[test]
fn no_number_of_clients_keeps_the_operator_out() {
    let observed = Observed::start(Broker::setup().setting("max_connections", 4));
    let addr = observed.broker.addr();
    let clients: Vec<Connection> = (0..4).map(|_| Connection::open(addr)).collect();
    observed.until("open_connections{door=\"public\"}", 4.0);
    assert_eq!(Request::new("GET", "/healthz").send(addr).status, 503);
    assert_eq!(observed.metrics().get("connections_turned_away_total"), 1.0);
    drop(clients);
    observed.until("open_connections{door=\"public\"}", 0.0);
    // And the other way round.
    let mut operators = Vec::new();
    for _ in 0..ADMIN_CONNECTIONS {
        operators.push(UnixStream::connect(&observed.socket).unwrap());
    }
    eventually("the admin listener is full", || {
        get(&observed.socket, "/healthz", "localhost").0 == 503
    });
    assert_eq!(Request::new("GET", "/healthz").send(addr).status, 200);
    drop(operators);
    eventually("the operator gets in again", || {
        get(&observed.socket, "/healthz", "localhost").0 == 200
    });
}

#[test]
fn what_a_client_calls_itself_cannot_forge_a_log_line() {
    let broker = Broker::setup().start();
    let client = broker.client();
    let mut message = client.initialize_message();
    let name = format!(
        "evil\nINFO  session opened sid=fake\u{1b}[2J{}",
        "x".repeat(500)
    );
    message["params"]["clientInfo"]["name"] = json!(name);
    assert_eq!(client.post(&message).status, 200);
    broker.wait_for_log("session initialized");
    let log = broker.log();
    let line = log
        .lines()
        .find(|line| line.contains("session initializing"));
    let line = line.expect("a line");
    assert!(
        line.contains("client=\"evilINFO  session opened sid=fake[2Jxxx"),
        "{line}"
    );
    assert!(line.len() < 300, "{line}");
    assert!(!log.contains("\nINFO  session opened sid=fake"), "{log}");
}
