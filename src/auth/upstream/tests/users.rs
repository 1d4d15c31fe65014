//! Who has signed in, and who of them may enter.

use std::time::UNIX_EPOCH;

use super::*;

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs()
}

/// A JWT as a token endpoint gives it; nobody looks at its signature.
fn jwt(claims: &Value) -> String {
    let encode = |text: String| BASE64_URL_SAFE_NO_PAD.encode(text);
    format!(
        "{}.{}.c2ln",
        encode("{\"alg\":\"RS256\"}".to_owned()),
        encode(claims.to_string())
    )
}

impl Provider {
    fn id_claims(&self) -> Value {
        json!({
            "iss": self.server.url(""),
            "sub": "7",
            "aud": "our id",
            "exp": now() + 300,
            "nonce": "n0nce",
        })
    }

    fn give_id_token(&self, token: &str) {
        let mut answer = tokens();
        answer["id_token"] = json!(token);
        self.set(TOKEN, "200 OK", &answer);
    }

    /// Signs in with these claims on top of the good ones.
    fn sign_in(&self, id: Value, info: Value) -> Result<SignedIn, UpstreamError> {
        let mut claims = self.id_claims();
        let more = id.as_object().unwrap().clone();
        claims.as_object_mut().unwrap().extend(more);
        claims
            .as_object_mut()
            .unwrap()
            .retain(|_, value| !value.is_null());
        self.give_id_token(&jwt(&claims));
        self.set(USER_INFO, "200 OK", &info);
        exchange(&self.upstream(UpstreamKind::Oidc))
    }
}

/// OpenID Connect Core 3.1.3.7.
#[test]
fn an_id_token_must_be_ours_and_of_this_sign_in() {
    let provider = Provider::start();
    let slash = provider.server.url("/");
    for (claims, why) in [
        (json!({}), ""),
        (json!({"iss": slash}), ""),
        (json!({"aud": ["our id"]}), ""),
        (json!({"aud": ["other", "our id"], "azp": "our id"}), ""),
        (json!({"azp": "our id"}), ""),
        (json!({"exp": now() - 30}), ""),
        (json!({"iss": "https://evil.example"}), "another issuer"),
        (json!({"iss": null}), "another issuer"),
        (json!({"aud": "other"}), "another client"),
        (json!({"aud": []}), "another client"),
        (json!({"aud": null}), "another client"),
        (json!({"aud": ["other", "our id"]}), "several clients"),
        (
            json!({"aud": ["other", "our id"], "azp": "other"}),
            "another client",
        ),
        (json!({"azp": "other"}), "another client"),
        (json!({"exp": now() - 90}), "expired"),
        (json!({"exp": null}), "expired"),
        (json!({"exp": "9999999999"}), "expired"),
        (json!({"nonce": "other"}), "another sign-in"),
        (json!({"nonce": null}), "another sign-in"),
        (json!({"sub": "8"}), "who it is"),
    ] {
        match (provider.sign_in(claims.clone(), json!({"sub": "7"})), why) {
            (Ok(who), "") => assert_eq!(who.subject, "7"),
            (Err(failed), why) => {
                assert_eq!(kind(&failed), "broken", "{claims}: {failed}");
                assert!(
                    !why.is_empty() && failed.to_string().contains(why),
                    "{claims}: {failed}"
                );
            }
            (Ok(_), why) => panic!("{claims}: let in in spite of {why}"),
        }
    }
}

#[test]
fn an_id_token_that_is_none_makes_no_sense() {
    let provider = Provider::start();
    let good = jwt(&provider.id_claims());
    let payload = good.split('.').nth(1).unwrap();
    for token in [
        "x",
        "a.b",
        "a.!.c",
        &format!("a.{payload}"),
        &format!("a.{payload}.c.d"),
        &jwt(&json!("text")),
    ] {
        provider.give_id_token(token);
        let failed = exchange(&provider.upstream(UpstreamKind::Forgejo)).unwrap_err();
        assert!(
            failed.to_string().contains("not a JWT"),
            "{token}: {failed}"
        );
    }
}

#[test]
fn only_forgejo_may_leave_the_id_token_out() {
    let provider = Provider::start();
    exchange(&provider.upstream(UpstreamKind::Forgejo)).unwrap();
    let failed = exchange(&provider.upstream(UpstreamKind::Oidc)).unwrap_err();
    assert_eq!(kind(&failed), "broken");
    assert!(failed.to_string().contains("openid"), "{failed}");
}

#[test]
fn who_it_is_must_be_said() {
    let provider = Provider::start();
    let upstream = provider.upstream(UpstreamKind::Forgejo);
    for info in [
        json!({}),
        json!({"sub": 7}),
        json!({"sub": ""}),
        json!({"sub": "a\nb"}),
        json!({"sub": "é"}),
        json!({"sub": "x".repeat(256)}),
    ] {
        provider.set(USER_INFO, "200 OK", &info);
        assert_eq!(kind(&exchange(&upstream).unwrap_err()), "broken", "{info}");
    }
    for (status, expected) in [
        ("401 Unauthorized", "sign in again"),
        ("500 Oops", "try again"),
        ("404 Not Found", "broken"),
    ] {
        provider.set(USER_INFO, status, &json!({"sub": "7"}));
        assert_eq!(kind(&exchange(&upstream).unwrap_err()), expected);
    }
    provider.set_raw(
        USER_INFO,
        reply_json("200 OK", "eyJhbGciOiJSUzI1NiJ9.e30.c2ln"),
    );
    assert_eq!(kind(&exchange(&upstream).unwrap_err()), "broken");
}

#[test]
fn an_id_token_is_enough_where_there_is_no_userinfo_endpoint() {
    let provider = Provider::start();
    let mut document = provider.document();
    document["userinfo_endpoint"] = Value::Null;
    provider.set(DISCOVERY, "200 OK", &document);
    let who = provider
        .sign_in(json!({"name": "Bob", "groups": ["g"]}), json!({}))
        .unwrap();
    assert_eq!((&*who.subject, &*who.name), ("7", "Bob"));
    assert_eq!(
        (provider.count(USER_INFO), who.groups),
        (0, vec!["g".to_owned()])
    );
    provider.set(TOKEN, "200 OK", &tokens());
    let failed = exchange(&provider.upstream(UpstreamKind::Forgejo)).unwrap_err();
    assert_eq!(kind(&failed), "broken");
}

#[test]
fn a_name_is_the_best_there_is_and_fit_for_a_log() {
    let provider = Provider::start();
    let long = "x".repeat(100);
    for (info, name) in [
        (
            json!({"preferred_username": "al", "name": "Alice", "email": "a@b"}),
            "al",
        ),
        (json!({"name": "Alice Ä", "email": "a@b"}), "Alice Ä"),
        (json!({"preferred_username": "", "name": "Alice"}), "Alice"),
        (
            json!({"preferred_username": "\n\u{202e}", "name": "Alice"}),
            "Alice",
        ),
        (json!({"email": "a@b"}), "a@b"),
        (json!({}), "7"),
        (
            json!({"name": " a\r\nb\0\u{7f}\u{85}c\u{200b}\u{202e}\u{2066}d "}),
            "abcd",
        ),
        (json!({"name": long}), &long[..64]),
    ] {
        let mut info = info;
        info["sub"] = json!("7");
        assert_eq!(
            provider.sign_in(json!({}), info.clone()).unwrap().name,
            name,
            "{info}"
        );
    }
}

#[test]
fn an_address_counts_only_as_far_as_the_provider_vouches_for_it() {
    let provider = Provider::start();
    let (a, b) = ("a@example.org", "b@example.org");
    for (id, info, expected) in [
        (json!({}), json!({}), (None, false)),
        (json!({}), json!({"email": a}), (Some(a), false)),
        (
            json!({}),
            json!({"email": a, "email_verified": true}),
            (Some(a), true),
        ),
        (
            json!({}),
            json!({"email": a, "email_verified": "true"}),
            (Some(a), true),
        ),
        (
            json!({}),
            json!({"email": a, "email_verified": false}),
            (None, false),
        ),
        (
            json!({}),
            json!({"email": a, "email_verified": "false"}),
            (None, false),
        ),
        (
            json!({}),
            json!({"email": a, "email_verified": null}),
            (None, false),
        ),
        (
            json!({"email": a, "email_verified": true}),
            json!({"email": a}),
            (Some(a), true),
        ),
        (
            json!({"email": a, "email_verified": true}),
            json!({"email": b}),
            (Some(b), false),
        ),
        (
            json!({"email": a, "email_verified": true}),
            json!({}),
            (Some(a), true),
        ),
        (
            json!({"email": a, "email_verified": false}),
            json!({"email": a, "email_verified": true}),
            (None, false),
        ),
        (
            json!({}),
            json!({"email": "a@b\nc", "email_verified": true}),
            (None, false),
        ),
        (
            json!({}),
            json!({"email": "none", "email_verified": true}),
            (None, false),
        ),
    ] {
        let mut info = info;
        info["sub"] = json!("7");
        let who = provider.sign_in(id.clone(), info.clone()).unwrap();
        let found = (who.email.as_deref(), who.is_email_verified);
        assert_eq!(found, expected, "{id} {info}");
    }
}

#[test]
fn groups_are_the_strings_in_a_list() {
    let provider = Provider::start();
    let many: Vec<String> = (0..2000).map(|no| no.to_string()).collect();
    for (groups, expected) in [
        (json!(["org", "org:team"]), vec!["org", "org:team"]),
        (json!("org"), vec!["org"]),
        (json!(["org", 7, null, ["x"], "x".repeat(257)]), vec!["org"]),
        (json!({"org": true}), vec![]),
        (json!(many), many[..1000].iter().map(|it| &**it).collect()),
    ] {
        let info = json!({"sub": "7", "groups": groups});
        assert_eq!(provider.sign_in(json!({}), info).unwrap().groups, expected);
    }
}

#[test]
fn only_those_who_are_listed_enter() {
    let provider = Provider::start();
    let sure = json!({
        "sub": "42",
        "preferred_username": "Alice",
        "name": "mallory",
        "email": "Alice@example.org",
        "email_verified": true,
        "groups": ["org", "org:team"],
    });
    let unsure = json!({"sub": "42", "name": "alice", "email": "alice@example.org"});
    let odd = json!({"sub": "42", "preferred_username": "\u{212a}ate\u{202e}"});
    let list = |text: &str| vec![text.to_owned()];
    let users = |text| Allow {
        users: list(text),
        ..Allow::default()
    };
    let groups = |text| Allow {
        groups: list(text),
        ..Allow::default()
    };
    let emails = |text| Allow {
        emails: list(text),
        ..Allow::default()
    };
    let anyone = Allow {
        anyone: true,
        ..Allow::default()
    };
    for (allow, info, is_let_in) in [
        (Allow::default(), &sure, false),
        (anyone, &unsure, true),
        (users("alice"), &sure, true),
        (users("ALICE"), &sure, true),
        (users("42"), &sure, true),
        (users("4"), &sure, false),
        (users(""), &unsure, false),
        (users("alic"), &sure, false),
        (users("mallory"), &sure, false), // anybody may call themselves so
        (users("alice"), &unsure, false),
        (users("alice@example.org"), &sure, false),
        (users("kate"), &odd, false), // looks alike
        (groups("org"), &sure, true),
        (groups("org:team"), &sure, true),
        (groups("ORG"), &sure, false),
        (groups("org:"), &sure, false),
        (groups("org"), &unsure, false),
        (emails("alice@EXAMPLE.org"), &sure, true),
        (emails("alice@example.org"), &unsure, false),
        (emails("@example.org"), &sure, false),
    ] {
        provider.set(USER_INFO, "200 OK", info);
        let mut options = options(UpstreamKind::Forgejo, &provider.server.url(""));
        options.allow = allow.clone();
        let upstream = Upstream::new(options).unwrap();
        let who = exchange(&upstream).unwrap();
        assert_eq!(
            upstream.admits(&who.subject, &who.admission()),
            is_let_in,
            "{allow:?} {info}"
        );
    }
}
