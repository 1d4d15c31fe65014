//! A listening socket, opened here or passed by whoever started the broker.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use socket2::{Domain, SockAddr, Socket, Type};

/// Pending connections the kernel keeps while the edge is busy.
const BACKLOG: i32 = 4096;

/// Who comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Public,
    /// The operator: metrics, and nothing else.
    Admin,
}

/// A listening socket. The file of a Unix socket that was opened here goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(super) socket: Socket,
    pub(super) door: Door,
    /// Somebody else holds it too, and will hand it to the next broker.
    pub(super) is_passed: bool,
    file: Option<PathBuf>,
}

impl Listener {
    /// # Errors
    /// The OS error, for instance `AddrInUse`.
    pub(crate) fn tcp(addr: SocketAddr, door: Door) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&addr.into())?;
        Self::listening(socket, door, None)
    }

    /// Only the owner can connect to the admin's.
    ///
    /// # Errors
    /// The OS error, for instance `AddrInUse` if something exists at `path`.
    pub(crate) fn unix(path: &Path, door: Door) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        if door == Door::Admin {
            // Before `bind`, which gives the file the mode of the socket: it is never any wider.
            rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        }
        socket.bind(&SockAddr::unix(path)?)?;
        Self::listening(socket, door, Some(path.to_owned()))
    }

    fn listening(socket: Socket, door: Door, file: Option<PathBuf>) -> io::Result<Self> {
        let listener = Self {
            socket,
            door,
            is_passed: false,
            file,
        };
        listener.socket.listen(BACKLOG)?;
        listener.socket.set_nonblocking(true)?;
        Ok(listener)
    }

    /// A socket that listens already.
    ///
    /// # Errors
    /// `InvalidInput` if it is none that connections can be taken from; else the OS error.
    pub(crate) fn passed(fd: OwnedFd, door: Door) -> io::Result<Self> {
        let wrong = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        let socket = Socket::from(fd);
        if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
            return wrong("not a stream socket that listens (Accept=no is needed)");
        }
        let domain = socket.domain()?;
        if ![Domain::IPV4, Domain::IPV6, Domain::UNIX].contains(&domain) {
            return wrong("neither TCP nor Unix");
        }
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            door,
            is_passed: true,
            file: None,
        })
    }

    pub(crate) fn door(&self) -> Door {
        self.door
    }

    /// The address that was really bound; `None` for a Unix socket.
    pub(crate) fn tcp_addr(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()?.as_socket()
    }

    /// Where a Unix socket is; `None` for a TCP socket, or one without a file.
    pub(crate) fn unix_path(&self) -> Option<PathBuf> {
        Some(self.socket.local_addr().ok()?.as_pathname()?.to_owned())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            // Somebody may have removed it already.
            let _ = std::fs::remove_file(file);
        }
    }
}
