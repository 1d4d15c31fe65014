//! Files that only the broker's own user may read: where they are, that nobody else can read them,
//! and how they are replaced without a moment in which half of one is there. Knows nothing of what
//! they contain.

use std::fmt;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// The longest private file that is read.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Links are not followed: root may be working in somebody else's directory, and a link there could
/// lead it anywhere.
const NO_LINKS: i32 = OFlags::NOFOLLOW.bits().cast_signed();

/// What went wrong with a private file, and with which.
#[derive(Debug)]
pub(crate) enum FileError {
    Io {
        path: PathBuf,
        source: io::Error,
    },
    /// Its group or everybody may read or write it.
    Exposed {
        path: PathBuf,
        mode: u32,
    },
    /// Somebody else may put files into this directory.
    OpenDirectory {
        path: PathBuf,
        mode: u32,
    },
    /// The directory, or a file in it, is another user's.
    Foreign {
        path: PathBuf,
        owner: u32,
    },
}

/// A directory of private files.
#[derive(Debug)]
pub(crate) struct PrivateDir {
    path: PathBuf,
}

impl PrivateDir {
    /// Creates the directory, and what is missing above it, for its owner alone. One that exists
    /// may be readable for others (systemd makes such), but not writable.
    pub(crate) fn open(path: &Path) -> Result<Self, FileError> {
        let io = |source| FileError::Io {
            path: path.to_owned(),
            source,
        };
        // The working directory may change; what is meant is the one of now.
        let path = std::path::absolute(path).map_err(io)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(io)?;
        let found = fs::metadata(&path).map_err(io)?;
        let me = rustix::process::geteuid();
        if found.uid() != me.as_raw() && !me.is_root() {
            return Err(FileError::Foreign {
                path,
                owner: found.uid(),
            });
        }
        match found.mode() & 0o022 {
            0 => Ok(Self { path }),
            _ => Err(FileError::OpenDirectory {
                path,
                mode: found.mode() & 0o7777,
            }),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// What is known about a file without opening it. `None`: there is none.
    pub(crate) fn metadata(&self, name: &str) -> Result<Option<Metadata>, FileError> {
        let path = self.path(name);
        found(fs::symlink_metadata(&path)).map_err(|source| FileError::Io { path, source })
    }

    /// A file's text, and the open file. `None`: there is none.
    pub(crate) fn read(&self, name: &str) -> Result<Option<(String, File)>, FileError> {
        let path = self.path(name);
        let io = |source| FileError::Io {
            path: path.clone(),
            source,
        };
        let Some(file) = found(open_to_read(&path)).map_err(io)? else {
            return Ok(None);
        };
        self.check(&file, &path)?;
        let mut text = String::new();
        let length = (&file)
            .take(MAX_FILE_BYTES + 1)
            .read_to_string(&mut text)
            .map_err(io)?;
        if length as u64 > MAX_FILE_BYTES {
            return Err(io(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "longer than 16 MiB",
            )));
        }
        Ok(Some((text, file)))
    }

    /// Puts a whole new file in the place of the old one: after a crash at any moment, one of them
    /// is there. To be called under the [`Self::lock`] that all who write this file agree on.
    pub(crate) fn replace(&self, name: &str, text: &str) -> Result<(), FileError> {
        let (path, new) = (self.path(name), self.path(&format!("{name}.new")));
        let io = |source| FileError::Io {
            path: new.clone(),
            source,
        };
        // One that a crash left behind may have any owner and content.
        found(fs::remove_file(&new)).map_err(io)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)
            .map_err(io)?;
        self.hand_over(&file).map_err(io)?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(io)?;
        fs::rename(&new, &path).map_err(io)?;
        let directory = File::open(&self.path).and_then(|directory| directory.sync_all());
        directory.map_err(|source| FileError::Io {
            path: self.path.clone(),
            source,
        })
    }

    /// Waits until no other process holds the lock of this name, and holds it for as long as the
    /// file lives.
    pub(crate) fn lock(&self, name: &str) -> Result<File, FileError> {
        let path = self.path(name);
        let io = |source| FileError::Io {
            path: path.clone(),
            source,
        };
        let mut options = OpenOptions::new();
        options.write(true).mode(0o600).custom_flags(NO_LINKS);
        let file = match options.clone().create_new(true).open(&path) {
            Ok(file) => self.hand_over(&file).map(|()| file),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(&path),
            Err(error) => Err(error),
        };
        let file = file.map_err(io)?;
        file.lock().map_err(io)?;
        Ok(file)
    }

    /// Root, who may administer somebody else's broker, must not leave files there that the broker
    /// cannot open. For files that were created just now: of any other nobody knows where it was.
    fn hand_over(&self, file: &File) -> io::Result<()> {
        let directory = fs::metadata(&self.path)?;
        if rustix::process::geteuid().is_root() && directory.uid() != 0 {
            return fchown(file, Some(directory.uid()), Some(directory.gid()));
        }
        Ok(())
    }

    fn check(&self, file: &File, path: &Path) -> Result<(), FileError> {
        let io = |source| FileError::Io {
            path: path.to_owned(),
            source,
        };
        let (found, directory) = (
            file.metadata().map_err(io)?,
            fs::metadata(&self.path).map_err(io)?,
        );
        if found.mode() & 0o077 != 0 {
            return Err(FileError::Exposed {
                path: path.to_owned(),
                mode: found.mode() & 0o7777,
            });
        }
        match found.uid() == directory.uid() || found.uid() == 0 {
            true => Ok(()),
            false => Err(FileError::Foreign {
                path: path.to_owned(),
                owner: found.uid(),
            }),
        }
    }
}

/// The longest secret that is read.
const MAX_SECRET_BYTES: u64 = 64 << 10;

/// Where systemd puts a unit's credentials. Who may read them there is its affair: it grants that
/// by access lists, which show in the mode.
const CREDENTIALS: &str = "/run/credentials";

/// The text of a file that the operator has put somewhere. Nobody else may read it. Links are
/// followed: to a file of root's or of the broker's own user.
pub(crate) fn read_secret(path: &Path) -> Result<String, FileError> {
    let io = |source| FileError::Io {
        path: path.to_owned(),
        source,
    };
    let real = fs::canonicalize(path).map_err(io)?;
    let mut options = OpenOptions::new();
    // Opening a pipe would wait for somebody who writes to it.
    let flags = NO_LINKS | OFlags::NONBLOCK.bits().cast_signed();
    let file = options.read(true).custom_flags(flags).open(&real);
    let file = file.map_err(io)?;
    let found = file.metadata().map_err(io)?;
    if !found.is_file() {
        let kind = io::ErrorKind::InvalidInput;
        return Err(io(io::Error::new(kind, "not a regular file")));
    }
    if !real.starts_with(CREDENTIALS) {
        if found.mode() & 0o077 != 0 {
            return Err(FileError::Exposed {
                path: path.to_owned(),
                mode: found.mode() & 0o7777,
            });
        }
        if found.uid() != 0 && found.uid() != rustix::process::geteuid().as_raw() {
            return Err(FileError::Foreign {
                path: path.to_owned(),
                owner: found.uid(),
            });
        }
    }
    let mut text = String::new();
    let read = (&file).take(MAX_SECRET_BYTES + 1).read_to_string(&mut text);
    match read.map_err(io)? as u64 > MAX_SECRET_BYTES {
        true => Err(io(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "longer than 64 KiB",
        ))),
        false => Ok(text),
    }
}

fn open_to_read(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(NO_LINKS)
        .open(path)
}

/// "Not found" as a value: no file is an answer, not an error.
fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Exposed { path, mode } => {
                write!(
                    f,
                    "{0}: others may read it (mode {mode:04o}): chmod 600 {0}",
                    path.display()
                )
            }
            Self::OpenDirectory { path, mode } => {
                write!(
                    f,
                    "{0}: others may write to it (mode {mode:04o}): chmod 700 {0}",
                    path.display()
                )
            }
            Self::Foreign { path, owner } => write!(
                f,
                "{}: it belongs to another user (uid {owner})",
                path.display()
            ),
        }
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
