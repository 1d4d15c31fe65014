//! Which sockets are listened on: those that were passed, else those that are configured.

use std::io;

use super::{ServeError, inner};
use crate::config::{Config, Listen};
use crate::edge::{Door, Listener};
use crate::systemd;

/// A passed socket of this name (`FileDescriptorName=`) is the admin listener.
const ADMIN_NAME: &str = "admin";

/// All sockets of the broker. Passed ones win: of each door, what is configured is used only if
/// nothing was passed for it.
///
/// # Errors
/// [`ServeError`]: a socket cannot be had, or one that others reach has no lock.
pub(super) fn open(config: &Config) -> Result<Vec<Listener>, ServeError> {
    let mut listeners = passed()?;
    let has = |listeners: &[Listener], door| listeners.iter().any(|it| it.door() == door);
    if !has(&listeners, Door::Public) {
        listeners.push(bind(&config.listen, Door::Public)?);
    }
    match &config.admin {
        Some(listen) if !has(&listeners, Door::Admin) => {
            listeners.push(bind(listen, Door::Admin)?);
        }
        _ => {}
    }
    for listener in &listeners {
        check_reach(listener, config.auth)?;
    }
    Ok(listeners)
}

/// Where clients of a door connect to.
pub(super) fn urls(listeners: &[Listener], door: Door) -> Vec<String> {
    let of_door = listeners.iter().filter(|it| it.door() == door);
    of_door.map(url).collect()
}

fn url(listener: &Listener) -> String {
    match (listener.tcp_addr(), listener.unix_path()) {
        (Some(addr), _) => format!("http://{addr}"),
        (None, Some(path)) => format!("unix:{}", path.display()),
        (None, None) => "an unnamed Unix socket".to_owned(),
    }
}

fn passed() -> Result<Vec<Listener>, ServeError> {
    let passed = systemd::passed_sockets().map_err(|source| ServeError::Passed {
        name: "LISTEN_FDS".to_owned(),
        source,
    })?;
    let mut listeners = Vec::new();
    for (fd, name) in passed {
        let door = match name == ADMIN_NAME {
            true => Door::Admin,
            false => Door::Public,
        };
        let listener = Listener::passed(fd, door).map_err(|source| ServeError::Passed {
            name: name.clone(),
            source,
        })?;
        log::info!(
            "socket passed name={name} address={}: it is used in place of the setting {}",
            url(&listener),
            match door {
                Door::Public => "listen",
                Door::Admin => "admin",
            }
        );
        listeners.push(listener);
    }
    Ok(listeners)
}

fn bind(listen: &Listen, door: Door) -> Result<Listener, ServeError> {
    let listener: io::Result<Listener> = match listen {
        Listen::Tcp(addr) => Listener::tcp(*addr, door),
        Listen::Unix(path) => {
            inner::remove_if_stale(path).and_then(|()| Listener::unix(path, door))
        }
    };
    listener.map_err(|source| ServeError::Listen {
        listen: listen.clone(),
        source,
    })
}

/// What other machines reach has a lock. The configuration knows only its own addresses.
fn check_reach(listener: &Listener, auth: bool) -> Result<(), ServeError> {
    let is_guarded = auth && listener.door() == Door::Public;
    match listener.tcp_addr() {
        Some(addr) if !is_guarded && !addr.ip().to_canonical().is_loopback() => {
            Err(ServeError::OpenDoor {
                addr,
                door: listener.door(),
            })
        }
        _ => Ok(()),
    }
}
