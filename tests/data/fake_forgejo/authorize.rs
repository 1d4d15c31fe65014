//! What a browser sees: the login page, the consent page, and the redirects between them.

use crate::http::{Reply, Request};
use crate::state::{Challenge, Code, Forge, Memory, Session, mint};

/// The cookie of a browser's session.
const SESSION: &str = "session";
/// The cookie that says where to go after login, percent-encoded.
const REDIRECT_TO: &str = "redirect_to";

/// The parameters of an authorization request.
struct Asked {
    client_id: String,
    redirect_uri: String,
    response_type: String,
    state: String,
    scope: String,
    nonce: String,
    challenge: Challenge,
}

impl Asked {
    fn read(request: &Request) -> Self {
        let parameter = |name| request.parameter(name).unwrap_or_default();
        Self {
            client_id: parameter("client_id"),
            redirect_uri: parameter("redirect_uri"),
            response_type: parameter("response_type"),
            state: parameter("state"),
            scope: parameter("scope"),
            nonce: parameter("nonce"),
            challenge: Challenge {
                method: parameter("code_challenge_method"),
                value: parameter("code_challenge"),
            },
        }
    }
}

pub(crate) fn login_page(complaint: &str) -> Reply {
    let body = format!(
        "<h1>Sign in</h1><p>{}</p>\n\
         <form method=\"post\" action=\"/user/login\">\n\
         <label>Username <input name=\"user_name\"></label>\n\
         <label>Password <input name=\"password\" type=\"password\"></label>\n\
         <button>Sign in</button></form>",
        escape(complaint)
    );
    Reply::page(200, &body)
}

/// Any password will do.
pub(crate) fn log_in(forge: &Forge, request: &Request) -> Reply {
    let name = request.form("user_name").unwrap_or_default();
    let mut memory = forge.memory();
    let Some(user) = memory.user_named(&name) else {
        return login_page("Username or password is incorrect.");
    };
    memory.count("logins");
    let id = mint("");
    let session = Session {
        user,
        ..Session::default()
    };
    memory.sessions.insert(id.clone(), session);
    let to = request.cookie(REDIRECT_TO).and_then(decode);
    let to = to.filter(|to| to.starts_with('/') && !to.starts_with("//"));
    let cookie = format!("{SESSION}={id}; Path=/; HttpOnly; SameSite=Lax");
    Reply::redirect(303, to.unwrap_or_else(|| "/".to_owned()))
        .with("Set-Cookie", cookie)
        .with("Set-Cookie", format!("{REDIRECT_TO}=; Path=/; Max-Age=0"))
}

/// The session of a browser that has logged in.
fn session(memory: &Memory, request: &Request) -> Option<(String, Session)> {
    let id = request.cookie(SESSION)?;
    let session = memory.sessions.get(id)?;
    Some((id.to_owned(), session.clone()))
}

pub(crate) fn authorize(forge: &Forge, request: &Request) -> Reply {
    let mut memory = forge.memory();
    let Some((id, mut session)) = session(&memory, request) else {
        let target = format!("{}?{}", request.path, request.query);
        let to: String = form_urlencoded::byte_serialize(target.as_bytes()).collect();
        return Reply::redirect(303, "/user/login".to_owned()).with(
            "Set-Cookie",
            format!("{REDIRECT_TO}={to}; Path=/; HttpOnly; SameSite=Lax"),
        );
    };
    let asked = Asked::read(request);
    if asked.client_id != forge.client_id {
        return error_page("unauthorized_client", "Client ID not registered");
    }
    if !memory.is_redirect_uri(&asked.redirect_uri) {
        return error_page("invalid_request", "Unregistered Redirect URI");
    }
    if asked.response_type != "code" {
        let why = "Only code response type is supported.";
        return refuse(
            &asked.redirect_uri,
            &asked.state,
            "unsupported_response_type",
            why,
        );
    }
    match asked.challenge.method.as_str() {
        "" | "S256" => {} // S256 is not kept for the consent page, and plain is
        "plain" => session.challenge = Some(asked.challenge.clone()),
        _ => {
            let why = "unsupported code challenge method";
            return refuse(&asked.redirect_uri, &asked.state, "invalid_request", why);
        }
    }
    if let Some(grant) = memory.grant_of(session.user) {
        if !asked.nonce.is_empty() {
            grant.nonce.clone_from(&asked.nonce);
        }
        let grant = grant.id;
        memory.count("silent");
        let challenge = Some(asked.challenge).filter(|it| !it.value.is_empty());
        let code = code(&mut memory, grant, challenge);
        let to = success(&asked.redirect_uri, &asked.state, &code);
        return Reply::redirect(302, to);
    }
    let page = consent_page(&asked);
    session.asked = Some([asked.client_id, asked.state, asked.redirect_uri]);
    memory.sessions.insert(id, session);
    page
}

fn consent_page(asked: &Asked) -> Reply {
    let hidden = |name: &str, value: &str| {
        let value = escape(value);
        format!("<input type=\"hidden\" name=\"{name}\" value=\"{value}\">\n")
    };
    let body = format!(
        "<h1>Authorize {} to access your account?</h1>\n\
         <p>You will be redirected to <strong>{}</strong>.</p>\n\
         <form method=\"post\" action=\"/login/oauth/grant\">\n{}{}{}{}{}\
         <button name=\"granted\" value=\"true\">Authorize Application</button>\n\
         <button name=\"granted\" value=\"false\">Cancel</button></form>",
        escape(&asked.client_id),
        escape(&asked.redirect_uri),
        hidden("client_id", &asked.client_id),
        hidden("state", &asked.state),
        hidden("scope", &asked.scope),
        hidden("nonce", &asked.nonce),
        hidden("redirect_uri", &asked.redirect_uri),
    );
    Reply::page(200, &body)
}

/// The answer to the consent page.
pub(crate) fn grant(forge: &Forge, request: &Request) -> Reply {
    let field = |name| request.form(name).unwrap_or_default();
    let redirect_uri = field("redirect_uri");
    let state = field("state");
    let mut memory = forge.memory();
    let Some((_, session)) = session(&memory, request) else {
        return Reply::redirect(303, "/user/login".to_owned());
    };
    let answered = [field("client_id"), state.clone(), redirect_uri.clone()];
    if session.asked != Some(answered) {
        return Reply::text(400, "Bad Request");
    }
    if field("granted") != "true" {
        return refuse(
            &redirect_uri,
            &state,
            "access_denied",
            "the request is denied",
        );
    }
    memory.count("consents");
    let scope = field("scope");
    let grant = match memory.grant_of(session.user) {
        Some(grant) if grant.scope != scope => {
            let why = "a grant exists with different scope";
            return refuse(&redirect_uri, &state, "server_error", why);
        }
        Some(grant) => grant.id,
        None => memory.new_grant(session.user, scope).id,
    };
    if let Some(grant) = memory.grant_of(session.user) {
        grant.nonce = field("nonce");
    }
    let code = code(&mut memory, grant, session.challenge);
    Reply::redirect(303, success(&redirect_uri, &state, &code))
}

fn code(memory: &mut Memory, grant: u64, challenge: Option<Challenge>) -> String {
    let code = mint("gta_");
    memory.codes.insert(code.clone(), Code { grant, challenge });
    code
}

fn success(redirect_uri: &str, state: &str, code: &str) -> String {
    let mut parameters = vec![("code", code)];
    if !state.is_empty() {
        parameters.push(("state", state));
    }
    with_query(redirect_uri, &parameters)
}

fn refuse(redirect_uri: &str, state: &str, error: &str, why: &str) -> Reply {
    let parameters = [
        ("error", error),
        ("error_description", why),
        ("state", state),
    ];
    Reply::redirect(303, with_query(redirect_uri, &parameters))
}

fn with_query(uri: &str, parameters: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(parameters);
    let joint = if uri.contains('?') { '&' } else { '?' };
    format!("{uri}{joint}{}", query.finish())
}

fn error_page(error: &str, why: &str) -> Reply {
    let body = format!("<h1>{}</h1><p>{}</p>", escape(error), escape(why));
    Reply::page(400, &body)
}

fn decode(text: &str) -> Option<String> {
    let (value, _) = form_urlencoded::parse(text.as_bytes()).next()?;
    Some(value.into_owned())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
