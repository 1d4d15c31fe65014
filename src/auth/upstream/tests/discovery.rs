//! Where a provider's endpoints are, and what the browser is sent to.

use super::super::super::web::tests::fake::drip;
use super::super::discovery::Discovery;
use super::*;

#[test]
fn the_browser_is_sent_with_all_that_a_provider_needs() {
    let provider = Provider::start();
    let upstream = provider.upstream(UpstreamKind::Forgejo);
    let url = upstream
        .authorization_url("st&te", "challenge", "n0nce", REDIRECT)
        .unwrap();
    let expected = "/login/oauth/authorize?response_type=code&client_id=our+id\
        &redirect_uri=https%3A%2F%2Fmcp.example.org%2Foauth%2Fcallback\
        &scope=openid+profile+email+groups&state=st%26te&nonce=n0nce\
        &code_challenge=challenge&code_challenge_method=S256";
    assert_eq!(url, provider.server.url(expected));
}

#[test]
fn a_query_of_the_endpoint_is_kept_and_offline_access_asks_for_consent() {
    let provider = Provider::start();
    for (own, joint) in [("", "?"), ("?", "?"), ("?a=b", "?a=b&")] {
        let mut document = provider.document();
        document["authorization_endpoint"] = json!(format!("https://p.example/authorize{own}"));
        provider.set(DISCOVERY, "200 OK", &document);
        let mut options = options(UpstreamKind::Oidc, &provider.server.url(""));
        options.scopes = "openid offline_access".to_owned();
        let upstream = Upstream::new(options).unwrap();
        let url = upstream.authorization_url("s", "c", "n", REDIRECT).unwrap();
        let start = format!("https://p.example/authorize{joint}response_type=code&");
        assert!(url.starts_with(&start), "{url}");
        assert!(url.ends_with("&prompt=consent"), "{url}");
    }
}

#[test]
fn a_slash_at_the_end_of_an_issuer_makes_no_difference() {
    let provider = Provider::start();
    for (configured, announced) in [("", ""), ("/", ""), ("", "/"), ("/", "/")] {
        let mut document = provider.document();
        document["issuer"] = json!(provider.server.url(announced));
        provider.set(DISCOVERY, "200 OK", &document);
        let url = provider.server.url(configured);
        let upstream = Upstream::new(options(UpstreamKind::Forgejo, &url)).unwrap();
        let who = exchange(&upstream).unwrap();
        assert_eq!(who.issuer, provider.server.url(""));
        assert_eq!(upstream.issuer(), who.issuer);
        upstream
            .check_issuer(Some(&provider.server.url(announced)))
            .unwrap();
    }
}

#[test]
fn what_is_no_provider_is_an_error_that_says_why() {
    let provider = Provider::start();
    let with = |key: &str, value: Value| {
        let mut document = provider.document();
        document[key] = value;
        reply_json("200 OK", &document.to_string())
    };
    let large = reply_json("200 OK", &"x".repeat((1 << 20) + 1));
    let elsewhere = "http://p.example/token";
    let sub = provider.server.url("/sub");
    for (response, expected, why) in [
        (
            with("issuer", json!("https://p.example")),
            "broken",
            "another issuer",
        ),
        (with("issuer", json!(sub)), "broken", "another issuer"),
        (
            with("issuer", json!(provider.server.url("//"))),
            "broken",
            "another issuer",
        ),
        (with("issuer", Value::Null), "broken", "another issuer"),
        (
            with("token_endpoint", Value::Null),
            "broken",
            "no token_endpoint",
        ),
        (
            with("authorization_endpoint", json!(7)),
            "broken",
            "no authorization_endpoint",
        ),
        (
            with("userinfo_endpoint", json!(7)),
            "broken",
            "no userinfo_endpoint",
        ),
        (
            with("token_endpoint", json!(elsewhere)),
            "broken",
            "not an https URL",
        ),
        (reply_json("200 OK", "<html>"), "broken", "JSON"),
        (reply_json("200 OK", "[]"), "broken", "another issuer"),
        (
            reply("301 Moved", "Location: /x\r\n", ""),
            "broken",
            "redirect",
        ),
        (large, "broken", "too large"),
        (reply_json("404 Not Found", "{}"), "broken", "status 404"),
        (reply_json("429 Slow", "{}"), "try again", "status 429"),
        (reply_json("503 Later", "{}"), "try again", "status 503"),
        (String::new(), "try again", "cannot be reached"),
    ] {
        provider.set_raw(DISCOVERY, response);
        let upstream = provider.upstream(UpstreamKind::Forgejo);
        let failed = upstream
            .authorization_url("s", "c", "n", REDIRECT)
            .unwrap_err();
        assert_eq!(kind(&failed), expected, "{failed}");
        assert!(failed.to_string().contains(why), "{failed}");
        assert_eq!(failed.to_string().lines().count(), 1, "{failed}");
    }
}

#[test]
fn a_provider_that_takes_too_long_may_be_tried_again() {
    let server = Fake::tcp(drip);
    let options = options(UpstreamKind::Forgejo, &server.url(""));
    let upstream = Upstream::with_timeout(options, Duration::from_millis(300)).unwrap();
    let failed = exchange(&upstream).unwrap_err();
    assert_eq!(kind(&failed), "try again", "{failed}");
}

#[test]
fn a_url_that_no_provider_has_is_an_error_at_start() {
    for url in [
        "",
        "codeberg.org",
        "http://codeberg.org",
        "https://a:b@codeberg.org",
    ] {
        let failed = Upstream::new(options(UpstreamKind::Forgejo, url))
            .err()
            .unwrap();
        assert_eq!(kind(&failed), "broken", "{failed}");
    }
    let mut options = options(UpstreamKind::Forgejo, "https://codeberg.org");
    options.ca_file = Some("/nonexistent/ca.pem".into());
    let failed = Upstream::new(options).err().unwrap();
    assert!(
        failed.to_string().contains("/nonexistent/ca.pem"),
        "{failed}"
    );
}

#[test]
fn discovery_is_asked_once_an_hour_and_waits_after_a_failure() {
    let provider = Provider::start();
    let web = Web::new(None, TIMEOUT).unwrap();
    let discovery = Discovery::new(&provider.server.url("")).unwrap();
    let start = Instant::now();
    let at = |seconds: u64| discovery.provider(&web, start + Duration::from_secs(seconds));
    let good = reply_json("200 OK", &provider.document().to_string());
    let ill = reply_json("503 Later", "{}");
    let wrong = reply_json("200 OK", "{}");
    for (response, seconds, is_good, count) in [
        (&ill, 0, false, 1),
        (&good, 9, false, 1), // cooling down
        (&good, 10, true, 2),
        (&ill, 3609, true, 2),
        (&ill, 3610, true, 3), // what was known serves on
        (&ill, 3619, true, 3),
        (&good, 3620, true, 4),
        (&wrong, 7219, true, 4),
        (&wrong, 7220, false, 5), // it is no longer the same
        (&good, 7230, true, 6),
    ] {
        provider.set_raw(DISCOVERY, response.clone());
        assert_eq!(at(seconds).is_ok(), is_good, "{seconds}");
        assert_eq!(provider.count(DISCOVERY), count, "{seconds}");
    }
}

#[test]
fn an_answer_of_another_provider_is_found_out() {
    let provider = Provider::start();
    let upstream = provider.upstream(UpstreamKind::Forgejo);
    upstream.check_issuer(None).unwrap();
    for iss in ["", "https://evil.example", &provider.server.url("/x")] {
        assert_eq!(
            kind(&upstream.check_issuer(Some(iss)).unwrap_err()),
            "broken"
        );
    }
    let mut document = provider.document();
    document["authorization_response_iss_parameter_supported"] = json!(true);
    provider.set(DISCOVERY, "200 OK", &document);
    let upstream = provider.upstream(UpstreamKind::Forgejo);
    assert!(upstream.check_issuer(None).is_err());
    upstream
        .check_issuer(Some(&provider.server.url("")))
        .unwrap();
}
