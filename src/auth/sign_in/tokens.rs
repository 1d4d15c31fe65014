//! The endpoints of programs: codes and refresh tokens to tokens (OAuth 2.1, section 3.2), their
//! revocation (RFC 7009), and the registration of clients (RFC 7591).

use std::time::SystemTime;

use super::SignIn;
use crate::auth::oauth::client::{ClientError, read_registration};
use crate::auth::oauth::token::{
    self, ClientProof, Revocation, TokenError, TokenRequest, pkce_matches, token_response,
};
use crate::auth::oauth::{self, Client, Resource};
use crate::auth::store::{CodeRow, GrantRow, Issued, NewTokens, RedeemError, StoreError};
use crate::auth::upstream::UpstreamError;

const NOT_OF_THIS: &str = "it is not of this client, or not of this request";
const LATER: &str = "the broker is in trouble: try again later";

/// Why a client is not registered.
#[derive(Debug)]
pub(crate) enum NotRegistered {
    Wrong(ClientError),
    Later(TokenError),
}

impl SignIn {
    /// A token request: the body, and the `Authorization` header. Gives the response's body.
    ///
    /// # Errors
    /// What the client is told (OAuth 2.1, section 3.2.4).
    pub(crate) fn token(
        &self,
        body: &str,
        authorization: Option<&str>,
        now: SystemTime,
    ) -> Result<String, TokenError> {
        match token::read_token_request(body, authorization)? {
            TokenRequest::Code {
                client,
                code,
                redirect_uri,
                verifier,
                resource,
            } => {
                let client = self.prove(&client)?;
                let check = |row: &CodeRow| {
                    let is_right = *row.grant.client_id == *client.id
                        && redirect_uri
                            .as_ref()
                            .is_none_or(|it| *it == row.redirect_uri)
                        && pkce_matches(&verifier, &row.challenge);
                    match is_right {
                        true => self.check_resource(resource.as_deref(), &row.grant.resource),
                        false => Err(TokenError::invalid_grant(NOT_OF_THIS)),
                    }
                };
                self.issue(now, |new| {
                    self.store
                        .redeem_code(&oauth::hash(&code), &check, new, now)
                })
            }
            TokenRequest::Refresh {
                client,
                refresh_token,
                resource,
            } => {
                let client = self.prove(&client)?;
                let hash = oauth::hash(&refresh_token);
                let check = |row: &GrantRow| match *row.client_id == *client.id {
                    true => self.check_resource(resource.as_deref(), &row.resource),
                    false => Err(TokenError::invalid_grant(NOT_OF_THIS)),
                };
                if let Some(grant) = self.store.grant_of(&hash, now)?
                    && check(&grant).is_ok()
                {
                    self.check_upstream(&grant, now)?;
                }
                self.issue(now, |new| self.store.rotate(&hash, &check, new, now))
            }
        }
    }

    fn issue(
        &self,
        now: SystemTime,
        store: impl FnOnce(&NewTokens) -> Result<Issued, RedeemError>,
    ) -> Result<String, TokenError> {
        let mint = |prefix| oauth::mint(prefix).map_err(|_| TokenError::unavailable(LATER));
        let (access, refresh) = (mint("mcpa_")?, mint("mcpr_")?);
        let lifetime = self.options.access_lifetime;
        let new = NewTokens {
            access: oauth::hash(&access),
            access_expires: now + lifetime,
            refresh: oauth::hash(&refresh),
        };
        let readings = self.readings();
        match store(&new) {
            Ok(issued) => {
                self.entered(&issued, readings);
                // No token outlives its grant.
                let left = issued.grant.expires.duration_since(now);
                let lifetime = lifetime.min(left.unwrap_or_default());
                Ok(token_response(
                    &access,
                    &refresh,
                    lifetime,
                    &issued.live.scope,
                ))
            }
            Err(RedeemError::Refused(why)) => Err(why),
            Err(RedeemError::Replayed { .. }) => {
                log::warn!("sign-in: a code or refresh token came twice: its grant has ended");
                self.reload(now)?;
                Err(TokenError::invalid_grant("it was used before"))
            }
            Err(RedeemError::Store(why)) => Err(why.into()),
        }
    }

    /// Whether the client is who it says: it exists, and has shown the secret that it was given.
    fn prove(&self, proof: &ClientProof) -> Result<Client, TokenError> {
        let client = self.returning_client(&proof.id)?;
        let client = client.filter(|client| proof.proves(client));
        client.ok_or_else(TokenError::invalid_client)
    }

    /// RFC 8707, section 2.2: what the token is for cannot change.
    fn check_resource(&self, asked: Option<&str>, issued: &Resource) -> Result<(), TokenError> {
        let resources = &self.options.resources;
        match asked.is_none_or(|asked| resources.is_for(issued, asked)) {
            true => Ok(()),
            false => Err(TokenError::invalid_target(
                "it was issued for another resource",
            )),
        }
    }

    /// 2025-03-26, authorization, "Third-Party Authorization Flow": our token is worth no more
    /// than the provider's behind it.
    fn check_upstream(&self, grant: &GrantRow, now: SystemTime) -> Result<(), TokenError> {
        match self.fresh_tokens(&grant.issuer, &grant.subject, now) {
            Ok(_) => Ok(()),
            Err(UpstreamError::SignInAgain(_)) => {
                Err(TokenError::invalid_grant("the user has to sign in again"))
            }
            Err(UpstreamError::TryAgain(_) | UpstreamError::Broken(_)) => {
                Err(TokenError::unavailable(LATER))
            }
        }
    }

    /// Takes a token away. One that is not there, or not the client's, is none (RFC 7009, section
    /// 2.2).
    ///
    /// # Errors
    /// What the client is told.
    pub(crate) fn revoke(
        &self,
        body: &str,
        authorization: Option<&str>,
        now: SystemTime,
    ) -> Result<(), TokenError> {
        let Revocation { client, token } = token::read_revocation(body, authorization)?;
        let client = self.prove(&client)?;
        if self.store.revoke_token(&oauth::hash(&token), &client.id)? {
            self.reload(now)?;
        }
        Ok(())
    }

    /// Registers a client. Gives the response's body.
    ///
    /// # Errors
    /// What the client is told (RFC 7591, section 3.2.2).
    pub(crate) fn register(&self, body: &str, now: SystemTime) -> Result<String, NotRegistered> {
        let registration = read_registration(body).map_err(NotRegistered::Wrong)?;
        let mint = |prefix| {
            let minted = oauth::mint(prefix);
            minted.map_err(|_| NotRegistered::Later(TokenError::unavailable(LATER)))
        };
        let id = mint("client-")?;
        let secret = registration
            .wants_secret()
            .then(|| mint("mcps_"))
            .transpose()?;
        let client = registration.to_client(&id, secret.as_deref());
        let added = self.store.add_client(&client, now);
        added.map_err(|why| NotRegistered::Later(why.into()))?;
        Ok(registration.response(&id, secret.as_deref(), now))
    }
}

impl From<StoreError> for TokenError {
    /// The client is not to know what is wrong here; the operator is.
    fn from(why: StoreError) -> Self {
        log::error!("sign-in: {why}");
        Self::unavailable(LATER)
    }
}
