//! What real clients do: each row of what is known of them, from what they are known by to what
//! becomes of their request, and the same request with another host or another path.

use serde_json::json;

use super::super::authorize::success_location;
use super::super::client::{is_document_id, pinned, read_document, read_registration};
use super::*;

/// How we come to know a client.
enum Known {
    /// Our own copy.
    Pinned,
    /// The document at its id: its `redirect_uris`, and what else is in it.
    Document(&'static [&'static str], &'static str),
    /// It registers itself with this.
    Registered(&'static str),
}

use Known::{Document, Pinned, Registered};

struct Row {
    who: &'static str,
    /// Of those that register: empty.
    id: &'static str,
    known: Known,
    /// Where they are sent back to.
    redirect_uri: &'static str,
    /// What they send besides the usual.
    also: &'static [(&'static str, &'static str)],
}

const CLAUDE: &str = "https://claude.ai/oauth/mcp-oauth-client-metadata";
const CLAUDE_CODE: &str = "https://claude.ai/oauth/claude-code-client-metadata";
const CHATGPT: &str = "https://chatgpt.com/oauth/client.json";
const CODEX: &str = "https://chatgpt.com/oauth/codex/client.json";
const VSCODE: &str = "https://vscode.dev/oauth/client-metadata.json";
const OPENCODE: &str = "https://opencode.ai/oauth/opencode/client.json";
const ZED: &str = "https://zed.dev/oauth/client-metadata.json";
const RESOURCE: (&str, &str) = ("resource", "https://mcp.example.org/mcp");
const CONSENT: (&str, &str) = ("prompt", "consent");
const OFFLINE: (&str, &str) = ("scope", "mcp offline_access");

#[rustfmt::skip]
const ROWS: &[Row] = &[
    Row { who: "claude.ai", id: CLAUDE, known: Pinned,
        redirect_uri: "https://claude.ai/api/mcp/auth_callback",
        also: &[RESOURCE, CONSENT, OFFLINE] },
    Row { who: "claude.com", id: CLAUDE, known: Pinned,
        redirect_uri: "https://claude.com/api/mcp/auth_callback",
        also: &[RESOURCE, CONSENT, OFFLINE] },
    Row { who: "claude.ai by DCR", id: "", known: Registered(r#"{"client_name":"Claude",
            "redirect_uris":["https://claude.ai/api/mcp/auth_callback"],
            "grant_types":["authorization_code","refresh_token"],"response_types":["code"],
            "token_endpoint_auth_method":"client_secret_post","scope":"mcp"}"#),
        redirect_uri: "https://claude.ai/api/mcp/auth_callback", also: &[RESOURCE, CONSENT] },
    Row { who: "Claude Code", id: CLAUDE_CODE, known: Pinned,
        redirect_uri: "http://localhost:54545/callback", also: &[RESOURCE] },
    Row { who: "Claude Code by address", id: CLAUDE_CODE, known: Pinned,
        redirect_uri: "http://127.0.0.1:49201/callback", also: &[RESOURCE, OFFLINE] },
    Row { who: "Claude Code by document", id: CLAUDE_CODE, known: Document(
            &["http://localhost/callback", "http://127.0.0.1/callback"],
            r#"{"token_endpoint_auth_method":"none"}"#),
        redirect_uri: "http://localhost:3118/callback", also: &[RESOURCE] },
    Row { who: "ChatGPT", id: CHATGPT, known: Pinned,
        redirect_uri: "https://chatgpt.com/connector_platform_oauth_redirect",
        also: &[RESOURCE, OFFLINE] },
    Row { who: "ChatGPT by document", id: CHATGPT, known: Document(
            &["https://chatgpt.com/connector_platform_oauth_redirect"],
            r#"{"token_endpoint_auth_method":"private_key_jwt",
                "token_endpoint_auth_methods_supported":["none","private_key_jwt"],
                "jwks_uri":"https://chatgpt.com/oauth/jwks.json"}"#),
        redirect_uri: "https://chatgpt.com/connector_platform_oauth_redirect", also: &[RESOURCE] },
    Row { who: "ChatGPT, a connection's own", id: "https://chatgpt.com/oauth/Kx3v/client.json",
        known: Document(&["https://chatgpt.com/connector/oauth/Kx3v"],
            r#"{"token_endpoint_auth_methods_supported":["private_key_jwt","none"]}"#),
        redirect_uri: "https://chatgpt.com/connector/oauth/Kx3v", also: &[RESOURCE] },
    Row { who: "Codex", id: CODEX, known: Pinned,
        redirect_uri: "http://127.0.0.1:61021/callback", also: &[RESOURCE] },
    Row { who: "VS Code", id: VSCODE, known: Pinned,
        redirect_uri: "http://127.0.0.1:33418/", also: &[RESOURCE] },
    Row { who: "VS Code, a random port", id: VSCODE, known: Pinned,
        redirect_uri: "http://127.0.0.1:52011/", also: &[RESOURCE] },
    Row { who: "VS Code in a browser", id: VSCODE, known: Pinned,
        redirect_uri: "https://vscode.dev/redirect", also: &[RESOURCE] },
    Row { who: "VS Code by DCR", id: "", known: Registered(r#"{"client_name":"Visual Studio Code",
            "redirect_uris":["https://insiders.vscode.dev/redirect","https://vscode.dev/redirect",
            "http://127.0.0.1/","http://127.0.0.1:33418/"],"application_type":"native",
            "token_endpoint_auth_method":"none"}"#),
        redirect_uri: "https://insiders.vscode.dev/redirect", also: &[RESOURCE] },
    Row { who: "Cursor", id: "", known: Registered(r#"{"client_name":"Cursor",
            "redirect_uris":["http://localhost:8787/callback"],
            "token_endpoint_auth_method":"none"}"#),
        redirect_uri: "http://localhost:8787/callback", also: &[RESOURCE] },
    Row { who: "Cursor's own scheme", id: "", known: Registered(r#"{"client_name":"Cursor",
            "redirect_uris":["cursor://anysphere.cursor-mcp/oauth/callback"]}"#),
        redirect_uri: "cursor://anysphere.cursor-mcp/oauth/callback", also: &[] },
    Row { who: "Cursor on the web", id: "", known: Registered(r#"{"client_name":"Cursor",
            "redirect_uris":["https://www.cursor.com/agents/mcp/oauth/callback"]}"#),
        redirect_uri: "https://www.cursor.com/agents/mcp/oauth/callback", also: &[RESOURCE] },
    Row { who: "MCP Inspector", id: "", known: Registered(r#"{"client_name":"MCP Inspector",
            "redirect_uris":["http://localhost:6274/oauth/callback",
            "http://localhost:6274/oauth/callback/debug"],"token_endpoint_auth_method":"none",
            "grant_types":["authorization_code","refresh_token"],"response_types":["code"],
            "client_uri":"https://github.com/modelcontextprotocol/inspector","scope":""}"#),
        redirect_uri: "http://localhost:6274/oauth/callback/debug", also: &[RESOURCE] },
    Row { who: "mcp-remote", id: "", known: Registered(r#"{"client_name":"MCP CLI Proxy",
            "redirect_uris":["http://localhost:3335/oauth/callback"],"software_version":"0.15.1",
            "token_endpoint_auth_method":"none","application_type":"native"}"#),
        redirect_uri: "http://localhost:3336/oauth/callback", also: &[RESOURCE] },
    Row { who: "mcp-remote without resource", id: "", known: Registered(r#"{
            "redirect_uris":["http://localhost:3335/oauth/callback"]}"#),
        redirect_uri: "http://localhost:3335/oauth/callback", also: &[OFFLINE] },
    Row { who: "Gemini CLI", id: "", known: Registered(r#"{"client_name":"Gemini CLI MCP Client",
            "redirect_uris":["http://localhost:7777/oauth/callback"]}"#),
        redirect_uri: "http://localhost:40123/oauth/callback", also: &[RESOURCE] },
    Row { who: "OpenCode", id: OPENCODE, known: Pinned,
        redirect_uri: "http://127.0.0.1:19876/mcp/oauth/callback", also: &[RESOURCE] },
    Row { who: "OpenCode as its document has it", id: OPENCODE, known: Pinned,
        redirect_uri: "http://127.0.0.1:51675/callback", also: &[RESOURCE] },
    Row { who: "Zed", id: ZED, known: Pinned,
        redirect_uri: "http://127.0.0.1:41111/callback", also: &[RESOURCE] },
];

impl Row {
    fn client(&self) -> Client {
        match self.known {
            Pinned => pinned(self.id).unwrap_or_else(|| panic!("{}: no copy", self.who)),
            Document(redirect_uris, rest) => {
                let mut document: serde_json::Value = serde_json::from_str(rest).unwrap();
                document["client_id"] = json!(self.id);
                document["client_name"] = json!(self.who);
                document["redirect_uris"] = json!(redirect_uris);
                let client = read_document(self.id, &document.to_string());
                client.unwrap_or_else(|why| panic!("{}: {why}", self.who))
            }
            Registered(body) => {
                let registration = read_registration(body);
                let registration = registration.unwrap_or_else(|why| panic!("{}: {why}", self.who));
                let secret = registration.wants_secret().then_some("mcps_x");
                registration.to_client("registered", secret)
            }
        }
    }

    fn query(&self, client: &Client, redirect_uri: &str) -> String {
        let usual = [
            ("response_type", "code"),
            ("client_id", client.id.as_str()),
            ("redirect_uri", redirect_uri),
            ("state", self.who),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
        ];
        form(&[&usual, self.also].concat())
    }

    /// The address with another host, another path, and more.
    fn twins(&self) -> Vec<String> {
        let (scheme, rest) = self.redirect_uri.split_once("://").unwrap();
        let (authority, path) = rest.split_once('/').unwrap();
        let (host, port) = authority.split_once(':').unwrap_or((authority, "8443"));
        let mut twins = vec![
            format!("{scheme}://evil.example/{path}"),
            format!("{scheme}://{host}.evil.example:{port}/{path}"),
            format!("{scheme}://{authority}@evil.example/{path}"),
            format!("{scheme}://evil.example#@{authority}/{path}"),
            format!("{scheme}://evil.example\\@{authority}/{path}"),
            format!("{scheme}://{authority}/{path}x"),
            format!("{scheme}://{authority}/{path}/../x"),
            format!("{scheme}://{authority}/x/{path}"),
            format!("{scheme}://{authority}/{path}?x=1"),
            format!("{scheme}://{authority}/{path}#x"),
            format!("ftp://{authority}/{path}"),
        ];
        if scheme == "https" {
            twins.push(format!("http://{authority}/{path}"));
            twins.push(format!("https://{host}:{port}/{path}"));
            twins.push(format!("https://localhost/{path}"));
        }
        twins
    }
}

/// S4, S5, S8, S9, S15: every known client gets through.
#[test]
fn are_let_through() {
    let (one, two) = (resources(&["forge"]), resources(&["forge", "wiki"]));
    for row in ROWS {
        let (who, client) = (row.who, row.client());
        assert_eq!(is_document_id(&client.id), !row.id.is_empty(), "{who}");
        let query = row.query(&client, row.redirect_uri);
        let request = ask(&query, &client, &one).unwrap_or_else(|why| panic!("{who}: {why:?}"));
        assert_eq!(request.redirect_uri, row.redirect_uri, "{who}");
        assert_eq!(request.resource.uri, "https://mcp.example.org/mcp", "{who}");
        let (address, answer) = parts(&success_location(&request, "mcpc_x", ISSUER));
        assert_eq!(address, row.redirect_uri, "{who}");
        let expected = [("code", "mcpc_x"), ("iss", ISSUER), ("state", who)];
        let answer: Vec<(&str, &str)> = answer.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(answer, expected, "{who}");
        // Where there are several servers it must say which it means: all of them so far did not.
        let outcome = ask(&query, &client, &two);
        assert!(matches!(outcome, Err(Refusal::Redirect(_))), "{who}");
    }
}

/// S9, S10: nobody else in their name does.
#[test]
fn are_not_to_be_imitated() {
    let resources = resources(&["forge"]);
    for row in ROWS {
        let client = row.client();
        for twin in row.twins() {
            let outcome = ask(&row.query(&client, &twin), &client, &resources);
            assert!(
                matches!(outcome, Err(Refusal::Page(_))),
                "{}: {twin}",
                row.who
            );
        }
    }
}

/// A.2, "trust by exact client id, never by domain".
#[test]
fn only_the_exact_id_has_a_copy() {
    let ids = [CLAUDE, CLAUDE_CODE, CHATGPT, CODEX, VSCODE, OPENCODE, ZED];
    for id in ids {
        let copy = pinned(id).unwrap();
        assert_eq!(copy.id, id);
        assert!(copy.auth == ClientAuth::None && copy.kind == ClientKind::Pinned);
        let document = json!({
            "client_id": id,
            "client_name": copy.name,
            "redirect_uris": copy.redirect_uris,
        });
        let read = read_document(id, &document.to_string()).unwrap();
        assert_eq!(
            (&read.name, &read.redirect_uris),
            (&copy.name, &copy.redirect_uris)
        );
        for twin in [
            format!("{id}/"),
            format!("{id}?"),
            id.to_uppercase(),
            id[1..].to_owned(),
        ] {
            assert!(pinned(&twin).is_none(), "{twin}");
        }
    }
}
