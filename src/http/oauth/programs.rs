//! What programs post: for tokens, to take them away, and to register.

use std::time::SystemTime;

use serde_json::json;
use tiny_http::Request;

use super::{Endpoint, field};
use crate::auth::oauth::token::TokenError;
use crate::auth::sign_in::{NotRegistered, SignIn};
use crate::http::reply::Rendered;
use crate::http::request::is_of_type;

pub(super) fn serve(
    sign_in: &SignIn,
    endpoint: &Endpoint,
    request: &Request,
    body: &str,
) -> Rendered {
    let now = SystemTime::now();
    let authorization = field(request, "Authorization");
    let is = |wanted: &str| is_of_type(field(request, "Content-Type"), wanted);
    let rendered = match endpoint {
        Endpoint::Register if !is("application/json") => {
            wrong_type("Content-Type must be application/json")
        }
        Endpoint::Register => register(sign_in, body, now),
        _ if !is("application/x-www-form-urlencoded") => {
            wrong_type("Content-Type must be application/x-www-form-urlencoded")
        }
        Endpoint::Revoke => match sign_in.revoke(body, authorization, now) {
            Ok(()) => Rendered::empty(200),
            Err(why) => refused(&why, authorization),
        },
        _ => match sign_in.token(body, authorization, now) {
            Ok(json) => Rendered::json(200, json.as_bytes()),
            Err(why) => refused(&why, authorization),
        },
    };
    for_programs(rendered)
}

fn register(sign_in: &SignIn, body: &str, now: SystemTime) -> Rendered {
    match sign_in.register(body, now) {
        Ok(json) => Rendered::json(201, json.as_bytes()),
        Err(NotRegistered::Wrong(why)) => Rendered::json(400, why.to_json().as_bytes()),
        Err(NotRegistered::Later(why)) => refused(&why, None),
    }
}

fn refused(why: &TokenError, authorization: Option<&str>) -> Rendered {
    let mut rendered = Rendered::json(why.status(), why.to_json().as_bytes());
    if let Some(challenge) = why.challenge(authorization) {
        rendered = rendered.with("WWW-Authenticate", challenge);
    }
    match why.status() {
        503 => rendered.with("Retry-After", "5"),
        _ => rendered,
    }
}

fn wrong_type(why: &str) -> Rendered {
    let json = json!({ "error": "invalid_request", "error_description": why });
    Rendered::json(400, json.to_string().as_bytes())
}

pub(super) fn too_many() -> Rendered {
    let why = "too many requests from this address";
    let json = json!({ "error": "temporarily_unavailable", "error_description": why });
    for_programs(Rendered::json(429, json.to_string().as_bytes()))
}

/// OAuth 2.1, section 3.2.3: nothing of it is to be kept by anybody on the way.
fn for_programs(rendered: Rendered) -> Rendered {
    rendered
        .with("Cache-Control", "no-store")
        .with("Access-Control-Allow-Origin", "*")
        .with(
            "Access-Control-Expose-Headers",
            "WWW-Authenticate, Retry-After",
        )
}
