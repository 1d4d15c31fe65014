//! S8 to S11: where a browser may be sent.

use super::redirect::{host_for_people, is_allowed, is_loopback, is_of_the_web, matches};

/// An address, and what the consent page shows of it; none: it is refused.
#[rustfmt::skip]
const ADDRESSES: &[(&str, Option<&str>)] = &[
    ("https://claude.ai/api/mcp/auth_callback", Some("claude.ai")),
    ("https://claude.ai", Some("claude.ai")),
    ("https://a.example:8443/cb?x=%2Fy&z", Some("a.example:8443")),
    ("https://xn--80ak6aa92e.com/cb", Some("xn--80ak6aa92e.com")),
    ("https://192.0.2.7/cb", Some("192.0.2.7")),
    ("https://[2001:db8::1]:8443/cb", Some("[2001:db8::1]:8443")),
    ("HTTPS://a.example/cb", Some("a.example")),
    ("http://127.0.0.1/cb", Some("127.0.0.1")),
    ("http://127.0.0.1:49152/", Some("127.0.0.1:49152")),
    ("http://[::1]:3000/cb", Some("[::1]:3000")),
    ("http://localhost:3000/cb", Some("localhost:3000")),
    ("http://LOCALHOST/cb", Some("LOCALHOST")),
    ("cursor://anysphere.cursor-mcp/oauth/callback", Some("cursor:")),
    ("vscode-insiders://vscode.auth/cb", Some("vscode-insiders:")),
    ("com.example.app:/callback", Some("com.example.app:")),
    ("com.example.app://cb", Some("com.example.app:")),
    // This computer by other names, and others by names like it.
    ("http://example.com/cb", None),
    ("http://localhost.evil.com/cb", None),
    ("http://127.0.0.1.evil.com/cb", None),
    ("http://localhost./cb", None),
    ("http://127.1/cb", None),
    ("http://127.0.0.2/cb", None),
    ("http://0x7f000001/cb", None),
    ("http://2130706433/cb", None),
    ("http://0177.0.0.1/cb", None),
    ("http://0.0.0.0/cb", None),
    ("http://[::ffff:127.0.0.1]/cb", None),
    ("http://[::1%25lo]/cb", None),
    ("http://[0:0:0:0:0:0:0:1]/cb", None),
    ("https://0x7f.1/cb", None),
    ("https://1.2.3/cb", None),
    // Schemes.
    ("javascript:alert(1)", None),
    ("JavaScript://a.example/%0aalert(1)", None),
    ("data:text/html,x", None),
    ("file:///etc/passwd", None),
    ("vbscript:x", None),
    ("blob:https://a.example/x", None),
    ("about:blank", None),
    ("view-source:https://a.example", None),
    ("ftp://a.example/", None),
    ("ws://a.example/", None),
    ("intent://x", None),
    ("myapp://cb", None),
    (".x:/cb", None),
    ("x..y:/cb", None),
    ("x.:/cb", None),
    // What two readers may read differently.
    ("https://user@a.example/cb", None),
    ("https://user:x@a.example/cb", None),
    ("https://a.example@evil.com/cb", None),
    ("http://localhost@evil.com/cb", None),
    ("http://evil.com#@localhost/cb", None),
    ("cursor://user@x/cb", None),
    ("https://a.example/cb#", None),
    ("https://a.example/cb#x", None),
    ("https://a.example\\@evil.com/cb", None),
    ("https:\\\\a.example/cb", None),
    ("https:/a.example/cb", None),
    ("https:a.example/cb", None),
    ("https:///a.example/cb", None),
    ("https://:443/cb", None),
    ("//a.example/cb", None),
    ("/cb", None),
    ("", None),
    ("https://", None),
    ("https://a.example:/cb", None),
    ("https://a.example:0/cb", None),
    ("https://a.example:65536/cb", None),
    ("https://a.example:+80/cb", None),
    ("https://%61.example/cb", None),
    ("https://a.example%2fevil/cb", None),
    ("https://a;b/cb", None),
    ("https://.a.example/cb", None),
    ("https://é.example/cb", None),
    ("https://a.example/é", None),
    ("https://a.example/c b", None),
    (" https://a.example/cb", None),
    ("https://a.example/cb\n", None),
    ("https://a.exa\tmple/cb", None),
    ("https://a.example/cb\0", None),
    ("https://a.example/cb\r\nSet-Cookie:x", None),
    ("https://a.example/%0d%0aSet-Cookie:x", None),
    ("https://a.example/cb?x=%0A", None),
    ("https://a.example/cb?x=%7f", None),
    ("https://a.example/a/../cb", None),
    ("https://a.example/a/./cb", None),
    ("https://a.example/a/..", None),
    ("https://a.example/a/%2e%2E/cb", None),
    ("https://a.example/a%2Fcb", None),
    ("https://a.example/a%5ccb", None),
    ("https://a.example/%", None),
    ("https://a.example/%zz", None),
    ("https://a.example/<x>", None),
    ("https://a.example/*", Some("a.example")),
    ("https://*.a.example/", None),
];

/// S8, S10.
#[test]
fn which_addresses_there_may_be() {
    for (uri, shown) in ADDRESSES {
        let allowed = is_allowed(uri);
        assert_eq!(allowed.is_ok(), shown.is_some(), "{uri:?}: {allowed:?}");
        if let Some(shown) = shown {
            assert_eq!(&host_for_people(uri), shown, "{uri:?}");
        }
    }
    let long = |length: usize| format!("https://a.example/{}", "x".repeat(length - 18));
    assert!(is_allowed(&long(2048)).is_ok() && is_allowed(&long(2049)).is_err());
    assert_eq!(host_for_people("nonsense"), "an unknown place");
}

/// S9, S10: exact, but for the port of `http` to this computer.
#[test]
fn what_matches_what_was_registered() {
    #[rustfmt::skip]
    let table: &[(&str, &str, bool)] = &[
        ("https://a.example/cb", "https://a.example/cb", true),
        ("https://a.example/cb?x=1", "https://a.example/cb?x=1", true),
        ("cursor://x/cb", "cursor://x/cb", true),
        ("com.example.app:/cb", "com.example.app:/cb", true),
        ("http://localhost/cb", "http://localhost:49152/cb", true),
        ("http://localhost:3118/cb", "http://localhost/cb", true),
        ("http://localhost:3118/cb", "http://localhost:3119/cb", true),
        ("http://127.0.0.1:33418/", "http://127.0.0.1:1/", true),
        ("http://[::1]/cb", "http://[::1]:49152/cb", true),
        ("http://127.0.0.1/cb?x=1", "http://127.0.0.1:5/cb?x=1", true),
        // https: another port, host, path, query or scheme.
        ("https://a.example/cb", "https://a.example:443/cb", false),
        ("https://a.example/cb", "https://a.example:8443/cb", false),
        ("https://localhost/cb", "https://localhost:8443/cb", false),
        ("https://a.example/cb", "https://A.example/cb", false),
        ("https://a.example/cb", "https://b.example/cb", false),
        ("https://a.example/cb", "https://a.example.evil/cb", false),
        ("https://a.example/cb", "https://sub.a.example/cb", false),
        ("https://a.example/cb", "https://a.example/cb/", false),
        ("https://a.example/cb", "https://a.example/CB", false),
        ("https://a.example/cb", "https://a.example/cb/x", false),
        ("https://a.example/cb", "https://a.example/cb/../cb", false),
        ("https://a.example/cb", "https://a.example/c%62", false),
        ("https://a.example/cb", "https://a.example/cb?", false),
        ("https://a.example/cb", "https://a.example/cb?x=1", false),
        ("https://a.example/cb", "https://a.example/cb#", false),
        ("https://a.example/", "https://a.example", false),
        ("https://a.example/cb", "http://a.example/cb", false),
        // This computer: everything but the port counts.
        ("http://localhost/cb", "http://127.0.0.1:5/cb", false),
        ("http://127.0.0.1/cb", "http://localhost:5/cb", false),
        ("http://127.0.0.1/cb", "http://[::1]:5/cb", false),
        ("http://localhost/cb", "http://LOCALHOST:5/cb", false),
        ("http://localhost/cb", "HTTP://localhost:5/cb", false),
        ("http://localhost/cb", "https://localhost/cb", false),
        ("http://localhost/cb", "http://localhost:5/other", false),
        ("http://localhost/cb", "http://localhost:5/cb/", false),
        ("http://localhost/", "http://localhost:5", false),
        ("http://localhost/cb?x=1", "http://localhost:5/cb", false),
        ("http://localhost/cb", "http://localhost:5/cb?x=1", false),
        ("http://localhost/cb", "http://localhost:5@evil.com/cb", false),
        ("http://localhost/cb", "http://localhost:/cb", false),
        ("http://localhost/cb", "http://localhost:99999/cb", false),
        ("http://localhost/cb", "http://localhost.evil.com:5/cb", false),
        ("http://localhost/cb", "http://evil.com:5/cb", false),
        // What should never have been registered.
        ("http://a.example/cb", "http://a.example/cb", false),
        ("javascript:alert(1)", "javascript:alert(1)", false),
        ("myapp://cb", "myapp://cb", false),
        ("cursor://x:1/cb", "cursor://x:2/cb", false),
    ];
    for (registered, asked, expected) in table {
        assert_eq!(
            matches(registered, asked),
            *expected,
            "{registered} {asked}"
        );
    }
}

/// S11.
#[test]
fn which_go_to_this_computer_and_which_to_the_web() {
    #[rustfmt::skip]
    let table = [
        ("http://localhost:1/", true, true),
        ("http://127.0.0.1/", true, true),
        ("http://[::1]/", true, true),
        ("https://localhost/", true, true),
        ("https://a.example/", false, true),
        ("https://localhost.evil.com/", false, true),
        ("cursor://x/", false, false),
        ("nonsense", false, false),
    ];
    for (uri, loopback, web) in table {
        assert_eq!(
            (is_loopback(uri), is_of_the_web(uri)),
            (loopback, web),
            "{uri}"
        );
    }
}
