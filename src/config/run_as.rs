//! Whose rights children run with, as it is written: `nobody`, `1000:1000`, `60000-60999`, `root`.
//! Pure: what the names stand for is looked up where children are started.

use std::fmt;
use std::ops::RangeInclusive;

/// Whose rights children run with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RunAs {
    /// Root's, as the operator asked for in so many letters.
    Root,
    /// Those of one user, for all children.
    User(String),
    /// Those of one uid, and the gid of this number, for all children.
    Ids { uid: u32, gid: u32 },
    /// A uid of its own for each principal, with the gid of the same number.
    Uids(RangeInclusive<u32>),
}

/// Uids below belong to the system, those above are no uids (`(uid_t) -1` and its neighbour).
const UIDS: RangeInclusive<u32> = 1..=u32::MAX - 2;

impl RunAs {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text == "root" {
            return Ok(Self::Root);
        }
        let number = |text: &str| text.parse().ok().filter(|id| UIDS.contains(id));
        let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if let Some((first, last)) = text.split_once('-')
            && is_digits(first)
            && is_digits(last)
        {
            return match (number(first), number(last)) {
                (Some(first), Some(last)) if first <= last => Ok(Self::Uids(first..=last)),
                _ => Err(format!("{text} is no range of uids")),
            };
        }
        if let Some((uid, gid)) = text.split_once(':') {
            return match (number(uid), number(gid)) {
                (Some(uid), Some(gid)) => Ok(Self::Ids { uid, gid }),
                _ => Err(format!("{text:?} is not UID:GID")),
            };
        }
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        match text.bytes().all(is_name) && !is_digits(text) && !text.is_empty() {
            true => Ok(Self::User(text.to_owned())),
            false => Err(format!(
                "{text:?} is not a user: write a name, UID:GID, a range of uids like \
                 60000-60999, or root"
            )),
        }
    }
}

impl fmt::Display for RunAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("root"),
            Self::User(name) => f.write_str(name),
            Self::Ids { uid, gid } => write!(f, "{uid}:{gid}"),
            Self::Uids(uids) => write!(f, "{}-{}", uids.start(), uids.end()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_users() {
        for (text, expected) in [
            ("root", Some(RunAs::Root)),
            ("nobody", Some(RunAs::User("nobody".to_owned()))),
            ("www-data", Some(RunAs::User("www-data".to_owned()))),
            (
                "1000:100",
                Some(RunAs::Ids {
                    uid: 1000,
                    gid: 100,
                }),
            ),
            ("60000-60999", Some(RunAs::Uids(60000..=60999))),
            ("0:0", None),
            ("0-9", None),
            ("9-1", None),
            ("1000", None),
            ("1000:", None),
            ("4294967295:1", None),
            ("a b", None),
            ("", None),
        ] {
            let parsed = RunAs::parse(text);
            assert_eq!(
                parsed.as_ref().ok(),
                expected.as_ref(),
                "{text}: {parsed:?}"
            );
            if let Ok(run_as) = parsed {
                assert_eq!(run_as.to_string(), text);
            }
        }
    }
}
