//! The protected resource: who is told what, who is let in, and whose session is whose.

use serde_json::{Value, json};

use crate::support::sign_in::browser::{assert_page, encode};
use crate::support::sign_in::{App, Browser, Site, Tokens};
use crate::support::{Request, Response, Session, eventually};

const METADATA: &str = "/.well-known/oauth-protected-resource";

fn ping() -> Value {
    json!({ "jsonrpc": "2.0", "id": "ping", "method": "ping" })
}

/// Two servers, `a` and `b`.
fn two() -> Site {
    Site::setup().server("a").server("b").start()
}

/// A user's tokens for one of the servers.
fn tokens_for(site: &Site, server: &str, user: &str) -> Tokens {
    let app = site.app().at(&format!("{}/mcp/{server}", site.issuer));
    app.sign_in(site, &mut Browser::new(), user)
}

#[track_caller]
fn challenge(response: &Response) -> &str {
    let field = response.header("WWW-Authenticate");
    field.unwrap_or_else(|| panic!("no challenge: {response:?}"))
}

/// R1, R2, R10, R16: of one server, under each of its names.
#[test]
fn metadata_of_one_server_stands_at_its_paths_and_at_the_root() {
    let site = Site::start();
    for (suffix, resource) in [("", "/mcp"), ("/mcp", "/mcp"), ("/mcp/fake", "/mcp/fake")] {
        let response = site.get(&format!("{METADATA}{suffix}"));
        assert_eq!(response.status, 200, "{suffix}: {}", response.text());
        let expected = json!({
            "resource": format!("{}{resource}", site.issuer),
            "authorization_servers": [site.issuer],
            "scopes_supported": ["mcp"],
            "bearer_methods_supported": ["header"],
            "resource_name": "fake",
        });
        assert_eq!(response.json(), expected, "{suffix}");
        assert_eq!(response.header("Access-Control-Allow-Origin"), Some("*"));
        assert_eq!(response.header("Content-Type"), Some("application/json"));
    }
    for suffix in ["/mcp/other", "/mcp/", "/", "/mcpx", "x"] {
        assert_eq!(
            site.get(&format!("{METADATA}{suffix}")).status,
            404,
            "{suffix}"
        );
    }
}

/// R1: no resource stands for two servers.
#[test]
fn metadata_of_two_servers_stands_only_at_their_own_paths() {
    let site = two();
    for suffix in ["", "/mcp"] {
        assert_eq!(
            site.get(&format!("{METADATA}{suffix}")).status,
            404,
            "{suffix}"
        );
    }
    for server in ["a", "b"] {
        let json = site.get(&format!("{METADATA}/mcp/{server}")).json();
        assert_eq!(json["resource"], format!("{}/mcp/{server}", site.issuer));
        assert_eq!(json["resource_name"], server);
    }
}

/// R2, R3, R5, R8: what is wrong is said only to those who showed a token (RFC 6750, section 3.1).
#[test]
fn a_challenge_names_the_metadata_of_the_path_that_was_asked() {
    let site = Site::start();
    for path in ["/mcp", "/mcp/fake"] {
        for method in ["POST", "GET", "DELETE"] {
            let ask = |token: Option<&str>| {
                let mut client = site.broker.client().at(path);
                client.token = token.map(str::to_owned);
                client.request(method).body("{}").send(site.addr())
            };
            let without = ask(None);
            assert_eq!(without.status, 401, "{method} {path}");
            let metadata = format!("{}{METADATA}{path}", site.issuer);
            let expected = format!("resource_metadata=\"{metadata}\", scope=\"mcp\"");
            let field = challenge(&without);
            assert!(field.starts_with("Bearer "), "{field}");
            assert!(field.contains(&expected), "{field}");
            assert!(!field.contains("error"), "{field}");
            let with = ask(Some("mcpa_wrong"));
            assert_eq!(with.status, 401, "{method} {path}");
            let field = challenge(&with);
            assert!(field.contains("error=\"invalid_token\""), "{field}");
            assert!(field.contains(&expected), "{field}");
        }
    }
}

/// R12, R13, R20, R22: not with a session id either, and that is not even looked at.
#[test]
fn a_token_for_one_server_is_refused_at_the_other() {
    let site = two();
    let tokens = tokens_for(&site, "a", "alice");
    let session = site.client(&tokens).at("/mcp/a").ready();
    assert_eq!(site.client(&tokens).at("/mcp/b").initialize().status, 401);
    let there = session.clone().at("/mcp/b");
    for response in [there.post(&ping()), there.delete()] {
        assert_eq!(response.status, 401);
        assert!(challenge(&response).contains("error=\"invalid_token\""));
        assert!(challenge(&response).contains(&format!("{METADATA}/mcp/b")));
    }
    assert_eq!(session.post(&ping()).status, 200);
}

/// R12: each of the resource's names is the same server.
#[test]
fn a_token_is_good_under_each_name_of_its_server() {
    let site = Site::start();
    let (_, tokens) = site.sign_in("alice");
    let mut session = site.client(&tokens).at("/mcp/fake").ready();
    session.path = "/mcp".to_owned();
    assert_eq!(session.post(&ping()).status, 200);
}

/// R15: in the query it is no token, and in the body neither.
#[test]
fn a_token_counts_only_in_its_header() {
    let site = Site::start();
    let (_, tokens) = site.sign_in("alice");
    let client = site.broker.client();
    let query = encode(&[("access_token", &tokens.access)]);
    let elsewhere = client.clone().at(&format!("/mcp?{query}"));
    let response = elsewhere.post(&elsewhere.initialize_message());
    assert_eq!(response.status, 401);
    assert!(!challenge(&response).contains(&tokens.access));
    let mut message = client.initialize_message();
    message["access_token"] = json!(tokens.access);
    assert_eq!(client.post(&message).status, 401);
    // On every request, with a session too.
    let mut session = site.session(&tokens);
    session.token = None;
    assert_eq!(session.post(&ping()).status, 401);
}

/// R3, R20, R22: who is nobody learns nothing of sessions; somebody, that it is not theirs.
#[test]
fn a_session_id_is_no_proof_of_anything() {
    let site = Site::start();
    let (_, alice) = site.sign_in("alice");
    let (_, bob) = site.sign_in("bob");
    let session = site.session(&alice);
    let with_token = |token: &str| session.clone().with_token(token);
    assert_eq!(with_token(&bob.access).post(&ping()).status, 403);
    assert_eq!(with_token(&bob.access).delete().status, 403);
    assert_eq!(with_token("mcpa_x").post(&ping()).status, 401);
    let unknown = |token: Option<&str>| {
        let mut client = session.clone();
        client.id = Some("no-session-has-this-id".to_owned());
        client.token = token.map(str::to_owned);
        client.post(&ping()).status
    };
    assert_eq!(unknown(None), 401);
    assert_eq!(unknown(Some("mcpa_x")), 401);
    assert_eq!(unknown(Some(&bob.access)), 404);
    assert_eq!(session.post(&ping()).status, 200);
}

/// R22: another sign-in of the same user is the same principal.
#[test]
fn a_session_belongs_to_the_user_whatever_the_token() {
    let site = Site::start();
    let (app, first) = site.sign_in("alice");
    let session = site.session(&first);
    let next = app.renewed(&site, &first);
    let renewed = session.clone().with_token(&next.access);
    assert_eq!(renewed.post(&ping()).status, 200);
    let (_, other) = site.sign_in("alice");
    let other = session.clone().with_token(&other.access);
    assert_eq!(other.post(&ping()).status, 200);
}

/// R13: static tokens go on beside it, and stand for other people even of the same name.
#[test]
fn static_tokens_work_beside_it() {
    let site = Site::setup().with(|it| it.user("alice", &[])).start();
    let token = site.broker.token("alice").to_owned();
    let (_, tokens) = site.sign_in("alice");
    let signed_in = site.session(&tokens);
    // What stands for their token at the provider, they do not have.
    let mut client = site.broker.client().with_token(&token);
    let response = client.initialize();
    assert_ne!(response.status, 401, "{response:?}");
    assert_ne!(response.status, 200, "{}", response.text());
    assert_eq!(
        signed_in.clone().with_token(&token).post(&ping()).status,
        403
    );
    assert_eq!(signed_in.post(&ping()).status, 200);
}

#[test]
fn static_tokens_open_servers_that_need_nothing_of_the_provider() {
    let entry = json!({ "command": crate::support::fake_mcp() });
    let setup = Site::setup().server_entry("plain", entry);
    let site = setup.with(|it| it.user("carol", &[])).start();
    let session = site.broker.user("carol").ready();
    assert_eq!(session.post(&ping()).status, 200);
    let (_, tokens) = site.sign_in("alice");
    assert_eq!(site.session(&tokens).post(&ping()).status, 200);
}

/// R18: pages of other sites may read what is for all, and ask nothing of a server or a person.
#[test]
fn origins_are_checked_where_there_is_something_to_steal() {
    let site = Site::start();
    let (app, tokens) = site.sign_in("alice");
    let origin = |request: Request| request.header("Origin", "https://evil.example");
    let client = site.client(&tokens);
    let initialize = client
        .request("POST")
        .body(client.initialize_message().to_string());
    let authorize = app.url(&site).replace(&site.issuer, "");
    let refused = origin(initialize).send(site.addr());
    assert_eq!(refused.status, 403, "{refused:?}");
    for request in [
        site.request("GET", &authorize),
        site.request("POST", "/oauth/authorize"),
        site.request("GET", "/oauth/callback?code=x&state=y"),
    ] {
        let response = origin(request).send(site.addr());
        assert_page(&response, 400, "This sign-in was started elsewhere");
        assert_eq!(response.header("Access-Control-Allow-Origin"), None);
    }
    let form = encode(&[("grant_type", "refresh_token")]);
    for (request, status) in [
        (site.request("GET", &format!("{METADATA}/mcp")), 200),
        (
            site.request("GET", "/.well-known/oauth-authorization-server"),
            200,
        ),
        (
            site.request("GET", "/.well-known/openid-configuration"),
            200,
        ),
        (site.request("POST", "/oauth/token").body(form), 400),
        (site.request("POST", "/oauth/register").body("{}"), 400),
        (site.request("POST", "/oauth/revoke").body(""), 400),
    ] {
        let response = origin(request).send(site.addr());
        assert_eq!(response.status, status, "{response:?}");
        assert_eq!(response.header("Access-Control-Allow-Origin"), Some("*"));
        assert_eq!(response.header("Access-Control-Allow-Credentials"), None);
    }
}

/// What browsers ask before they send a registration or a token request.
#[test]
fn preflights_are_answered_where_programs_ask() {
    let site = Site::start();
    for path in ["/oauth/token", "/oauth/register", "/oauth/revoke"] {
        let request = site.request("OPTIONS", path);
        let request = request
            .header("Origin", "https://inspector.example")
            .header("Access-Control-Request-Method", "POST")
            .header("Access-Control-Request-Headers", "content-type");
        let response = request.send(site.addr());
        assert_eq!(response.status, 204, "{path}: {response:?}");
        assert_eq!(response.header("Access-Control-Allow-Origin"), Some("*"));
        let headers = response
            .header("Access-Control-Allow-Headers")
            .unwrap_or_default();
        assert!(headers.contains("Content-Type"), "{headers}");
    }
    let authorize = site
        .request("OPTIONS", "/oauth/authorize")
        .send(site.addr());
    assert_eq!(authorize.status, 405);
}

/// R18: a name that was rebound to this address opens nothing.
#[test]
fn a_foreign_host_is_refused_everywhere() {
    let site = Site::start();
    for (method, path) in [
        ("GET", METADATA),
        ("GET", "/.well-known/oauth-authorization-server"),
        ("GET", "/oauth/authorize"),
        ("POST", "/oauth/token"),
        ("POST", "/oauth/register"),
        ("POST", "/mcp"),
    ] {
        let request = site.request(method, path).header("Host", "evil.example");
        assert_eq!(request.send(site.addr()).status, 403, "{method} {path}");
    }
}

/// R3, S13: a token that has expired is none, and its session goes on with the next one.
#[test]
fn an_access_token_expires() {
    let site = Site::setup()
        .auth("access_token_lifetime", json!("1s"))
        .start();
    let (app, tokens) = site.sign_in("alice");
    let session = site.session(&tokens);
    eventually("the token expires", || site.knock(&tokens) == 401);
    let response = session.post(&ping());
    assert_eq!(response.status, 401);
    assert!(challenge(&response).contains("error=\"invalid_token\""));
    let next = app.renewed(&site, &tokens);
    let session: Session = session.with_token(&next.access);
    assert_eq!(session.post(&ping()).status, 200);
}

/// R12, R16: the client may write scheme and host as it likes, and one slash at the end.
#[test]
fn a_resource_may_be_written_otherwise_and_is_the_same() {
    let site = Site::start();
    let upper = site.issuer.replace("http", "HTTP");
    for resource in [format!("{upper}/mcp"), format!("{}/mcp/", site.issuer)] {
        let app: App = site.app().at(&resource);
        let tokens = app.sign_in(&site, &mut Browser::new(), "alice");
        assert_eq!(site.knock(&tokens), 400, "{resource}");
        // A refresh names it as well.
        app.renewed(&site, &tokens);
    }
}
