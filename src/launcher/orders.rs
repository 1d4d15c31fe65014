//! What the launcher is to do, as a value for the broker and as a command line for the launcher.
//! Pure.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use rustix::process::Rlimit;

use super::confine::Confinement;

/// The command of `mcp-broker` that this is.
pub(crate) const COMMAND: &str = "launch";

/// A limit that is none.
const UNLIMITED: &str = "unlimited";

/// Whose rights a process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// What is done to a process before it becomes the child. `None`: it stays as the broker has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    /// The broker, in whose absence nothing is started.
    pub(crate) parent: i32,
    /// Where to leave a file named after the process, with its start time in it.
    pub(crate) record: Option<PathBuf>,
    /// A directory of cgroup v2 to join.
    pub(crate) cgroup: Option<PathBuf>,
    pub(crate) ids: Option<Ids>,
    /// The working directory.
    pub(crate) cwd: Option<PathBuf>,
    /// `RLIMIT_NOFILE`.
    pub(crate) open_files: Option<Rlimit>,
    /// `RLIMIT_FSIZE`, in bytes.
    pub(crate) file_size: Option<u64>,
    pub(crate) confine: Option<Confinement>,
}

impl Orders {
    /// The arguments of `mcp-broker` that start `program` under these orders.
    pub(crate) fn args(&self, program: &Path, args: &[String]) -> Vec<OsString> {
        let mut line = Line(vec![COMMAND.into()]);
        line.option("--parent", self.parent.to_string());
        line.path("--record", self.record.as_ref());
        line.path("--cgroup", self.cgroup.as_ref());
        if let Some(Ids { uid, gid }) = self.ids {
            line.option("--ids", format!("{uid}:{gid}"));
        }
        line.path("--cwd", self.cwd.as_ref());
        if let Some(limit) = &self.open_files {
            let text = |limit: Option<u64>| limit.map_or(UNLIMITED.to_owned(), |n| n.to_string());
            let (soft, hard) = (text(limit.current), text(limit.maximum));
            line.option("--open-files", format!("{soft}:{hard}"));
        }
        if let Some(bytes) = self.file_size {
            line.option("--file-size", bytes.to_string());
        }
        if let Some(confine) = &self.confine {
            line.option("--landlock", confine.abi.to_string());
            line.path("--hide", &confine.hidden);
            line.path("--allow", &confine.allowed);
            line.path("--read", &confine.readable);
        }
        let Line(mut line) = line;
        line.push("--".into());
        line.push(program.into());
        line.extend(args.iter().map(OsString::from));
        line
    }

    /// Reads what [`Orders::args`] wrote, from behind [`COMMAND`]: the orders, and the command.
    ///
    /// # Errors
    /// One line. Only a person who tries the command will see it.
    pub(super) fn parse(
        args: impl IntoIterator<Item = OsString>,
    ) -> Result<(Self, Vec<OsString>), String> {
        let mut orders = Self::default();
        let mut args = args.into_iter();
        while let Some(name) = args.next() {
            if name == "--" {
                return match orders.parent {
                    0 => Err("--parent is missing".to_owned()),
                    _ => Ok((orders, args.collect())),
                };
            }
            let value = args.next().unwrap_or_default();
            if orders.take(&name, &value).is_none() {
                return Err(format!("{name:?} {value:?} makes no sense"));
            }
        }
        Err("there is no --".to_owned())
    }

    fn take(&mut self, name: &OsStr, value: &OsStr) -> Option<()> {
        let path = || PathBuf::from(value);
        let text = value.to_str().unwrap_or_default();
        match name.to_str()? {
            "--parent" => self.parent = text.parse().ok()?,
            "--record" => self.record = Some(path()),
            "--cgroup" => self.cgroup = Some(path()),
            "--ids" => {
                let (uid, gid) = text.split_once(':')?;
                let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
                self.ids = Some(Ids { uid, gid });
            }
            "--cwd" => self.cwd = Some(path()),
            "--open-files" => {
                let (soft, hard) = text.split_once(':')?;
                let (current, maximum) = (limit(soft)?, limit(hard)?);
                self.open_files = Some(Rlimit { current, maximum });
            }
            "--file-size" => self.file_size = Some(text.parse().ok()?),
            "--landlock" => self.confine.get_or_insert_default().abi = text.parse().ok()?,
            "--hide" => self.confine.get_or_insert_default().hidden.push(path()),
            "--allow" => self.confine.get_or_insert_default().allowed.push(path()),
            "--read" => self.confine.get_or_insert_default().readable.push(path()),
            _ => return None,
        }
        Some(())
    }
}

fn limit(text: &str) -> Option<Option<u64>> {
    match text {
        UNLIMITED => Some(None),
        number => number.parse().ok().map(Some),
    }
}

/// A command line that grows.
struct Line(Vec<OsString>);

impl Line {
    fn option(&mut self, name: &str, value: impl Into<OsString>) {
        self.0.extend([name.into(), value.into()]);
    }

    fn path<'a>(&mut self, name: &str, values: impl IntoIterator<Item = &'a PathBuf>) {
        for value in values {
            self.option(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(orders: &Orders) {
        let args = orders.args(Path::new("npx"), &["-y".to_owned(), "--".to_owned()]);
        assert_eq!(args[0], COMMAND);
        let (read, command) = Orders::parse(args.into_iter().skip(1)).unwrap();
        assert_eq!(&read, orders);
        assert_eq!(command, ["npx", "-y", "--"]);
    }

    #[test]
    fn orders_survive_the_command_line() {
        let least = Orders {
            parent: 4711,
            ..Orders::default()
        };
        round(&least);
        round(&Orders {
            parent: 1,
            record: Some("/a b".into()),
            cgroup: Some("/sys/fs/cgroup/x".into()),
            ids: Some(Ids { uid: 1, gid: 2 }),
            cwd: Some("/--".into()),
            open_files: Some(Rlimit {
                current: Some(1024),
                maximum: None,
            }),
            file_size: Some(u64::MAX),
            confine: Some(Confinement {
                abi: 7,
                hidden: vec!["/a".into(), "/b".into()],
                allowed: vec!["/a/c".into()],
                readable: vec!["/sys".into()],
            }),
        });
    }

    #[test]
    fn nothing_is_guessed() {
        for line in [
            "",
            "--parent",
            "--parent 1",
            "-- sh",
            "--parent x -- sh",
            "--parent 1 --ids 1 -- sh",
            "--parent 1 --ids 1: -- sh",
            "--parent 1 --open-files 1 -- sh",
            "--parent 1 --file-size -1 -- sh",
            "--parent 1 --landlock all -- sh",
            "--parent 1 --unknown 1 -- sh",
        ] {
            let args = line.split_whitespace().map(OsString::from);
            assert!(Orders::parse(args).is_err(), "{line}");
        }
    }
}
