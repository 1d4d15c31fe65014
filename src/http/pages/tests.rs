//! Pages as they are sent.

use std::path::Path;

use serde_json::json;

use super::*;

const HOSTILE: &str = "<img src=x onerror=alert(1)><script>alert(2)</script>\" onfocus='x' {{7*7}}";

fn claude() -> Consent<'static> {
    Consent {
        broker: "mcp.example.org",
        client_name: "Claude",
        standing: Standing::Pinned { host: "claude.ai" },
        redirect_host: "claude.ai",
        redirect_uri: "https://claude.ai/api/mcp/auth_callback",
        destination: Destination::Web,
        server: "forgejo",
        resource: "https://mcp.example.org/mcp/forgejo",
        provider: "Codeberg",
        scopes: "openid profile email groups write:repository write:issue read:user",
        is_forgejo: true,
        request: "c2VhbGVk",
    }
}

fn claude_code() -> Consent<'static> {
    Consent {
        client_name: "Claude Code",
        redirect_host: "localhost:53682",
        redirect_uri: "http://localhost:53682/callback",
        destination: Destination::Loopback,
        ..claude()
    }
}

fn cursor() -> Consent<'static> {
    Consent {
        client_name: "Cursor",
        standing: Standing::Registered,
        redirect_host: "cursor: (an app on this device)",
        redirect_uri: "cursor://anysphere.cursor-mcp/oauth/callback",
        destination: Destination::PrivateUse,
        scopes: "openid profile email offline_access",
        is_forgejo: false,
        ..claude()
    }
}

/// Whatever a stranger or an operator may choose, chosen badly.
fn hostile() -> Consent<'static> {
    Consent {
        broker: HOSTILE,
        client_name: HOSTILE,
        standing: Standing::Document { host: HOSTILE },
        redirect_host: HOSTILE,
        redirect_uri: "https://a.example/cb?a=\"><script>alert(3)</script>&long=\
                       aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        server: HOSTILE,
        resource: HOSTILE,
        provider: HOSTILE,
        scopes: HOSTILE,
        request: HOSTILE,
        ..claude()
    }
}

fn registered() -> Consent<'static> {
    Consent {
        client_name: "Claude",
        standing: Standing::Registered,
        redirect_host: "connect.tools.example",
        redirect_uri: "https://connect.tools.example/oauth/callback",
        scopes: "openid profile email groups",
        ..claude()
    }
}

fn document() -> Consent<'static> {
    Consent {
        client_name: "Zed",
        standing: Standing::Document { host: "zed.dev" },
        redirect_host: "127.0.0.1:41234",
        redirect_uri: "http://127.0.0.1:41234/callback",
        destination: Destination::Loopback,
        ..claude()
    }
}

fn troubles() -> [(&'static str, u16, Trouble<'static>); 9] {
    let provider = "Codeberg";
    let name = "alice";
    let what = "The address that you should be sent back to is not one of the application's.";
    let advice = "If you did not start this yourself just now, close this page.";
    [
        ("bad-request", 400, Trouble::Request { what, advice }),
        ("unknown-client", 400, Trouble::UnknownClient),
        ("expired", 400, Trouble::Expired),
        ("other-browser", 400, Trouble::OtherBrowser),
        (
            "provider-said-no",
            403,
            Trouble::ProviderSaidNo { provider },
        ),
        (
            "provider-unreachable",
            503,
            Trouble::ProviderUnreachable { provider },
        ),
        ("not-admitted", 403, Trouble::NotAdmitted { name, provider }),
        ("rate-limited", 429, Trouble::RateLimited),
        ("broken", 500, Trouble::Broken),
    ]
}

/// Every page, by a name for it.
fn all() -> Vec<(String, Page)> {
    let consents = [
        ("consent-known", claude()),
        ("consent-loopback", claude_code()),
        ("consent-document", document()),
        ("consent-private", cursor()),
        ("consent-registered", registered()),
        ("consent-hostile", hostile()),
    ];
    let consents = consents.map(|(name, it)| (name.to_owned(), consent(&it)));
    let troubles = troubles().map(|(name, _, it)| {
        let is_ours = matches!(it, Trouble::ProviderUnreachable { .. } | Trouble::Broken);
        let detail = is_ours.then_some("codeberg.org: timed out after 10 s");
        let page = trouble("mcp.example.org", it, detail);
        (format!("trouble-{name}"), page)
    });
    let location = "cursor://anysphere.cursor-mcp/oauth/callback?code=mcpc_x&state=y";
    let handovers = [("handover", true), ("handover-error", false)].map(|(name, is_signed_in)| {
        let page = handover("mcp.example.org", "Cursor", location, is_signed_in);
        (name.to_owned(), page)
    });
    consents
        .into_iter()
        .chain(troubles)
        .chain(handovers)
        .collect()
}

#[track_caller]
fn has(page: &Page, text: &str) {
    assert!(page.html.contains(text), "no {text:?} in {}", page.html);
}

#[track_caller]
fn lacks(page: &Page, text: &str) {
    assert!(!page.html.contains(text), "{text:?} in {}", page.html);
}

/// S10, S11, S18; rules 2 of the confused deputy: who asks, what for, and where it goes.
#[test]
fn consent_says_what_is_decided() {
    let page = consent(&claude());
    assert_eq!(page.status, 200);
    for text in [
        "“<bdi>Claude</bdi>”",
        "A well-known app of claude.ai.",
        "<strong>claude.ai</strong>",
        ">https://claude.ai/api/mcp/auth_callback<",
        "<bdi>forgejo</bdi> as you, with your account at Codeberg.",
        ">https://mcp.example.org/mcp/forgejo<",
        "read and change your repositories and what is in them <code>write:repository</code>",
        "<form method=\"post\" action=\"/oauth/authorize\">",
        "<input type=\"hidden\" name=\"request\" value=\"c2VhbGVk\">",
        "name=\"action\" value=\"allow\">Continue to Codeberg<",
        "name=\"action\" value=\"deny\">Cancel<",
    ] {
        has(&page, text);
    }
    lacks(&page, "class=\"warning\"");
    lacks(&page, "no narrower limit");
}

/// The page's MUST for clients on a local port: anybody may claim to be one.
#[test]
fn consent_warns_where_anybody_may_be_the_client() {
    let check = |it: &Consent<'_>, text: &str| {
        let page = consent(it);
        has(&page, text);
        let warning = page.html.find("class=\"warning\"");
        let facts = page.html.find("<dl>");
        assert!(
            warning.is_some() && warning < facts,
            "the warning comes first"
        );
    };
    check(&claude_code(), "just started this on this computer");
    check(&document(), "zed.dev says that this is its app.");
    check(&cursor(), "whichever app here answers to cursor: links");
    has(&consent(&cursor()), "anybody can use any name");
}

/// A Forgejo token without a scope of its API opens all of it.
#[test]
fn consent_says_when_it_is_about_everything() {
    has(&consent(&registered()), "no narrower limit");
    lacks(
        &consent(&Consent {
            is_forgejo: false,
            ..registered()
        }),
        "no narrower limit",
    );
}

#[test]
fn names_of_strangers_are_text_and_short() {
    let page = consent(&hostile());
    for tag in ["<img", "<script", "onfocus='x'"] {
        lacks(&page, tag);
    }
    has(&page, "&#60;img src=x onerror=alert(1)&#62;");
    has(&page, "{{7*7}}");
    let name = "\u{202e}evil\u{0} ".repeat(40);
    let page = consent(&Consent {
        client_name: &name,
        ..claude()
    });
    lacks(&page, "\u{202e}");
    has(
        &page,
        "“<bdi>evil evil evil evil evil evil evil evil evil evil evil evil evil…</bdi>”",
    );
}

#[test]
fn each_trouble_has_its_status_and_says_what_to_do() {
    for (name, status, it) in troubles() {
        let page = trouble("mcp.example.org", it, Some("it's <late>"));
        assert_eq!(page.status, status, "{name}");
        has(&page, "<h2>What you can do</h2>");
        has(&page, "it&#39;s &#60;late&#62;");
        lacks(&trouble("mcp.example.org", it, None), "Detail");
    }
    let name = HOSTILE;
    let provider = HOSTILE;
    lacks(
        &trouble("a", Trouble::NotAdmitted { name, provider }, None),
        "<img",
    );
}

/// A scheme that a browser itself would run or open is never a link.
#[test]
fn handover_is_a_link_to_an_app_only() {
    let ok = handover("a", "Cursor", "cursor://x/cb?code=1&state=2", true);
    has(&ok, "href=\"cursor://x/cb?code=1&#38;state=2\"");
    for location in [
        "javascript:alert(1)",
        "JavaScript:alert(1)",
        "data:text/html,x",
        " file:///x",
    ] {
        let page = handover("a", "Cursor", location, true);
        assert_eq!(page.status, 500, "{location}");
        lacks(&page, "href=\"j");
        lacks(&page, "Open the app");
    }
}

/// No page has anything that its policy would have to let in, but the one style.
#[test]
fn pages_are_closed() {
    let hash = STANDARD.encode(Sha256::digest(STYLE));
    for (name, page) in all() {
        for directive in [
            "default-src 'none'",
            &format!("style-src 'sha256-{hash}'"),
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ] {
            assert!(
                page.csp.split("; ").any(|it| it == directive),
                "{name}: {}",
                page.csp
            );
        }
        assert!(
            page.csp.is_ascii() && !page.csp.contains("unsafe"),
            "{name}"
        );
        let has_form = page.html.contains("<form");
        assert_eq!(page.csp.contains("form-action 'none'"), !has_form, "{name}");
        has(&page, &format!("<style>{STYLE}</style>"));
        assert_eq!(page.html.matches("<style").count(), 1, "{name}");
        for word in [
            "<script",
            " style=",
            "src=\"",
            "url(",
            "@import",
            "http-equiv",
        ] {
            lacks(&page, word);
        }
    }
}

/// For `scripts/pages`, which shows them to a browser.
#[test]
#[ignore = "writes to the directory PAGES_DIR"]
fn write_pages() {
    let directory = std::env::var("PAGES_DIR").expect("PAGES_DIR");
    let pages = all().into_iter().map(|(name, page)| {
        json!({ "name": name, "status": page.status, "csp": page.csp, "html": page.html })
    });
    let pages = serde_json::Value::from_iter(pages);
    std::fs::write(Path::new(&directory).join("pages.json"), pages.to_string()).expect("written");
}
