//! Upstream scopes in words that people understand.

/// Scopes of OpenID Connect Core 1.0 (5.4, 11) and of what most providers have beside it.
const OPENID: [(&str, &str); 7] = [
    ("openid", "know which account is yours"),
    ("profile", "see your name and your public profile"),
    ("email", "see your email address"),
    ("groups", "see the organisations and groups you are in"),
    ("address", "see your postal address"),
    ("phone", "see your telephone number"),
    ("offline_access", "keep this access while you are away"),
];

/// What the API scopes of Forgejo and Gitea are about: `read:AREA`, `write:AREA`.
const AREAS: [(&str, &str); 9] = [
    ("activitypub", "what is shared with other sites"),
    ("admin", "the settings of the whole site"),
    ("issue", "your issues and pull requests"),
    ("misc", "small things such as templates and markup"),
    ("notification", "your notifications"),
    ("organization", "your organisations and teams"),
    ("package", "your packages"),
    ("repository", "your repositories and what is in them"),
    ("user", "your account's settings and keys"),
];

pub(super) struct Scope<'a> {
    pub(super) words: String,
    pub(super) raw: &'a str,
}

/// Each of `scopes`, which are separated by spaces, with what it means.
pub(super) fn explain(scopes: &str) -> Vec<Scope<'_>> {
    let words = scopes.split_ascii_whitespace();
    words
        .map(|raw| Scope {
            words: in_words(raw),
            raw,
        })
        .collect()
}

/// Whether one of `scopes` is about more than who somebody is.
pub(super) fn name_an_api(scopes: &str) -> bool {
    let mut words = scopes.split_ascii_whitespace();
    words.any(|scope| OPENID.iter().all(|(name, _)| *name != scope) && scope != "public-only")
}

fn in_words(scope: &str) -> String {
    if let Some(words) = look_up(&OPENID, scope) {
        return words.to_owned();
    }
    let area = |prefix| {
        scope
            .strip_prefix(prefix)
            .and_then(|area| look_up(&AREAS, area))
    };
    match (area("read:"), area("write:"), scope) {
        (Some(area), _, _) => format!("read {area}"),
        (_, Some(area), _) => format!("read and change {area}"),
        (_, _, "all") => "do everything that your account can do".to_owned(),
        (_, _, "public-only") => "do so with what is public only".to_owned(),
        _ => "do what the provider understands by".to_owned(),
    }
}

fn look_up(list: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    let entry = list.iter().find(|(known, _)| *known == name)?;
    Some(entry.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip] // one case a line
    fn scopes_in_words() {
        let check = |scope: &str, expected: &str| {
            let explained = explain(scope);
            let words: Vec<_> = explained.iter().map(|it| it.words.as_str()).collect();
            assert_eq!(words.join("; "), expected, "{scope}");
            assert!(explained.iter().map(|it| it.raw).eq(scope.split_whitespace()));
        };
        check("", "");
        check("openid", "know which account is yours");
        check("profile email", "see your name and your public profile; see your email address");
        check("read:user", "read your account's settings and keys");
        check(" write:issue ", "read and change your issues and pull requests");
        check("read:nothing", "do what the provider understands by");
        check("all", "do everything that your account can do");
    }

    /// A Forgejo token without a scope of its API is good for all of it.
    #[test]
    fn scopes_that_name_an_api() {
        let check = |scopes: &str, expected| assert_eq!(name_an_api(scopes), expected, "{scopes}");
        check("", false);
        check("openid profile email groups", false);
        check("openid public-only", false);
        check("openid read:user", true);
        check("all", true);
    }
}
