//! Fuzz targets: configuration files, and placeholders, filled in once more by plain replacement.

use std::collections::BTreeMap;

use serde_json::Value;

use super::read_document;
use super::template::Template;
use crate::auth::Principal;
use crate::fuzz::input;

/// Stands for an escaped dollar sign while placeholders are replaced.
const DOLLAR: &str = "\u{1}";

fn env(key: &str) -> Option<String> {
    (key == "KEY").then(|| "of the broker".to_owned())
}

/// A configuration file.
pub(crate) fn document(data: &[u8]) {
    let text = input::text(data);
    let mut remarks = Vec::new();
    let read = read_document(text, &env, &mut remarks);
    let lines = text.lines().count().max(1);
    let faults = read.as_ref().err().into_iter().chain(&remarks);
    for fault in faults {
        assert!(
            (1..=lines).contains(&fault.line),
            "line {} of {lines}",
            fault.line
        );
        let is_one_line = !fault.message.is_empty() && !fault.message.contains(char::is_control);
        assert!(is_one_line, "{:?}", fault.message);
    }
    let Ok(file) = read else {
        return;
    };
    let Ok(tree) = serde_json::from_str::<Value>(text) else {
        return; // JSON that a tree cannot hold, say a number that is too large
    };
    let known = ["mcpServers", "broker", "$schema"];
    let members = tree
        .as_object()
        .unwrap_or_else(|| panic!("not an object: {tree}"));
    assert!(members.keys().all(|key| known.contains(&key.as_str())));
    assert_eq!(file.servers.is_some(), tree.get("mcpServers").is_some());
    for server in file.servers.unwrap_or_default() {
        let entry = &tree["mcpServers"][&server.name];
        assert!(entry["command"].is_string(), "{}", server.name);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        assert!((1..=64).contains(&server.name.len()) && server.name.bytes().all(plain));
        assert_eq!(
            entry["env"].as_object().map_or(0, serde_json::Map::len),
            server.env.len()
        );
        // Nothing that may be a secret is printed by accident.
        let keys = server.env.iter().map(|(key, _)| key);
        let shown: Vec<String> = keys.map(|key| format!("({key:?}, Template(..))")).collect();
        assert_eq!(
            format!("{:?}", server.env),
            format!("[{}]", shown.join(", "))
        );
    }
}

/// A value of a server's `env`.
pub(crate) fn template(data: &[u8]) {
    let text = input::text(data);
    let user = Principal {
        name: "ann".into(),
        email: Some("ann@example.org".into()),
        env: BTreeMap::from([("TOKEN".to_owned(), "of the user".to_owned())]).into(),
        ..Principal::anonymous()
    };
    let escaped = Template::parse(&text.replace('$', "$$"));
    let filled = escaped.and_then(|it| it.fill(&user, None, &env).map_err(|why| why.to_string()));
    assert_eq!(
        filled.map(|it| (it.value, it.secret)),
        Ok((text.to_owned(), false))
    );
    if text.contains(DOLLAR) {
        return;
    }
    let bare = text.replace("$$", DOLLAR);
    let replaced = [
        ("${user.name}", "ann"),
        ("${user.sub}", "anonymous"),
        ("${user.email}", "ann@example.org"),
        ("${user.token}", "t0ken"),
        ("${user.env.TOKEN}", "of the user"),
        ("${env.KEY}", "of the broker"),
    ];
    // The values have no `$`, so none of them becomes a part of a placeholder.
    let expected = replaced.iter().fold(bare.clone(), |text, (name, value)| {
        text.replace(name, value)
    });
    let is_known = !expected.contains("${");
    match Template::parse(text) {
        Ok(template) => {
            assert_eq!(format!("{template:?}"), "Template(..)");
            match template.fill(&user, Some("t0ken"), &env) {
                Ok(filled) => {
                    assert!(is_known, "{text:?}");
                    assert_eq!(filled.value, expected.replace(DOLLAR, "$"));
                    assert_eq!(filled.secret, expected != bare);
                }
                Err(why) => assert!(!is_known, "{why}: {text:?}"),
            }
            let mut keys = template.broker_keys();
            assert!(keys.all(|key| bare.contains(&format!("${{env.{key}}}"))));
        }
        Err(why) => assert!(
            !is_known && !why.contains(char::is_control),
            "{why:?}: {text:?}"
        ),
    }
}
