//! S6, S8 to S11, S15 and `resource`: what a browser brings, and where it is sent.

use super::super::authorize::{PageError, error_location, success_location};
use super::*;

const CB: &str = "https://app.example/cb";

/// A request that is granted; a case changes one thing about it.
const GOOD: [(&str, &str); 8] = [
    ("response_type", "code"),
    ("client_id", "abc"),
    ("redirect_uri", CB),
    ("state", "s&t a+t=e"),
    ("scope", "mcp offline_access"),
    ("code_challenge", CHALLENGE),
    ("code_challenge_method", "S256"),
    ("resource", "https://mcp.example.org/mcp"),
];

/// `GOOD` with each parameter in `changes` put in the place of its own, or taken away (`None`).
fn query(changes: &[(&str, Option<&str>)]) -> String {
    let is_changed = |name: &str| changes.iter().any(|(changed, _)| *changed == name);
    let kept = GOOD.iter().filter(|(name, _)| !is_changed(name)).copied();
    let new = changes
        .iter()
        .filter_map(|(name, value)| Some((*name, (*value)?)));
    form(&kept.chain(new).collect::<Vec<_>>())
}

fn page(outcome: Result<Request, Refusal>) -> PageError {
    match outcome {
        Err(Refusal::Page(page)) => page,
        other => panic!("no page but {other:?}"),
    }
}

/// S15: what the client is told; the state and the issuer always come along.
fn refused(query: &str, client: &Client, resources: &Resources) -> String {
    let Err(Refusal::Redirect(location)) = ask(query, client, resources) else {
        panic!("{query}: not sent back");
    };
    let (address, answer) = parts(&location);
    assert_eq!(address, CB, "{query}");
    assert_eq!(
        answer.get("iss").map(String::as_str),
        Some(ISSUER),
        "{query}"
    );
    assert!(!answer["error_description"].is_empty(), "{query}");
    assert!(
        !answer["error_description"].contains(['"', '\\']),
        "{query}"
    );
    let state = answer.get("state").map_or("none", String::as_str);
    format!("{} {state}", answer["error"])
}

/// S6, S9.
#[test]
fn a_good_request_is_read_as_it_is_meant() {
    let client = client("abc", &[CB, "http://localhost/cb"]);
    let request = ask(&query(&[]), &client, &resources(&["forge"])).unwrap();
    let expected = Request {
        client_id: "abc".to_owned(),
        client_name: "Test".to_owned(),
        redirect_uri: CB.to_owned(),
        state: Some("s&t a+t=e".to_owned()),
        challenge: CHALLENGE.to_owned(),
        resource: resources(&["forge"]).only().unwrap(),
        scope: "mcp".to_owned(),
        is_loopback_only: false,
    };
    assert_eq!(request, expected);
}

/// S6, S15, RFC 8707: the client is told. Of each case: what is changed, the error.
#[test]
fn what_the_client_is_told() {
    let (client, resources) = (client("abc", &[CB]), resources(&["forge"]));
    let long = "x".repeat(4096);
    #[rustfmt::skip]
    let table: &[(&str, Option<&str>, &str)] = &[
        ("response_type", None, "invalid_request"),
        ("response_type", Some(""), "invalid_request"),
        ("response_type", Some("token"), "unsupported_response_type"),
        ("response_type", Some("code id_token"), "unsupported_response_type"),
        ("response_mode", Some("fragment"), "invalid_request"),
        ("response_mode", Some("form_post"), "invalid_request"),
        ("request", Some("eyJ"), "request_not_supported"),
        ("request_uri", Some("https://a.example/"), "request_uri_not_supported"),
        ("code_challenge", None, "invalid_request"),
        ("code_challenge", Some(""), "invalid_request"),
        ("code_challenge", Some(&CHALLENGE[1..]), "invalid_request"),
        ("code_challenge", Some("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw/cM"), "invalid_request"),
        ("code_challenge", Some("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM="), "invalid_request"),
        ("code_challenge", Some(&long[..129]), "invalid_request"),
        ("code_challenge", Some(&long), "invalid_request"),
        ("code_challenge_method", None, "invalid_request"),
        ("code_challenge_method", Some("plain"), "invalid_request"),
        ("code_challenge_method", Some("s256"), "invalid_request"),
        ("prompt", Some("none"), "interaction_required"),
        ("prompt", Some("login none"), "interaction_required"),
        ("scope", Some(&long), "invalid_request"),
        ("resource", Some("https://mcp.example.org/mcp/other"), "invalid_target"),
        ("resource", Some("https://mcp.example.org"), "invalid_target"),
        ("resource", Some("https://evil.example/mcp"), "invalid_target"),
        ("resource", Some(&long), "invalid_target"),
    ];
    for (name, value, error) in table {
        let answer = refused(&query(&[(name, *value)]), &client, &resources);
        assert_eq!(answer, format!("{error} s&t a+t=e"), "{name} {value:?}");
    }
    let two = super::resources(&["forge", "wiki"]);
    let answer = refused(&query(&[("resource", None)]), &client, &two);
    assert_eq!(answer, "invalid_target s&t a+t=e");
}

/// RFC 6749, section 3.1: of each parameter one, but `resource` has an error of its own.
#[test]
fn a_parameter_that_stands_twice() {
    let (client, resources) = (client("abc", &[CB]), resources(&["forge"]));
    for (name, value) in GOOD {
        let twice = format!("{}&{}", query(&[]), form(&[(name, value)]));
        match name {
            "client_id" | "redirect_uri" => {
                let page = page(ask(&twice, &client, &resources));
                assert!(
                    page.what.contains(name) && !page.advice.is_empty(),
                    "{page:?}"
                );
            }
            "state" => assert_eq!(refused(&twice, &client, &resources), "invalid_request none"),
            "resource" => {
                let answer = refused(&twice, &client, &resources);
                assert_eq!(answer, "invalid_target s&t a+t=e");
            }
            _ => {
                let answer = refused(&twice, &client, &resources);
                assert_eq!(answer, "invalid_request s&t a+t=e", "{name}");
            }
        }
    }
    let unknown = format!("{}&x=1&x=2", query(&[]));
    assert!(ask(&unknown, &client, &resources).is_ok());
}

/// A.3, "unknown query parameters": what clients add makes no difference, nor do empty ones.
#[test]
fn what_does_not_matter() {
    let (client, resources) = (client("abc", &[CB]), resources(&["forge"]));
    let plain = ask(&query(&[]), &client, &resources).unwrap();
    #[rustfmt::skip]
    let table: &[(&str, Option<&str>)] = &[
        ("prompt", Some("consent")),
        ("prompt", Some("login consent")),
        ("prompt", Some("nonesuch")),
        ("scope", None),
        ("scope", Some("openid profile email")),
        ("scope", Some("")),
        ("response_mode", Some("query")),
        ("response_mode", Some("")),
        ("request", Some("")),
        ("nonce", Some("x")),
        ("access_type", Some("offline")),
        ("resource", None),
        ("resource", Some("")),
        ("resource", Some("HTTPS://MCP.EXAMPLE.ORG/mcp/")),
    ];
    for (name, value) in table {
        let request = ask(&query(&[(name, *value)]), &client, &resources).unwrap();
        assert!(request == plain, "{name} {value:?}");
    }
    for state in [None, Some("")] {
        let request = ask(&query(&[("state", state)]), &client, &resources).unwrap();
        assert_eq!(request.state, None);
    }
    let state = "x".repeat(2048);
    let request = ask(&query(&[("state", Some(&state))]), &client, &resources).unwrap();
    assert_eq!(request.state, Some(state.clone()));
    let longer = state + "x";
    let answer = refused(&query(&[("state", Some(&longer))]), &client, &resources);
    assert_eq!(answer, "invalid_request none");
}

/// S9, S10: nobody is sent to an address that is not known to be the client's.
#[test]
fn what_only_the_person_is_told() {
    let resources = resources(&["forge"]);
    let (web, long) = (client("abc", &[CB]), "x".repeat(2049));
    #[rustfmt::skip]
    let table: &[(&str, Option<&str>)] = &[
        ("client_id", None),
        ("client_id", Some("")),
        ("client_id", Some("abcd")),
        ("client_id", Some(&long)),
        ("redirect_uri", Some("https://evil.example/cb")),
        ("redirect_uri", Some("https://app.example/cb2")),
        ("redirect_uri", Some("https://app.example/cb#")),
        ("redirect_uri", Some("javascript:alert(1)")),
        ("redirect_uri", Some("nonsense")),
        ("redirect_uri", Some(&long)),
    ];
    for (name, value) in table {
        for also in ["code", "token"] {
            let changes = [(*name, *value), ("response_type", Some(also))];
            let page = page(ask(&query(&changes), &web, &resources));
            assert!(
                page.what.ends_with('.') && page.advice.ends_with('.'),
                "{page:?}"
            );
            assert!(!page.what.contains("evil"), "{page:?}");
        }
    }
    for many in ["x=1&".repeat(65), "x".repeat(40_000)] {
        let query = format!("{many}&{}", query(&[]));
        assert!(
            page(ask(&query, &web, &resources))
                .what
                .contains("too long")
        );
    }
    page(ask("", &web, &resources));
}

/// S9: which clients need not say where the answer goes.
#[test]
fn a_redirect_address_that_is_left_out() {
    let resources = resources(&["forge"]);
    #[rustfmt::skip]
    let table: &[(&[&str], Option<&str>)] = &[
        (&[CB], Some(CB)),
        (&["cursor://x/cb"], Some("cursor://x/cb")),
        (&[CB, "https://app.example/cb2"], None),
        (&["http://localhost/cb"], None),
        (&["http://127.0.0.1:3000/cb"], None),
        (&[], None),
    ];
    for (registered, expected) in table {
        for empty in [None, Some("")] {
            let query = query(&[("redirect_uri", empty)]);
            let outcome = ask(&query, &client("abc", registered), &resources);
            match expected {
                Some(expected) => assert_eq!(outcome.unwrap().redirect_uri, *expected),
                None => drop(page(outcome)),
            }
        }
    }
}

/// A.2, CIMD: extra warning where all addresses are on this computer.
#[test]
fn a_client_that_is_on_this_computer_only() {
    let loopback = "http://127.0.0.1:5/cb";
    #[rustfmt::skip]
    let table: &[(&[&str], bool)] = &[
        (&["http://localhost/cb", "http://127.0.0.1/cb"], true),
        (&["http://127.0.0.1/cb", CB], false),
        (&["http://127.0.0.1/cb", "cursor://x/cb"], false),
    ];
    for (registered, expected) in table {
        let query = query(&[("redirect_uri", Some(loopback))]);
        let client = client("abc", registered);
        let request = ask(&query, &client, &resources(&["forge"])).unwrap();
        assert_eq!(request.is_loopback_only, *expected, "{registered:?}");
        assert_eq!(request.redirect_uri, loopback);
    }
}

/// S15: to the query that is there, what is ours is added.
#[test]
fn where_the_answer_goes() {
    #[rustfmt::skip]
    let table = [
        ("https://a.example/cb", "https://a.example/cb?"),
        ("https://a.example/cb?", "https://a.example/cb?"),
        ("https://a.example/cb?x=1", "https://a.example/cb?x=1&"),
        ("https://a.example/cb?x=1&", "https://a.example/cb?x=1&"),
        ("http://127.0.0.1:5/cb", "http://127.0.0.1:5/cb?"),
        ("cursor://x/cb", "cursor://x/cb?"),
    ];
    let good = ask(&query(&[]), &client("abc", &[CB]), &resources(&["forge"])).unwrap();
    for (redirect_uri, start) in table {
        let request = Request {
            redirect_uri: redirect_uri.to_owned(),
            ..good.clone()
        };
        let location = success_location(&request, "mcpc_x-_", ISSUER);
        let own = "code=mcpc_x-_&state=s%26t+a%2Bt%3De&iss=https%3A%2F%2Fmcp.example.org";
        assert_eq!(location, format!("{start}{own}"));
        let location = error_location(redirect_uri, None, ISSUER, "access_denied", "no, sorry");
        let own = "error=access_denied&error_description=no%2C+sorry";
        assert_eq!(
            location,
            format!("{start}{own}&iss=https%3A%2F%2Fmcp.example.org")
        );
    }
}

#[test]
fn a_request_is_kept_as_text() {
    let (client, resources) = (client("abc", &[CB]), resources(&["forge"]));
    for state in [None, Some("x"), Some("\"\\\n\u{1f980}")] {
        let request = ask(&query(&[("state", state)]), &client, &resources).unwrap();
        let kept = request.to_json();
        assert_eq!(Request::from_json(&kept), Some(request.clone()));
        assert_eq!(Request::from_json(&kept[1..]), None);
        assert_eq!(Request::from_json(&kept.replace("challenge", "x")), None);
    }
    for text in ["", "{}", "[]", "null", "{\"state\":1}"] {
        assert_eq!(Request::from_json(text), None, "{text}");
    }
}
