//! Configurations with a `broker.auth` object, from a file on disk to a `Config` or the message.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::config::{Config, ServeArgs, load};

/// A directory of its own, removed with it.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mcp-broker-config-auth-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path); // what an earlier process of the same id left
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // a test that failed matters more
    }
}

fn env(key: &str) -> Option<String> {
    match key {
        "HOME" => Some("/home/alice".to_owned()),
        "FORGEJO_SECRET" => Some("hush-hush".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

/// The members of the `broker` object; a message without the path before its line.
fn load_broker(dir: &Dir, members: &str) -> Result<Config, String> {
    let path = dir.write(
        "config.json",
        &format!("{{\"broker\":{{{members}}}}}"),
        0o600,
    );
    let args = ServeArgs {
        config: Some(path.clone()),
        ..ServeArgs::default()
    };
    load(&args, &env).map_err(|error| {
        let message = error.to_string();
        message.replace(&format!("{}/", dir.0.display()), "")
    })
}

fn upstream_of(config: Config) -> UpstreamConfig {
    match config.auth_server.unwrap().kind {
        AuthKind::Upstream(upstream) => upstream,
        AuthKind::Jwt(_) => panic!("jwt"),
    }
}

const FORGEJO: &str = r#""url": "https://git.example.org/code/",
    "client_id": "abc", "client_secret": "${env.FORGEJO_SECRET}""#;
const ALICE: &str = r#""allow": {"users": ["alice"]}"#;

#[test]
fn the_least_and_the_most_that_can_be_said() {
    let dir = Dir::new();
    let least = format!(r#""auth": {{"forgejo": {{{FORGEJO}, {ALICE}}}}}"#);
    let config = load_broker(&dir, &least).unwrap();
    assert!(config.auth && config.warnings.is_empty());
    let auth = config.auth_server.clone().unwrap();
    assert_eq!(auth.access_token_lifetime, Duration::from_hours(1));
    assert_eq!(auth.refresh_token_lifetime, Duration::from_hours(720));
    let expected = UpstreamConfig {
        kind: UpstreamKind::Forgejo,
        url: "https://git.example.org/code/".to_owned(),
        client_id: "abc".to_owned(),
        client_secret: Secret("hush-hush".to_owned()),
        scopes: "openid profile email groups".to_owned(),
        name: "git.example.org".to_owned(),
        allow: Allow {
            users: vec!["alice".to_owned()],
            ..Allow::default()
        },
        ca_file: None,
    };
    assert_eq!(upstream_of(config), expected);

    let most = r#""public_url": "https://mcp.example.org", "listen": "0.0.0.0:80", "auth": {
        "oidc": {"url": "http://127.0.0.1:3000", "client_id": "abc", "client_secret": "a$$b",
            "scopes": "openid  api:read", "name": "Our place", "ca_file": "/etc/ca.pem",
            "allow": {"users": [], "groups": ["o:t"], "emails": ["a@b.org"], "anyone": false}},
        "access_token_lifetime": "1s", "refresh_token_lifetime": "365d"}"#;
    let config = load_broker(&dir, most).unwrap();
    let auth = config.auth_server.clone().unwrap();
    assert_eq!(auth.access_token_lifetime, Duration::from_secs(1));
    assert_eq!(auth.refresh_token_lifetime, Duration::from_hours(24 * 365));
    let upstream = upstream_of(config);
    assert_eq!(upstream.kind, UpstreamKind::Oidc);
    assert_eq!(upstream.client_secret.expose(), "a$b");
    assert_eq!(upstream.scopes, "openid api:read");
    assert_eq!(upstream.name, "Our place");
    assert_eq!(upstream.ca_file, Some(PathBuf::from("/etc/ca.pem")));
    assert_eq!(upstream.allow.groups, ["o:t"]);
    assert_eq!(upstream.allow.emails, ["a@b.org"]);
}

#[test]
fn an_outside_server_can_be_named() {
    let dir = Dir::new();
    let jwt = |members: &str| {
        let broker = format!(r#""auth": {{"jwt": {{{members}, "allow": {{"anyone": true}}}}}}"#);
        match load_broker(&dir, &broker)
            .unwrap()
            .auth_server
            .unwrap()
            .kind
        {
            AuthKind::Jwt(jwt) => jwt,
            AuthKind::Upstream(_) => panic!("an upstream"),
        }
    };
    let least = jwt(r#""issuer": "https://id.example.org/""#);
    assert_eq!(least.issuer, "https://id.example.org/");
    assert_eq!(least.algorithms, JwtAlgorithm::USUAL);
    assert!(least.scopes.is_empty() && least.audience.is_none() && least.jwks_url.is_none());
    let most = jwt(
        r#""issuer": "https://id.example.org", "audience": "urn:mcp", "ca_file": "/ca.pem",
        "jwks_url": "https://id.example.org/keys?v=1", "algorithms": ["PS256", "ES384", "PS256"],
        "scopes": ["mcp", "read:user"]"#,
    );
    assert_eq!(most.audience.as_deref(), Some("urn:mcp"));
    let jwks_url = most.jwks_url.as_deref();
    assert_eq!(jwks_url, Some("https://id.example.org/keys?v=1"));
    assert_eq!(most.algorithms, [JwtAlgorithm::Ps256, JwtAlgorithm::Es384]);
    assert_eq!(most.scopes, ["mcp", "read:user"]);
}

/// What is wrong, and how its message begins.
const WRONG_AUTH: &str = r##"
{} → "auth" needs one of "forgejo", "oidc" and "jwt"
true → expected an object
{"gitea": {}} → unknown key "gitea"
{"forgeyo": {}} → unknown key "forgeyo", did you mean "forgejo"?
{"oidc": {}, "jwt": {}} → "oidc" and "jwt" at once
{"oidc": {}} → "oidc" has no "url"
{"jwt": {}} → "jwt" has no "issuer"
{"jwt": {"issuer": "https://i.org"}} → "jwt" has no "allow": nobody would
{"jwt": {"isuer": ""}} → unknown key "isuer", did you mean "issuer"?
{"jwt": {}, "access_token_lifetime": "5m"} → "access_token_lifetime" is of no use with "jwt"
{"access_token_lifetime": "2h", "oidc": {}} → access_token_lifetime: 2h is not between 1s and 1h
{"access_token_lifetime": "900ms", "oidc": {}} → access_token_lifetime: 900ms is not between
{"refresh_token_lifetime": "366d", "oidc": {}} → refresh_token_lifetime: 366d is not between 1h and
"##;

const WRONG_UPSTREAM: &str = r##"
"url": "http://git.example.org" → url: "http://git.example.org" is neither
"url": "ftp://git.example.org" → url: "ftp://git.example.org" is neither http
"url": "https://a:b@c.org" → url: "https://a:b@c.org" has a user name
"url": "https://c.org?x" → url: "https://c.org?x" has a query
"url": "http://127.0.0.1.evil.org" → url: "http://127.0.0.1.evil.org" is neither
"url": "http://localhost" → "forgejo" has no "client_id"
"url": "http://[::1]:3000" → "forgejo" has no "client_id"
"client_id": "" → client_id: "" is empty
"client_id": "a\nb" → client_id: "a\nb" is empty, longer than 1024 bytes, or has control
"client_secret": "" → client_secret: the secret is empty
"client_secret": "${env.EMPTY}" → client_secret: the secret is empty
"client_secret": "${env.NOPE}" → client_secret: the broker's own environment has no NOPE
"client_secret": "${user.name}" → client_secret: there is no user here
"client_secret": "${FORGEJO_SECRET}" → client_secret: unknown placeholder
"client_secret_file": "secret" → "client_secret_file" must be an absolute path
"client_secret_file": "/nope" → client_secret_file: /nope: No such file
"client_secret_file": "/dev/null" → client_secret_file: /dev/null: not a regular
"client_secret": "a", "client_secret_file": "/b" → "client_secret" and "client_secret_file": leave
"scopes": " " → scopes: " " is not a list of scopes
"scopes": "a\"b" → scopes: "a\"b" is not a list of scopes
"ca_file": "ca.pem" → "ca_file" must be an absolute path
"allow": {} → "allow" lets nobody in
"allow": {"users": [], "anyone": false} → "allow" lets nobody in
"allow": {"users": ["a"], "anyone": true} → "allow" lets anyone in and lists
"allow": {"users": [""]} → users: "" is empty
"allow": {"user": []} → unknown key "user", did you mean "users"?
"allow": {"groups": "a"} → expected a list
"##;

const WRONG_JWT: &str = r##"
"algorithms": [] → "algorithms" is empty
"algorithms": ["none"] → "none" would take tokens that nobody has signed
"algorithms": ["NONE"] → "NONE" would take tokens that nobody has signed
"algorithms": ["HS256"] → "HS256" needs a shared secret
"algorithms": ["rs256"] → "rs256" is not one of RS256,
"algorithms": ["ES265"] → "ES265" is not one of RS256, RS384
"jwks_url": "http://i.org/k" → jwks_url: "http://i.org/k" is neither https
"jwks_url": "https://i.org/k#a" → jwks_url: "https://i.org/k#a" has a query or
"scopes": ["a b"] → scopes: "a b" is not a scope
"allow": {"subjects": []} → "allow" lets nobody in
"allow": {"users": ["a"]} → unknown key "users"
"##;

#[test]
fn what_is_wrong_is_said() {
    let dir = Dir::new();
    let check = |members: &str, expected: &str| {
        let Err(message) = load_broker(&dir, members) else {
            panic!("{members} was taken");
        };
        let message = message.trim_start_matches("config.json:");
        let (_, message) = message.split_once(": ").unwrap();
        assert!(message.starts_with(expected), "{members}\n  {message}");
    };
    let all = |table: &str, around: fn(&str) -> String| {
        for line in table.trim().lines() {
            let (wrong, expected) = line.split_once(" → ").unwrap();
            check(&around(wrong), expected);
        }
    };
    all(WRONG_AUTH, |auth| format!("\"auth\": {auth}"));
    all(WRONG_UPSTREAM, |members| {
        format!("\"auth\": {{\"forgejo\": {{{members}}}}}")
    });
    all(WRONG_JWT, |members| {
        format!("\"auth\": {{\"jwt\": {{{members}}}}}")
    });
    let slip = r#"unknown key "atuh", did you mean "auth"?"#;
    check(r#""atuh": {}"#, slip);
    let missing = |key: &str, rest: &str| {
        let broker = format!("\"auth\": {{\"forgejo\": {{{rest}}}}}");
        check(&broker, &format!("\"forgejo\" has no \"{key}\""));
    };
    missing("allow", FORGEJO);
    let no_secret = format!(r#""url": "https://g.org", "client_id": "a", {ALICE}"#);
    missing("client_secret", &no_secret);
}

/// S3, S12, and the fault stands at the line of `auth`.
#[test]
fn the_rest_must_go_with_it() {
    let dir = Dir::new();
    let check = |members: &str, expected: Result<(), &str>| {
        let broker = format!("{members},\n\"auth\": {{\"forgejo\": {{{FORGEJO}, {ALICE}}}}}");
        let found = load_broker(&dir, &broker).map(drop);
        match expected {
            Ok(()) => assert_eq!(found, Ok(()), "{members}"),
            Err(start) => {
                let message = found.unwrap_err();
                let start = format!("config.json:2: {start}");
                assert!(message.starts_with(&start), "{members}: {message}");
            }
        }
    };
    let no_url = Err("\"auth\" needs public_url, as nobody could know how ");
    check(r#""listen": "127.0.0.1:0""#, Ok(()));
    check(r#""listen": "[::1]:8787""#, Ok(()));
    check(r#""listen": "0.0.0.0:80""#, no_url);
    check(r#""listen": "unix:/run/b.sock""#, no_url);
    check(
        r#""listen": "unix:/run/b.sock", "public_url": "https://mcp.example.org/""#,
        Ok(()),
    );
    check(
        r#""public_url": "https://mcp.example.org/tools""#,
        Err("with \"auth\", public_url must have no path"),
    );
    check(
        r#""public_url": "http://mcp.example.org""#,
        Err("with \"auth\", public_url must be https"),
    );
    check(r#""public_url": "http://localhost:8000""#, Ok(()));
    check(r#""public_url": "http://127.0.0.2""#, Ok(()));
    check(
        r#""no_auth": true"#,
        Err("\"auth\" together with no_auth: leave one of them out"),
    );
    check(r#""no_auth": false"#, Ok(()));
}

#[test]
fn a_secret_may_have_a_file_that_nobody_else_can_read() {
    let dir = Dir::new();
    let load = |path: &std::path::Path| {
        let broker = format!(
            r#""auth": {{"oidc": {{"url": "https://i.org", "client_id": "a", {ALICE},
            "client_secret_file": {path:?}}}}}"#
        );
        load_broker(&dir, &broker)
            .map(|config| upstream_of(config).client_secret.expose().to_owned())
    };
    let secret = dir.write("secret", "hush\r\n", 0o400);
    assert_eq!(load(&secret).unwrap(), "hush");
    let link = dir.0.join("link");
    std::os::unix::fs::symlink(&secret, &link).unwrap();
    assert_eq!(load(&link).unwrap(), "hush");
    for (name, text, mode, expected) in [
        (
            "open",
            "hush",
            0o640,
            ": others may read it (mode 0640): chmod 600 ",
        ),
        (
            "writable",
            "hush",
            0o602,
            ": others may read it (mode 0602): chmod 600 ",
        ),
        (
            "empty",
            "\n",
            0o600,
            ": the secret is empty or has control characters",
        ),
        (
            "lines",
            "hush\nhush\n",
            0o600,
            ": the secret is empty or has control characters",
        ),
        ("long", &"x".repeat(65 << 10), 0o600, ": longer than 64 KiB"),
    ] {
        let message = load(&dir.write(name, text, mode)).unwrap_err();
        assert!(message.contains(expected), "{name}: {message}");
        assert!(!message.contains("hush"), "{message}");
    }
    let message = load(&dir.0).unwrap_err();
    assert!(message.contains("not a regular file"), "{message}");
}

#[test]
fn nothing_secret_is_printed_and_an_open_door_is_warned_of() {
    let dir = Dir::new();
    let anyone = r#""allow": {"anyone": true}"#;
    let broker = format!(r#""auth": {{"forgejo": {{{FORGEJO}, {anyone}}}}}"#);
    let config = load_broker(&dir, &broker).unwrap();
    let shown = format!("{config:?}");
    assert!(
        shown.contains("client_secret") && !shown.contains("hush"),
        "{shown}"
    );
    assert_eq!(config.warnings.len(), 1);
    let expected = "auth: whoever has an account at https://git.example.org/code/ is let in";
    assert!(
        config.warnings[0].ends_with(expected),
        "{:?}",
        config.warnings
    );
}
