//! How the process ends: the exit codes a script, a shell or systemd can rely on. `main` maps every
//! error to one of them.

use std::process::ExitCode;

/// An exit code of `mcp-broker`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Exit {
    /// All went well; also the end of a `serve` that was asked to stop.
    Ok = 0,
    /// Something failed while running.
    Failure = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// The configuration cannot be used (`EX_CONFIG` of sysexits.h).
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}
