//! Until every file names them itself.

pub(crate) use crate::auth::oauth::authorize::Request;
pub(crate) use crate::auth::oauth::token::TokenError;
pub(crate) use crate::auth::oauth::{Client, ClientAuth, ClientKind, Hash, Resource, hash};
