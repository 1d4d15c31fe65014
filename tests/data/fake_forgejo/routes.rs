//! What is served where.

use crate::faults::Place;
use crate::http::{Reply, Request};
use crate::state::Forge;
use crate::{api, authorize, token};

/// Where in the flow a request belongs.
pub(crate) fn place(request: &Request) -> Option<Place> {
    match request.path.as_str() {
        "/.well-known/openid-configuration" => Some(Place::Discovery),
        "/login/oauth/keys" => Some(Place::Keys),
        "/login/oauth/userinfo" => Some(Place::Userinfo),
        "/login/oauth/introspect" => Some(Place::Introspect),
        "/login/oauth/access_token" => match request.form("grant_type").as_deref() {
            Some("refresh_token") => Some(Place::Refresh),
            _ => Some(Place::Exchange),
        },
        "/login/oauth/authorize" => Some(Place::Authorize),
        path if path.starts_with("/api/v1/") => Some(Place::Api),
        _ => None,
    }
}

pub(crate) fn route(forge: &Forge, request: &Request) -> Reply {
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/.well-known/openid-configuration") => api::discovery(forge),
        ("GET", "/login/oauth/keys") => Reply::json(200, &forge.key.jwks()),
        ("GET", "/user/login") => authorize::login_page(""),
        ("POST", "/user/login") => authorize::log_in(forge, request),
        ("GET", "/login/oauth/authorize") => authorize::authorize(forge, request),
        ("POST", "/login/oauth/grant") => authorize::grant(forge, request),
        ("POST", "/login/oauth/access_token") => token::answer(forge, request),
        ("GET" | "POST", "/login/oauth/userinfo") => api::userinfo(forge, request),
        ("POST", "/login/oauth/introspect") => api::introspect(forge, request),
        ("GET", path) if path.starts_with("/api/v1/") => api::api(forge, request),
        _ => Reply::text(404, "Not found."),
    }
}
