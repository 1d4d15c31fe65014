//! Tokens that were verified, so that a client's thousandth request costs a hash and not a
//! signature. Found by hash: the tokens themselves are not kept.

use std::collections::HashMap;
use std::time::SystemTime;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::auth::Principal;

/// Entries of each of the two halves.
const HALF: usize = 512;

/// A token together with what it was shown for.
pub(super) type Shown = [u8; 32];

pub(super) fn shown(token: &str, resources: &[String]) -> Shown {
    let mut hash = Sha256::new();
    for text in std::iter::once(token).chain(resources.iter().map(String::as_str)) {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    }
    hash.finalize().into()
}

#[derive(Clone)]
pub(super) struct Verified {
    pub(super) principal: Principal,
    pub(super) expires: SystemTime,
    /// Of the keys that it was verified with.
    pub(super) edition: u64,
}

/// The last ones that were asked for, at most twice [`HALF`].
#[derive(Default)]
pub(super) struct Seen {
    halves: Mutex<Halves>,
}

#[derive(Default)]
struct Halves {
    young: HashMap<Shown, Verified>,
    old: HashMap<Shown, Verified>,
}

impl Seen {
    /// The token, if it is still in force and verified with the keys that are.
    pub(super) fn find(&self, shown: &Shown, edition: u64, now: SystemTime) -> Option<Principal> {
        let mut halves = self.halves.lock();
        let found = match halves.young.get(shown) {
            Some(found) => found.clone(),
            None => {
                let found = halves.old.remove(shown)?;
                halves.add(*shown, found.clone());
                found
            }
        };
        let is_valid = found.expires > now && found.edition == edition;
        is_valid.then_some(found.principal)
    }

    pub(super) fn add(&self, shown: Shown, verified: Verified) {
        self.halves.lock().add(shown, verified);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let halves = self.halves.lock();
        halves.young.len() + halves.old.len()
    }
}

impl Halves {
    fn add(&mut self, shown: Shown, verified: Verified) {
        if self.young.len() >= HALF {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(shown, verified);
    }
}
