//! One value a line, and what must not be seen or happen.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;

fn alice() -> Principal {
    let env = BTreeMap::from([("KEY".to_owned(), "s3cret".to_owned())]);
    Principal {
        issuer: "token".into(),
        subject: "1".into(),
        name: "alice".into(),
        email: None,
        env: Arc::new(env),
        grant: None,
    }
}

/// One who signed in.
fn anna() -> Principal {
    Principal {
        issuer: "https://id.example".into(),
        subject: "4711".into(),
        name: "anna".into(),
        email: Some("anna@example.org".into()),
        grant: Some("g1".into()),
        env: Arc::default(),
    }
}

#[test]
fn values_are_filled_in_for_a_user() {
    let check = |text: &str, expected: Result<(&str, bool), &str>| {
        let broker_env = |key: &str| (key == "HOME").then(|| "/srv".to_owned());
        let found = match Template::parse(text) {
            Ok(template) => template
                .fill(&alice(), None, &broker_env)
                .map_err(|missing| missing.to_string()),
            Err(message) => Err(message),
        };
        let found = found.map(|filled| (filled.value, filled.secret));
        assert_eq!(
            found,
            expected
                .map(|(value, secret)| (value.to_owned(), secret))
                .map_err(str::to_owned),
            "{text}"
        );
    };
    check("", Ok(("", false)));
    check("plain", Ok(("plain", false)));
    check("${user.name}", Ok(("alice", true)));
    check("Bearer ${user.env.KEY}!", Ok(("Bearer s3cret!", true)));
    check("${env.HOME}/${user.name}", Ok(("/srv/alice", true)));
    check("a$b $1 $", Ok(("a$b $1 $", false)));
    check("$$", Ok(("$", false)));
    check("$${user.name}", Ok(("${user.name}", false)));
    check("$$${user.name}", Ok(("$alice", true)));
    check("äö${user.name}ü", Ok(("äöaliceü", true)));
    check(
        "${user.env.NONE}",
        Err("user alice has no env NONE: it is given by `token add NAME --env NONE=VALUE`"),
    );
    check(
        "${env.NONE}",
        Err("the broker's own environment has no NONE"),
    );
    check(
        "${user.token}",
        Err(
            "user alice has no token to pass on: only sign-in provides ${user.token}, \
         and of a static token the broker keeps only the hash",
        ),
    );
    check(
        "${HOME}",
        Err("unknown placeholder \"${HOME}\", did you mean \"${env.HOME}\"?"),
    );
    check(
        "${env:HOME}",
        Err("unknown placeholder \"${env:HOME}\", did you mean \"${env.HOME}\"?"),
    );
    check(
        "${user.nmae}",
        Err("unknown placeholder \"${user.nmae}\", did you mean \"${user.name}\"?"),
    );
    check("${input:key}", Err("unknown placeholder \"${input:key}\""));
    check("${a\n\x1b}", Err("unknown placeholder \"${a\\n\\u{1b}}\""));
    check("${env.}", Err("unknown placeholder \"${env.}\""));
    check("${}", Err("unknown placeholder \"${}\""));
    check(
        "x${user.name",
        Err("a placeholder is not closed: \"${\" needs \"}\", and \"$${\" stands for itself"),
    );
}

#[test]
fn who_signed_in_has_more_to_pass_on() {
    for (text, expected, needs_token) in [
        ("${user.token}", "t0ken", true),
        ("Bearer ${user.token}", "Bearer t0ken", true),
        ("${user.sub}/${user.email}", "4711/anna@example.org", false),
        ("$${user.token}", "${user.token}", false),
    ] {
        let template = Template::parse(text).unwrap();
        let filled = template.fill(&anna(), Some("t0ken"), &|_| None).unwrap();
        assert_eq!(filled.value, expected);
        assert_eq!(template.needs_token(), needs_token, "{text}");
    }
}

#[test]
fn what_is_not_known_of_a_user_is_named() {
    let fill = |text: &str| -> Result<String, String> {
        let filled = Template::parse(text)?.fill(&alice(), None, &|_| None);
        filled.map(|it| it.value).map_err(|why| why.to_string())
    };
    let no_email = "user alice has no email to pass on: \
                    ${user.email} is what the provider says of one who signed in";
    assert_eq!(fill("${user.sub}"), Ok("1".to_owned()));
    assert_eq!(fill("${user.email}"), Err(no_email.to_owned()));
    let unknown = "unknown placeholder \"${user.mail}\", did you mean \"${user.email}\"?";
    assert_eq!(fill("${user.mail}"), Err(unknown.to_owned()));
}

/// By these a server's program is known again.
#[test]
fn no_two_values_have_the_same_bytes() {
    let all = ["name", "token", "sub", "email", "env.A", "env.B"];
    let bytes = |name: &&str| {
        Template::parse(&format!("${{user.{name}}}"))
            .unwrap()
            .to_bytes()
    };
    let different: std::collections::BTreeSet<_> = all.iter().map(bytes).collect();
    assert_eq!(different.len(), all.len());
}

#[test]
fn what_is_filled_in_is_not_filled_in_again() {
    let env = BTreeMap::from([("KEY".to_owned(), "${env.HOME}".to_owned())]);
    let user = Principal {
        env: Arc::new(env),
        ..alice()
    };
    let filled = Template::parse("${user.env.KEY}")
        .unwrap()
        .fill(&user, None, &|_| {
            panic!("the broker's environment was read")
        });
    assert_eq!(filled.unwrap().value, "${env.HOME}");
}

#[test]
fn debug_shows_no_value() {
    let template = Template::parse("hunter2 ${user.env.KEY}").unwrap();
    let filled = template.fill(&alice(), None, &|_| None).unwrap();
    let shown = format!("{template:?} {filled:?}");
    assert!(
        !shown.contains("hunter2") && !shown.contains("s3cret"),
        "{shown}"
    );
}
