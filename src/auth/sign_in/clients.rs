//! Who a client is: registered here, described by a document of its own, or known to this program.

use std::time::SystemTime;

use super::SignIn;
use crate::auth::oauth::Client;
use crate::auth::oauth::client::{ClientError, is_document_id, pinned, read_document};
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
    pub(super) fn client(&self, id: &str, now: SystemTime) -> Result<Client, NoClient> {
        if !is_document_id(id) {
            let found = self.store.client(id).map_err(NoClient::Store)?;
            return found.ok_or(NoClient::Unknown);
        }
        match self.documents.fetch(id, now) {
            Ok(document) => {
                let read = read_document(id, &document);
                // A well-known client whose document went wrong is still well-known.
                read.or_else(|why| pinned(id).ok_or(NoClient::Wrong(why)))
            }
            Err(why) => pinned(id).ok_or(NoClient::Unreachable(why)),
        }
    }

    /// The same for a client that has been here before: fetches nothing.
    ///
    /// It proves nothing that its document could tell, having no secret, and what it presents is
    /// bound to its id.
    pub(super) fn returning_client(&self, id: &str) -> Result<Option<Client>, StoreError> {
        match is_document_id(id) {
            true => Ok(Some(pinned(id).unwrap_or_else(|| Client::public(id)))),
            false => self.store.client(id),
        }
    }
}
