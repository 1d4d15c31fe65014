//! What must be in order before anybody is let in: the key, the database, the configuration. If it
//! is not, one line says so and nothing listens.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::broker::{PROGRAM, run_command};
use crate::support::{Run, TempDir, fake_mcp, user};

/// A state directory and a configuration.
struct Place {
    dir: TempDir,
    addr: SocketAddr,
}

impl Place {
    fn new() -> Self {
        // Nobody else is given it again so soon.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("its address");
        let dir = TempDir::new();
        let place = Self { dir, addr };
        place.configure(&json!({ "forgejo": {
            "url": "http://127.0.0.1:9",
            "client_id": "broker",
            "client_secret": "hush-hush",
            "allow": { "users": ["alice"] },
        }}));
        place
    }

    fn configure(&self, auth: &Value) {
        self.write(&json!({
            "mcpServers": { "fake": { "command": fake_mcp() } },
            "broker": { "auth": auth },
        }));
    }

    fn write(&self, config: &Value) {
        let text = serde_json::to_string_pretty(config).expect("JSON");
        self.dir.write("config.json", &text).expect("a file");
    }

    fn state(&self, name: &str) -> PathBuf {
        self.dir.path().join("state").join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args(["serve", "--listen", &self.addr.to_string(), "--state-dir"])
            .arg(self.dir.path().join("state"))
            .arg("--config")
            .arg(self.dir.path().join("config.json"))
            .args(["--log", "error"])
            .args(user::as_ourselves())
            .env_remove("RUST_LOG");
        command
    }

    /// A key and a database, as a broker leaves them that has run.
    #[track_caller]
    fn begin(&self) {
        let mut child = self.command();
        let mut child = child
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("it starts");
        crate::support::eventually("it listens", || self.is_open());
        let pid = i32::try_from(child.id()).expect("a pid");
        crate::support::process::signal(pid, rustix::process::Signal::TERM);
        assert!(child.wait().expect("its status").success());
    }

    fn is_open(&self) -> bool {
        TcpStream::connect(self.addr).is_ok()
    }

    /// It does not start, and says so in one line with these words.
    #[track_caller]
    fn fails(&self, code: i32, words: &[&str]) {
        let Run {
            code: found,
            stdout,
            stderr,
        } = run_command(self.command());
        assert_eq!(found, Some(code), "{stderr}");
        assert_eq!(stdout, "", "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        for word in words {
            assert!(stderr.contains(word), "{word:?} is not in {stderr}");
        }
        assert!(!self.is_open());
    }
}

/// S19, R17: the files are for their owner only, and made so.
#[test]
fn key_and_database_are_made_for_the_owner_only() {
    let place = Place::new();
    place.begin();
    for name in ["seal.key", "broker.db"] {
        let mode = fs::metadata(place.state(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let key = fs::read_to_string(place.state("seal.key")).unwrap();
    assert_eq!(key.trim().len(), 64);
    // Another start changes nothing.
    place.begin();
    assert_eq!(fs::read_to_string(place.state("seal.key")).unwrap(), key);
}

#[test]
fn a_key_or_database_that_others_may_read_is_refused() {
    let place = Place::new();
    place.begin();
    for name in ["seal.key", "broker.db"] {
        let path = place.state(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        place.fails(1, &[name, "644"]);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    place.begin();
}

#[test]
fn a_wrong_key_is_found_out() {
    let place = Place::new();
    place.begin();
    let key = place.state("seal.key");
    let right = fs::read_to_string(&key).unwrap();
    fs::write(&key, format!("{}\n", "0".repeat(64))).unwrap();
    place.fails(1, &["broker.db", "another key"]);
    for wrong in ["", "hello\n", &right.trim()[2..]] {
        fs::write(&key, wrong).unwrap();
        place.fails(1, &["seal.key", "64 hexadecimal digits"]);
    }
    fs::remove_file(&key).unwrap();
    place.fails(1, &["seal.key", "missing"]);
    assert!(!key.exists());
    fs::write(&key, right).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    place.begin();
}

#[test]
fn a_damaged_database_is_refused() {
    let place = Place::new();
    place.begin();
    let path = place.state("broker.db");
    let good = fs::read(&path).unwrap();
    let mut middle = good.clone();
    let (from, to) = (middle.len() / 4, middle.len() / 4 * 3);
    middle[from..to].fill(0xa5);
    for bad in [&b"this is no database, and never was one"[..], &middle] {
        fs::write(&path, bad).unwrap();
        place.fails(1, &["broker.db", "damaged"]);
        assert_eq!(fs::read(&path).unwrap(), bad, "it was not touched");
    }
    fs::write(&path, good).unwrap();
    place.begin();
}

#[test]
fn a_database_of_a_newer_version_is_refused() {
    let place = Place::new();
    place.begin();
    let db = rusqlite::Connection::open(place.state("broker.db")).unwrap();
    let version: i64 = db
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    place.fails(1, &["broker.db", "newer", "99"]);
    let db = rusqlite::Connection::open(place.state("broker.db")).unwrap();
    db.pragma_update(None, "user_version", version).unwrap();
    drop(db);
    place.begin();
}

#[test]
fn a_database_that_another_process_locks_is_refused() {
    let place = Place::new();
    place.begin();
    let db = rusqlite::Connection::open(place.state("broker.db")).unwrap();
    db.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT;")
        .unwrap();
    db.execute_batch("BEGIN EXCLUSIVE").unwrap();
    place.fails(1, &["broker.db", "locked"]);
    drop(db);
    place.begin();
}

/// What is wrong, in which line of the file; and no secret is shown.
#[test]
fn a_wrong_configuration_is_said_with_its_line() {
    let place = Place::new();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut auth = json!({ "forgejo": {
            "url": "http://127.0.0.1:9",
            "client_id": "broker",
            "client_secret": "hush-hush",
            "allow": { "users": ["alice"] },
        }});
        change(&mut auth);
        auth
    };
    let cases: &[(Value, &str)] = &[
        (json!({}), "needs one of"),
        (
            with(&|it| it["forgejo"]["allow"] = json!({})),
            "lets nobody in",
        ),
        (
            with(&|it| it["forgejo"]["client_secret"] = json!("")),
            "client_secret",
        ),
        (
            with(&|it| it["forgejo"]["url"] = json!("http://git.example.org")),
            "http",
        ),
        (with(&|it| it["forgejo"]["colour"] = json!("red")), "colour"),
        (with(&|it| it["access_token_lifetime"] = json!("2h")), "2h"),
        (with(&|it| it["oidc"] = it["forgejo"].clone()), "at once"),
    ];
    for (auth, words) in cases {
        place.configure(auth);
        let run = run_command(place.command());
        assert_eq!(
            (run.code, run.stdout.as_str()),
            (Some(78), ""),
            "{auth}: {run:?}"
        );
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
        assert!(
            run.stderr.contains(words),
            "{words:?} is not in {}",
            run.stderr
        );
        assert!(run.stderr.contains("config.json:"), "{}", run.stderr);
        assert!(!run.stderr.contains("hush-hush"), "{}", run.stderr);
        assert!(!place.state("broker.db").exists() && !place.is_open());
    }
}

/// S3, S12: what would be an issuer that nobody can use.
#[test]
fn a_public_url_that_does_not_go_with_it_is_refused() {
    let place = Place::new();
    for (url, words) in [
        ("https://mcp.example.org/broker", "path"),
        ("http://mcp.example.org", "https"),
    ] {
        place.write(&json!({
            "mcpServers": { "fake": { "command": fake_mcp() } },
            "broker": { "public_url": url, "auth": { "forgejo": {
                "url": "http://127.0.0.1:9",
                "client_id": "broker",
                "client_secret": "hush-hush",
                "allow": { "users": ["alice"] },
            }}},
        }));
        place.fails(78, &[words, url]);
    }
}
