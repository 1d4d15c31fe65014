//! What keeps the children of one user from those of another, and from the broker: decided once, at
//! the start, said in one line for each protection, and then applied to every child alike.
//!
//! [`facts`] asks the machine what it has · [`decision`] is the pure function from there to what
//! will be in force · [`homes`] are the private directories. What is done in a child's own process
//! is the `launcher`'s; which program that becomes, `launch`'s.

mod decision;
mod facts;
mod homes;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, getpid, getrlimit};

use crate::auth::Principal;
use crate::config::{Config, Server};
use crate::launcher::Orders;
use crate::launcher::confine::Confinement;
use decision::Decision;
use facts::Facts;
pub(crate) use homes::Home;
use homes::Homes;

/// Why no child could be started as it should be.
#[derive(Debug)]
pub(crate) enum IsolationError {
    /// What is configured cannot be done here.
    Refused(String),
    Directory {
        path: PathBuf,
        source: io::Error,
    },
}

impl fmt::Display for IsolationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => f.write_str(why),
            Self::Directory { path, source } => write!(f, "{}: {source}", path.display()),
        }
    }
}

/// The protections that are in force.
pub(crate) struct Isolation {
    decision: Decision,
    homes: Homes,
    /// Real paths of directories that are nobody's business.
    hidden: Vec<PathBuf>,
    /// `RLIMIT_NOFILE` that the broker was started with. It raises its own, which is not for
    /// programs that use select() or close every descriptor there could be.
    open_files: Rlimit,
}

impl Isolation {
    /// Decides, and makes room for homes in the state directory.
    /// `open_files` is the limit that the broker was started with.
    pub(crate) fn for_serving(config: &Config, open_files: Rlimit) -> Result<Self, IsolationError> {
        let decision = decide(config)?;
        let state_dir = real(&config.state_dir)?;
        let homes = Homes::in_state(&state_dir, decision.identity.clone(), config.keep_homes)?;
        let mut hidden = vec![state_dir];
        if !homes.base().starts_with(&hidden[0]) {
            hidden.push(homes.base().to_owned());
        }
        Ok(Self {
            decision,
            homes,
            hidden,
            open_files,
        })
    }

    /// The same for one child at a time, whose home does not last. The state directory may belong
    /// to the user of a broker that runs, or not exist: nothing is made in it.
    pub(crate) fn for_trying(config: &Config) -> Result<Self, IsolationError> {
        let decision = decide(config)?;
        let homes = Homes::passing(decision.identity.clone())?;
        Ok(Self {
            decision,
            homes,
            hidden: fs::canonicalize(&config.state_dir).into_iter().collect(),
            open_files: getrlimit(Resource::Nofile),
        })
    }

    /// Says what is in force, in one line for each protection; a warning where there is none.
    pub(crate) fn log(&self) {
        self.decision.log();
        log::info!("protection {}", self.homes);
    }

    /// The private directories for a child of `principal`; theirs for as long as the value lives.
    ///
    /// # Errors
    /// One line.
    pub(crate) fn home(&self, principal: &Principal) -> Result<Home, String> {
        self.homes.open(principal)
    }

    /// What the launcher is to do for a child of `server` that lives in `home`.
    pub(crate) fn orders(&self, server: &Server, home: &Home) -> Orders {
        let limits = &server.options.limits;
        let abi = self.decision.landlock.filter(|_| server.options.isolate);
        Orders {
            parent: getpid().as_raw_pid(),
            ids: home.ids(),
            cwd: server.cwd.clone(),
            open_files: Some(open_files(self.open_files, limits.open_files_max)),
            // Nobody but root can have more than there is.
            file_size: limits
                .file_size_max
                .map(|wanted| at_most(getrlimit(Resource::Fsize).maximum, wanted)),
            confine: abi.map(|abi| Confinement {
                abi,
                hidden: self.hidden.clone(),
                allowed: home.directories().to_vec(),
                readable: Vec::new(),
            }),
            ..Orders::default()
        }
    }
}

fn decide(config: &Config) -> Result<Decision, IsolationError> {
    let open: Vec<&str> = config
        .servers
        .iter()
        .filter(|server| !server.options.isolate)
        .map(|server| server.name.as_str())
        .collect();
    decision::decide(config.run_as.as_ref(), &open, &Facts::gather())
        .map_err(IsolationError::Refused)
}

/// As many as wanted, but not more than the broker was given.
fn open_files(given: Rlimit, wanted: Option<u64>) -> Rlimit {
    let Some(wanted) = wanted else {
        return given;
    };
    let limit = Some(at_most(given.maximum, wanted));
    Rlimit {
        current: limit,
        maximum: limit,
    }
}

fn at_most(maximum: Option<u64>, wanted: u64) -> u64 {
    maximum.map_or(wanted, |maximum| wanted.min(maximum))
}

/// The state directory without links, made for its owner alone if it is not there.
fn real(path: &Path) -> Result<PathBuf, IsolationError> {
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(path);
    made.and_then(|()| fs::canonicalize(path))
        .map_err(|source| IsolationError::Directory {
            path: path.to_owned(),
            source,
        })
}
