//! `mcp-broker user list | revoke` and `mcp-broker client list | revoke`: the operator's hand on
//! those who signed in, and on the programs they signed in with. A running broker sees for itself
//! what changed. Everything it needs is handed to it, as to `command`.

#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::command::utc;
use super::oauth::ClientKind;
use super::oauth::client::pinned;
use super::store::{ClientRow, Store, StoreError, UserRow};

/// Whom a command is about. Prints as the command's first word.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum People {
    Users,
    Clients,
}

/// What is to be done with them.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum PeopleAction {
    List,
    Revoke {
        /// A name, or an ID of the list.
        name: String,
    },
}

/// Why it is not done.
#[derive(Debug)]
pub(crate) enum PeopleError {
    Store(StoreError),
    /// There is no database to revoke anything in.
    Nobody {
        state_dir: PathBuf,
    },
    /// What was to be shown could not be written.
    Output(io::Error),
}

/// Does it, and writes what there is to see to `out`: the list, or nothing. Where nobody has ever
/// signed in the list is empty, and no database is made. `credentials_dir` is
/// `$CREDENTIALS_DIRECTORY` of systemd.
///
/// # Errors
/// [`PeopleError`], also if the name is nobody's or more than one's.
pub(crate) fn run_people_command(
    who: People,
    action: PeopleAction,
    state_dir: &Path,
    credentials_dir: Option<&Path>,
    now: SystemTime,
    out: &mut dyn Write,
) -> Result<(), PeopleError> {
    let store = Store::open_existing(state_dir, credentials_dir)?;
    match action {
        PeopleAction::List => {
            list(who, store.as_ref(), now, out)?.map_err(PeopleError::Output)?;
            out.flush().map_err(PeopleError::Output)
        }
        PeopleAction::Revoke { name } => {
            let store = store.ok_or_else(|| PeopleError::Nobody {
                state_dir: state_dir.to_owned(),
            })?;
            match who {
                People::Users => store.revoke_user(&name)?,
                People::Clients => store.revoke_client(&name)?,
            };
            Ok(())
        }
    }
}

/// One line a user or client. No secret, and no hash of one. The ID is last, as it is long.
fn list(
    who: People,
    store: Option<&Store>,
    now: SystemTime,
    out: &mut dyn Write,
) -> Result<io::Result<()>, StoreError> {
    Ok(match who {
        People::Users => {
            let users = store.map(|store| store.users(now)).transpose()?;
            let rows: Vec<_> = users.iter().flatten().map(of_user).collect();
            let head = ["NAME", "EMAIL", "CREATED", "SEEN", "SIGN-INS", "ID"];
            print_table(head, &rows, out)
        }
        People::Clients => {
            let clients = store.map(|store| store.clients(now)).transpose()?;
            let rows: Vec<_> = clients.iter().flatten().map(of_client).collect();
            print_table(["NAME", "KIND", "USED", "SIGN-INS", "ID"], &rows, out)
        }
    })
}

fn of_user(row: &UserRow) -> [String; 6] {
    let user = &row.user;
    [
        plain(&user.name),
        user.email.as_deref().map_or_else(dash, plain),
        utc(row.created),
        utc(row.seen),
        row.grants.to_string(),
        plain(&format!("{}#{}", user.issuer, user.subject)),
    ]
}

fn of_client(row: &ClientRow) -> [String; 5] {
    let kind = match row.kind {
        ClientKind::Registered => "registered",
        // The store does not tell them apart.
        ClientKind::Document | ClientKind::Pinned if pinned(&row.id).is_some() => "well-known",
        ClientKind::Document | ClientKind::Pinned => "document",
    };
    [
        plain(&row.name),
        kind.to_owned(),
        row.used.map_or_else(|| "never".to_owned(), utc),
        row.grants.to_string(),
        plain(&row.id),
    ]
}

fn dash() -> String {
    "-".to_owned()
}

/// Fit for a terminal and one line, whoever chose it.
fn plain(text: &str) -> String {
    let plain = |c: char| if c.is_control() { '?' } else { c };
    text.chars().map(plain).collect()
}

fn print_table<const N: usize>(
    head: [&str; N],
    rows: &[[String; N]],
    out: &mut dyn Write,
) -> io::Result<()> {
    let head = head.map(str::to_owned);
    let lines = || std::iter::once(&head).chain(rows);
    let width = |column: usize| {
        let cells = lines().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    for line in lines() {
        let mut text = String::new();
        for (cell, width) in line.iter().zip(widths) {
            text += &format!("{cell:width$}  ");
        }
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
}

impl fmt::Display for People {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Users => "user",
            Self::Clients => "client",
        })
    }
}

impl From<StoreError> for PeopleError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl fmt::Display for PeopleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Nobody { state_dir } => {
                write!(f, "{}: nobody has signed in here yet", state_dir.display())
            }
            Self::Output(error) => write!(f, "cannot write the answer: {error}"),
        }
    }
}

impl std::error::Error for PeopleError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            Self::Nobody { .. } => None,
            Self::Output(error) => Some(error),
        }
    }
}
