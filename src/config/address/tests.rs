//! One address a line.

use super::*;

#[test]
fn listening_addresses() {
    // What is printed is what was read: None where it is not an address.
    let check = |text: &str, expected: Option<(&str, bool)>| {
        let found = Listen::parse(text)
            .ok()
            .map(|listen| (listen.to_string(), listen.is_local()));
        assert_eq!(
            found,
            expected.map(|(shown, local)| (shown.to_owned(), local)),
            "{text}"
        );
    };
    check("127.0.0.1:8787", Some(("127.0.0.1:8787", true)));
    check("127.8.9.1:0", Some(("127.8.9.1:0", true)));
    check("localhost:80", Some(("127.0.0.1:80", true)));
    check("[::1]:8787", Some(("[::1]:8787", true)));
    check("[::ffff:127.0.0.1]:1", Some(("[::ffff:127.0.0.1]:1", true)));
    check("0.0.0.0:8787", Some(("0.0.0.0:8787", false)));
    check("[::]:8787", Some(("[::]:8787", false)));
    check("unix:/run/b.sock", Some(("unix:/run/b.sock", true)));
    for text in [
        "",
        "8787",
        ":8787",
        "127.0.0.1",
        "::1:80",
        "example.org:80",
        "127.0.0.1:65536",
        "unix:b.sock",
        "unix:",
    ] {
        check(text, None);
    }
    check(
        &format!("unix:/{}", "x".repeat(106)),
        Some((&format!("unix:/{}", "x".repeat(106)), true)),
    );
    check(&format!("unix:/{}", "x".repeat(107)), None);
}

#[test]
fn public_urls() {
    let check = |text: &str, expected: Result<&str, &str>| {
        let found = PublicUrl::parse(text).map(|url| url.to_string());
        let expected = expected.map(str::to_owned);
        let expected = expected
            .map_err(|why| format!("{text:?} {why}, write it like https://mcp.example.org"));
        assert_eq!(found, expected, "{text}");
    };
    check("https://mcp.example.org", Ok("https://mcp.example.org"));
    check(
        "HTTPS://MCP.Example.Org:443/",
        Ok("https://mcp.example.org"),
    );
    check(
        "http://10.0.0.2:8080/tools/",
        Ok("http://10.0.0.2:8080/tools"),
    );
    check(
        "https://[2001:DB8::1]:8443",
        Ok("https://[2001:db8::1]:8443"),
    );
    check("https://[::1]", Ok("https://[::1]"));
    check("mcp.example.org", Err("is not a URL"));
    check("ftp://mcp.example.org", Err("is neither http nor https"));
    check("https://a.example/?q", Err("has a query or a fragment"));
    check("https://a.example#f", Err("has a query or a fragment"));
    check("https://me:pw@a.example", Err("has a user name"));
    check("https://", Err("has no valid host: \"\""));
    check("https:///mcp", Err("has no valid host: \"\""));
    check(
        "https://a..example",
        Err("has no valid host: \"a..example\""),
    );
    check(
        "https://bücher.example",
        Err("has no valid host: \"bücher.example\""),
    );
    check("https://1.2.3", Err("has no valid host: \"1.2.3\""));
    check("https://[::1", Err("has no valid host: \"[:\""));
    check("https://a.example:", Err("has no valid port: \"\""));
    check("https://a.example:0", Err("has no valid port: \"0\""));
    check("https://a.example:+1", Err("has no valid port: \"+1\""));
    check(
        "https://a.example:99999",
        Err("has no valid port: \"99999\""),
    );
    check(
        "https://a.example/a b",
        Err("has a path with characters that need no place there"),
    );
    check(
        "https://a.example/../x",
        Err("has a path with characters that need no place there"),
    );
}

#[test]
fn parts_of_a_public_url() {
    let url = PublicUrl::parse("https://mcp.example.org:8443/tools").unwrap();
    assert_eq!(url.authority(), "mcp.example.org:8443");
    assert_eq!(url.origin(), "https://mcp.example.org:8443");
    assert_eq!(
        (url.host.as_str(), url.port, url.path.as_str()),
        ("mcp.example.org", Some(8443), "/tools")
    );
}

#[test]
fn origins() {
    let check = |text: &str, expected: Option<&str>| {
        assert_eq!(origin(text).ok().as_deref(), expected, "{text}")
    };
    check("https://App.Example.org", Some("https://app.example.org"));
    check(
        "https://app.example.org:443",
        Some("https://app.example.org"),
    );
    check(
        "http://app.example.org:443/",
        Some("http://app.example.org:443"),
    );
    check("http://localhost:5173", Some("http://localhost:5173"));
    check("http://[::1]:80", Some("http://[::1]"));
    check("vscode-webview://1a2b3c", Some("vscode-webview://1a2b3c"));
    for text in [
        "",
        "*",
        "null",
        "app.example.org",
        "https://*.example.org",
        "https://a/b",
        "https://a?b",
        "1x://a",
        "://a",
    ] {
        check(text, None);
    }
}
