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

#[test]
fn values_are_filled_in_for_a_user() {
    let check = |text: &str, expected: Result<(&str, bool), &str>| {
        let broker_env = |key: &str| (key == "HOME").then(|| "/srv".to_owned());
        let found = match Template::parse(text) {
            Ok(template) => template
                .fill(&alice(), &broker_env)
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
fn what_is_filled_in_is_not_filled_in_again() {
    let env = BTreeMap::from([("KEY".to_owned(), "${env.HOME}".to_owned())]);
    let user = Principal {
        email: None,
        env: Arc::new(env),
        grant: None,
        ..alice()
    };
    let filled = Template::parse("${user.env.KEY}")
        .unwrap()
        .fill(&user, &|_| panic!("the broker's environment was read"));
    assert_eq!(filled.unwrap().value, "${env.HOME}");
}

#[test]
fn debug_shows_no_value() {
    let template = Template::parse("hunter2 ${user.env.KEY}").unwrap();
    let filled = template.fill(&alice(), &|_| None).unwrap();
    let shown = format!("{template:?} {filled:?}");
    assert!(
        !shown.contains("hunter2") && !shown.contains("s3cret"),
        "{shown}"
    );
}
