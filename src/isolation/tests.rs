//! What will be in force, as a table; nothing of it depends on the machine that the test runs on.

use super::decision::{Decision, Identity, decide};
use super::facts::Facts;
use super::*;
use crate::config::RunAs;
use crate::launcher::Ids;

const ALL: u64 = u64::MAX;
/// What Docker leaves to root, without CAP_SETUID (7).
const NO_SETUID: u64 = ALL & !(1 << 7);

fn facts(uid: u32, capabilities: u64, landlock: Option<i32>) -> Facts {
    Facts {
        uid,
        capabilities,
        landlock,
        passwd: "root:x:0:0::/:\ntoor:x:0:0::/:\nweb:x:33:34::/:\n".to_owned(),
    }
}

fn run_as(text: &str) -> Option<RunAs> {
    Some(match text {
        "" => return None,
        "root" => RunAs::Root,
        "7:8" => RunAs::Ids { uid: 7, gid: 8 },
        "100-200" => RunAs::Uids(100..=200),
        name => RunAs::User(name.to_owned()),
    })
}

#[test]
fn whose_rights_children_have() {
    let ids = |uid, gid| Ok(Identity::One(Ids { uid, gid }));
    let (own, each) = (Ok(Identity::Own), |uids| Ok(Identity::Each(uids)));
    for (uid, capabilities, wanted, expected) in [
        (1000, 0, "", own.clone()),
        (1000, ALL, "", own.clone()),
        (0, ALL, "", each(61184..=65519)),
        (0, ALL, "100-200", each(100..=200)),
        (0, ALL, "7:8", ids(7, 8)),
        (0, ALL, "web", ids(33, 34)),
        (0, ALL, "root", own.clone()),
        (0, 0, "root", own.clone()),
        (0, ALL, "toor", Err("root by another name")),
        (0, ALL, "nobody", Err("/etc/passwd does not have")),
        (0, NO_SETUID, "", Err("without CAP_SETUID, so it cannot")),
        (0, NO_SETUID, "7:8", Err("without CAP_SETUID")),
        (
            1000,
            ALL,
            "7:8",
            Err("run_as is 7:8, but the broker is not root"),
        ),
        (1000, 0, "root", Err("the broker is not root")),
        (1000, 0, "web", Err("the broker is not root")),
    ] {
        let case = format!("uid {uid}, {capabilities:x}, {wanted:?}");
        let decided = decide(
            run_as(wanted).as_ref(),
            &[],
            &facts(uid, capabilities, Some(7)),
        );
        match (decided, expected) {
            (Ok(decision), Ok(identity)) => assert_eq!(decision.identity, identity, "{case}"),
            (Err(why), Err(part)) => assert!(why.contains(part), "{case}: {why}"),
            (decided, _) => panic!("{case}: {decided:?}"),
        }
    }
}

#[test]
fn what_is_not_in_force_is_a_warning() {
    let off = |decision: &Decision| -> Vec<String> {
        let off = decision.lines.iter().filter(|line| !line.is_on);
        let name = |text: &str| text.split(['=', ' ']).next().unwrap_or_default().to_owned();
        off.map(|line| name(&line.text)).collect()
    };
    for (uid, landlock, wanted, open, expected) in [
        (1000, Some(7), "", "", &[][..]),
        (1000, Some(1), "", "", &[]),
        (1000, None, "", "", &["landlock"]),
        (1000, None, "", "files", &["landlock"]),
        (1000, Some(7), "", "files", &["landlock"]),
        (0, Some(7), "", "", &[]),
        (0, None, "", "", &["landlock"]),
        (0, Some(7), "7:8", "", &[]),
        (0, Some(7), "root", "", &["uid", "landlock"]),
        (0, Some(7), "root", "files", &["uid", "landlock"]),
        (0, None, "root", "", &["uid", "landlock"]),
    ] {
        let open: Vec<&str> = open.split_whitespace().collect();
        let decided = decide(run_as(wanted).as_ref(), &open, &facts(uid, ALL, landlock));
        let decision = decided.expect("a decision");
        let case = format!("uid {uid}, {landlock:?}, {wanted:?}: {:?}", decision.lines);
        assert_eq!(off(&decision), expected, "{case}");
        assert_eq!(decision.landlock, landlock, "{case}");
    }
}

#[test]
fn the_line_of_landlock_says_what_this_version_has() {
    let line = |abi| {
        let decided = decide(None, &[], &facts(1000, 0, Some(abi))).expect("a decision");
        let mut lines = decided.lines.into_iter().map(|line| line.text);
        lines.find(|it| it.starts_with("landlock")).expect("a line")
    };
    assert_eq!(line(1), "landlock=on abi=1 (files, ptrace)");
    assert!(line(5).ends_with("truncation)"), "{}", line(5));
    assert!(
        line(7).ends_with("signals, abstract sockets)"),
        "{}",
        line(7)
    );
}

#[test]
fn no_limit_is_above_what_the_broker_was_given() {
    let given = Rlimit {
        current: Some(1024),
        maximum: Some(4096),
    };
    let both = |n| Rlimit {
        current: Some(n),
        maximum: Some(n),
    };
    assert_eq!(open_files(given, None), given);
    assert_eq!(open_files(given, Some(100)), both(100));
    assert_eq!(open_files(given, Some(5000)), both(4096));
    assert_eq!(at_most(None, 5000), 5000);
}
