//! Who a client is: registered here, described by a document of its own, or known to this program.

use std::time::Instant;

use super::SignIn;
use crate::auth::oauth::client::{ClientError, is_document_id, pinned, read_document};
use crate::auth::oauth::{Client, ClientAuth, ClientKind};
use crate::auth::store::StoreError;
use crate::auth::web::WebError;

/// Why there is no client to go on with.
#[derive(Debug)]
pub(super) enum NoClient {
    Unknown,
    /// Its document cannot be had.
    Unreachable(WebError),
    /// Its document is not what it should be.
    Wrong(ClientError),
    Store(StoreError),
}

impl SignIn {
    /// May fetch the client's document.
    ///
    /// A document that cannot be had is replaced by the copy in this program, if it is one of the
    /// well-known ones: theirs are refused to some networks, and a broker may have no way out.
    pub(super) fn client(&self, id: &str) -> Result<Client, NoClient> {
        if !is_document_id(id) {
            let found = self.store.client(id).map_err(NoClient::Store)?;
            return found.ok_or(NoClient::Unknown);
        }
        match self.documents.fetch(id, Instant::now()) {
            Ok(document) => read_document(id, &document).or_else(|why| {
                self.documents.forget(id);
                // A well-known client whose document went wrong is still well-known.
                pinned(id).ok_or(NoClient::Wrong(why))
            }),
            Err(why) => pinned(id).ok_or(NoClient::Unreachable(why)),
        }
    }

    /// The same for a client that has been here before: fetches nothing.
    ///
    /// It proves nothing that its document could tell, having no secret, and what it presents is
    /// bound to its id.
    pub(super) fn returning_client(&self, id: &str) -> Result<Option<Client>, StoreError> {
        match is_document_id(id) {
            true => Ok(Some(Client {
                id: id.to_owned(),
                name: String::new(),
                redirect_uris: Vec::new(),
                auth: ClientAuth::None,
                kind: ClientKind::Document,
            })),
            false => self.store.client(id),
        }
    }
}
