//! Clients that registered themselves (RFC 7591). Anybody may, so there are at most
//! [`MAX_CLIENTS`], and those that never came to be used make room.
//!
//! To refuse newcomers instead would let a flood keep everybody out who has not registered yet.

use std::time::SystemTime;

use rusqlite::{OptionalExtension, Transaction, params};
use serde_json::{Value, json};

use super::error::StoreError;
use super::{Store, count, purge, seconds, time};
use crate::auth::oauth::{Client, ClientAuth, ClientKind, Hash};

/// How many clients may be registered at once.
pub(super) const MAX_CLIENTS: usize = 1000;

/// A line of `mcp-broker client list`.
#[derive(Debug)]
pub(crate) struct ClientRow {
    pub(crate) id: String,
    pub(crate) name: String,
    /// `Registered`, or else `Document`, which is said of pinned clients too: the store does not
    /// know them apart.
    pub(crate) kind: ClientKind,
    /// In force now.
    pub(crate) grants: usize,
    /// `None`: never.
    pub(crate) used: Option<SystemTime>,
}

impl Store {
    /// Keeps a client that registered itself.
    ///
    /// # Errors
    /// [`StoreError::TooMany`] if there are too many that have a grant.
    pub(crate) fn add_client(&self, client: &Client, now: SystemTime) -> Result<(), StoreError> {
        let secret: Option<Hash> = match &client.auth {
            ClientAuth::None => None,
            ClientAuth::Secret(hash) => Some(*hash),
        };
        let uris = json!(client.redirect_uris).to_string();
        let sql = "INSERT INTO clients (id, name, redirect_uris, secret, created)
                   VALUES (?1, ?2, ?3, ?4, ?5)";
        self.write(|tx| {
            if !has_room(tx, now)? {
                return Ok(Err(StoreError::TooMany {
                    what: "registered clients",
                    most: MAX_CLIENTS,
                }));
            }
            let row = params![client.id, client.name, uris, secret, seconds(now)];
            tx.execute(sql, row).map(|_| Ok(()))
        })?
    }

    /// A client that registered itself.
    pub(crate) fn client(&self, id: &str) -> Result<Option<Client>, StoreError> {
        let sql = "SELECT name, redirect_uris, secret FROM clients WHERE id = ?1";
        self.read(|db| {
            let found = db.query_row(sql, [id], |row| {
                let (uris, secret): (String, Option<Hash>) = (row.get(1)?, row.get(2)?);
                Ok(Client {
                    id: id.to_owned(),
                    name: row.get(0)?,
                    redirect_uris: strings(&uris),
                    auth: secret.map_or(ClientAuth::None, ClientAuth::Secret),
                    kind: ClientKind::Registered,
                })
            });
            found.optional()
        })
    }

    /// All that registered, and those of other kinds that have a grant, by name.
    pub(crate) fn clients(&self, now: SystemTime) -> Result<Vec<ClientRow>, StoreError> {
        let sql = "
            SELECT c.id, c.name, 1, c.used, (SELECT count(*) FROM grants g
                WHERE g.client_id = c.id AND g.redeemed AND g.expires > ?1)
            FROM clients c
            UNION ALL
            SELECT client_id, client_name, 0, max(used),
                count(*) FILTER (WHERE redeemed AND expires > ?1)
            FROM grants WHERE client_id NOT IN (SELECT id FROM clients)
            GROUP BY client_id
            ORDER BY 2, 1";
        self.read(|db| {
            let mut query = db.prepare(sql)?;
            let rows = query.query_map([seconds(now)], |row| {
                let grants: i64 = row.get(4)?;
                let used: Option<i64> = row.get(3)?;
                Ok(ClientRow {
                    id: row.get(0)?,
                    name: row.get(1)?,
                    kind: match row.get(2)? {
                        true => ClientKind::Registered,
                        false => ClientKind::Document,
                    },
                    grants: usize::try_from(grants).unwrap_or_default(),
                    used: used.map(time),
                })
            })?;
            rows.collect()
        })
    }

    /// Takes a client away with all its grants, and returns how many those were. An id goes before
    /// a name: clients choose their names themselves.
    pub(crate) fn revoke_client(&self, id_or_name: &str) -> Result<usize, StoreError> {
        self.write(|tx| {
            let id = match named(tx, id_or_name)? {
                Ok(id) => id,
                Err(error) => return Ok(Err(error)),
            };
            tx.execute("DELETE FROM clients WHERE id = ?1", [&id])?;
            let ended = tx.execute("DELETE FROM grants WHERE client_id = ?1", [&id])?;
            Ok(Ok(ended))
        })?
    }
}

/// Whether one more may be kept. If there are too many, one goes that has no grant: the oldest that
/// was never used, else the one that was not used for longest.
fn has_room(tx: &Transaction<'_>, now: SystemTime) -> rusqlite::Result<bool> {
    const COUNT: &str = "SELECT count(*) FROM clients";
    const ONE: &str = "DELETE FROM clients WHERE id = (SELECT id FROM clients
        WHERE id NOT IN (SELECT client_id FROM grants)
        ORDER BY used IS NOT NULL, coalesce(used, created) LIMIT 1)";
    if count(tx, COUNT)? >= MAX_CLIENTS {
        purge::clients(tx, now)?;
    }
    if count(tx, COUNT)? >= MAX_CLIENTS {
        tx.execute(ONE, [])?;
    }
    Ok(count(tx, COUNT)? < MAX_CLIENTS)
}

/// The id of the one client that is meant.
fn named(tx: &Transaction<'_>, name: &str) -> rusqlite::Result<Result<String, StoreError>> {
    const CLIENTS: &str = "(SELECT id, name FROM clients
        UNION SELECT client_id, client_name FROM grants)";
    for column in ["id", "name"] {
        let sql = format!("SELECT DISTINCT id FROM {CLIENTS} WHERE {column} = ?1 ORDER BY id");
        let mut query = tx.prepare(&sql)?;
        let found = query.query_map([name], |row| row.get(0))?;
        let mut ids: Vec<String> = found.collect::<rusqlite::Result<_>>()?;
        match (ids.pop(), ids.is_empty()) {
            (Some(id), true) => return Ok(Ok(id)),
            (Some(id), false) => {
                ids.push(id);
                let (what, name) = ("client", name.to_owned());
                return Ok(Err(StoreError::Ambiguous { what, name, ids }));
            }
            (None, _) => {}
        }
    }
    let (what, name) = ("client", name.to_owned());
    Ok(Err(StoreError::Unknown { what, name }))
}

/// A list as [`Store::add_client`] writes it. One that cannot be read allows nothing.
fn strings(json: &str) -> Vec<String> {
    let list: Value = serde_json::from_str(json).unwrap_or_default();
    let items = list.as_array().into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}
