//! What the machine has, and what the broker may do on it. Decides nothing.

use std::fs;

use rustix::process::geteuid;

use crate::launcher::{Ids, confine};

/// The state of things when the broker starts.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// The broker's effective uid.
    pub(super) uid: u32,
    /// Bits of `CapEff` (capabilities(7)).
    pub(super) capabilities: u64,
    /// The version of Landlock; `None`: there is none.
    pub(super) landlock: Option<i32>,
    /// The text of `/etc/passwd`.
    pub(super) passwd: String,
}

/// What it takes to start children with other uids, to give them directories, and to end them.
const NEEDED: [(&str, u64); 6] = [
    ("CAP_CHOWN", 0),
    ("CAP_DAC_OVERRIDE", 1),
    ("CAP_FOWNER", 3),
    ("CAP_KILL", 5),
    ("CAP_SETGID", 6),
    ("CAP_SETUID", 7),
];

impl Facts {
    pub(super) fn gather() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            uid: geteuid().as_raw(),
            capabilities: effective(&status).unwrap_or(0),
            landlock: confine::kernel_abi(),
            passwd: fs::read_to_string("/etc/passwd").unwrap_or_default(),
        }
    }

    /// Names of the capabilities that are missing to run children as other users.
    pub(super) fn missing_capabilities(&self) -> Vec<&'static str> {
        let has = |bit: u64| self.capabilities & (1 << bit) != 0;
        let missing = NEEDED.iter().filter(|(_, bit)| !has(*bit));
        missing.map(|(name, _)| *name).collect()
    }

    /// Looks a user up in `/etc/passwd`, and nowhere else (passwd(5)).
    pub(super) fn user(&self, name: &str) -> Option<Ids> {
        let line = self.passwd.lines().find_map(|line| {
            let (found, rest) = line.split_once(':')?;
            (found == name).then_some(rest)
        })?;
        let mut fields = line.split(':').skip(1);
        let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Ids { uid, gid })
    }
}

fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|it| it.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_whole_name() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:34:www:/var/www:/bin/sh\nbad:x\n";
        let facts = Facts {
            uid: 0,
            capabilities: 0,
            landlock: None,
            passwd: passwd.to_owned(),
        };
        assert_eq!(facts.user("www-data"), Some(Ids { uid: 33, gid: 34 }));
        for name in ["www", "bad", "", "x"] {
            assert_eq!(facts.user(name), None, "{name}");
        }
    }

    #[test]
    fn capabilities_are_read_from_the_status() {
        let status = "CapPrm:\tff\nCapEff:\t00000000000000eb\n";
        assert_eq!(effective(status), Some(0xeb));
        assert_eq!(effective("CapPrm:\tff\n"), None);
    }
}
