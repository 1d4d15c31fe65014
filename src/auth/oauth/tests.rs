//! The rules, line by line; `real_clients` is what is known to come, `random` what is not.

mod authorize;
mod clients;
mod metadata;
mod random;
mod real_clients;
mod redirects;
mod token;

use std::collections::BTreeMap;

use super::authorize::{Refusal, Request, read};
use super::*;

const ISSUER: &str = "https://mcp.example.org";
/// RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

fn resources(servers: &[&str]) -> Resources {
    let servers: Vec<Arc<str>> = servers.iter().map(|it| Arc::from(*it)).collect();
    Resources::new(ISSUER, &servers)
}

fn client(id: &str, redirect_uris: &[&str]) -> Client {
    Client {
        id: id.to_owned(),
        name: "Test".to_owned(),
        redirect_uris: redirect_uris.iter().map(|it| (*it).to_owned()).collect(),
        auth: ClientAuth::None,
        kind: ClientKind::Registered,
    }
}

fn form(parameters: &[(&str, &str)]) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(parameters).finish()
}

/// What becomes of a query that may not even be readable.
fn ask(query: &str, client: &Client, resources: &Resources) -> Result<Request, Refusal> {
    read(query).map_err(Refusal::Page)?.check(client, resources)
}

/// A location without its query, and the query.
fn parts(location: &str) -> (String, BTreeMap<String, String>) {
    let (address, query) = location.split_once('?').unwrap_or((location, ""));
    let query = form_urlencoded::parse(query.as_bytes()).into_owned();
    (address.to_owned(), query.collect())
}

/// R12, R16.
#[test]
fn a_resource_is_found_by_its_names() {
    let (one, two) = (resources(&["forge"]), resources(&["forge", "wiki"]));
    #[rustfmt::skip]
    let table: [(&str, Option<&str>, Option<&str>); 21] = [
        ("https://mcp.example.org/mcp", Some("/mcp"), None),
        ("https://mcp.example.org/mcp/", Some("/mcp"), None),
        ("HTTPS://MCP.Example.ORG/mcp", Some("/mcp"), None),
        ("https://mcp.example.org/mcp/forge", Some("/mcp/forge"), Some("/mcp/forge")),
        ("https://mcp.example.org/mcp/forge/", Some("/mcp/forge"), Some("/mcp/forge")),
        ("https://MCP.example.org/mcp/wiki", None, Some("/mcp/wiki")),
        ("https://mcp.example.org/mcp//", None, None),
        ("https://mcp.example.org/mcp/forge//", None, None),
        ("https://mcp.example.org/MCP", None, None),
        ("https://mcp.example.org/mcp/Forge", None, None),
        ("https://mcp.example.org/mcp/other", None, None),
        ("https://mcp.example.org/mcpforge", None, None),
        ("https://mcp.example.org/mcp?x", None, None),
        ("https://mcp.example.org/mcp#x", None, None),
        ("https://mcp.example.org", None, None),
        ("https://mcp.example.org/", None, None),
        ("http://mcp.example.org/mcp", None, None),
        ("https://mcp.example.org:8443/mcp", None, None),
        ("https://mcp.example.org.evil.org/mcp", None, None),
        ("https://evil.org/https://mcp.example.org/mcp", None, None),
        ("", None, None),
    ];
    for (uri, of_one, of_two) in table {
        for (resources, path) in [(&one, of_one), (&two, of_two)] {
            let found = resources.find(uri).map(|found| found.uri);
            let expected = path.map(|path| format!("{ISSUER}{path}"));
            assert_eq!(found, expected, "{uri:?}");
        }
    }
    assert_eq!(one.only(), one.find("https://mcp.example.org/mcp"));
    assert_eq!(two.only(), None);
    let issued = one.only().unwrap();
    assert!(one.is_for(&issued, "https://mcp.example.org/mcp/forge"));
    let wiki = two.find("https://mcp.example.org/mcp/wiki").unwrap();
    assert!(!two.is_for(&wiki, "https://mcp.example.org/mcp/forge"));
    assert!(!two.is_for(&wiki, "https://mcp.example.org/mcp"));
}

/// R17, R21.
#[test]
fn secrets_are_long_different_and_told_apart() {
    let (one, two) = (mint("mcpa_").unwrap(), mint("mcpa_").unwrap());
    assert!(one.starts_with("mcpa_") && one != two);
    assert_eq!(one.len(), "mcpa_".len() + 43);
    assert!(hash(&one) != hash(&two) && hash(&one) == hash(&one));
    for (one, other, same) in [("", "", true), ("ab", "ab", true), ("ab", "aB", false)] {
        assert_eq!(is_same(one.as_bytes(), other.as_bytes()), same);
    }
    assert!(!is_same(b"ab", b"abc") && !is_same(b"", b"a"));
}
