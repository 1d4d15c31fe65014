//! The private Unix socket between the edge and tiny_http. It has a name in the state directory
//! only while it is being made: children may have the broker's uid, and would get past the edge
//! through it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

const PREFIX: &str = "http-";
const SUFFIX: &str = ".sock";

/// The bound socket.
pub(super) struct InnerSocket {
    /// Through the open file, of which there is no other way to it.
    path: PathBuf,
    _file: File,
}

impl InnerSocket {
    /// Binds a socket of this process, and removes those that killed brokers left. The listener is
    /// the only one there is: when tiny_http loses it, the edge must find nobody listening.
    ///
    /// # Errors
    /// The OS error.
    pub(super) fn bind(state_dir: &Path) -> io::Result<(Self, UnixListener)> {
        create_private(state_dir)?;
        let directory = File::open(state_dir)?;
        // Because a socket's path may not be longer than 107 bytes.
        let through = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        for entry in fs::read_dir(state_dir)? {
            let name = entry?.file_name();
            let is_ours = name
                .to_str()
                .is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
            if is_ours {
                remove_if_stale(&through.join(name))?;
            }
        }
        let name = through.join(format!("{PREFIX}{}{SUFFIX}", std::process::id()));
        let listener = UnixListener::bind(&name)?;
        let flags = (OFlags::PATH | OFlags::NOFOLLOW).bits().cast_signed();
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(&name);
        fs::remove_file(&name)?;
        let file = file?;
        let socket = Self {
            path: PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())),
            _file: file,
        };
        Ok((socket, listener))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Removes a socket on which nobody listens.
///
/// # Errors
/// The OS error; a file that is no socket is left alone, and will be in the way of `bind`.
pub(super) fn remove_if_stale(path: &Path) -> io::Result<()> {
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            let is_socket = {
                use std::os::unix::fs::FileTypeExt as _;
                fs::symlink_metadata(path)?.file_type().is_socket()
            };
            if is_socket {
                fs::remove_file(path)
            } else {
                Ok(())
            }
        }
        _ => Ok(()),
    }
}

fn create_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}
