//! Method and path to what serves them; pure. One match is the table.

use std::sync::Arc;

use tiny_http::Method;

/// What serves a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// POST, GET or DELETE of the MCP endpoint of this server.
    Mcp(Arc<str>),
    /// A browser asks what it may send (Fetch standard, "CORS-preflight request").
    Preflight,
    Health,
    /// With the methods that are allowed.
    MethodNotAllowed(&'static str),
    NotFound,
}

pub(super) fn find(servers: &[Arc<str>], method: &Method, url: &str) -> Route {
    let path = url.split('?').next().unwrap_or(url);
    let server = match path {
        "/healthz" => None,
        "/mcp" => match servers {
            [only] => Some(only),
            _ => return Route::NotFound,
        },
        _ => match path
            .strip_prefix("/mcp/")
            .and_then(|name| by_name(servers, name))
        {
            Some(server) => Some(server),
            None => return Route::NotFound,
        },
    };
    match (server, method) {
        (None, Method::Get) => Route::Health,
        (None, _) => Route::MethodNotAllowed("GET"),
        (Some(server), Method::Get | Method::Post | Method::Delete) => {
            Route::Mcp(Arc::clone(server))
        }
        (Some(_), Method::Options) => Route::Preflight,
        (Some(_), _) => Route::MethodNotAllowed("GET, POST, DELETE, OPTIONS"),
    }
}

fn by_name<'a>(servers: &'a [Arc<str>], name: &str) -> Option<&'a Arc<str>> {
    servers.iter().find(|server| ***server == *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_routes() {
        let one: Vec<Arc<str>> = vec!["a".into()];
        let two: Vec<Arc<str>> = vec!["a".into(), "b".into()];
        let check = |servers: &[Arc<str>], method: Method, url, expected| {
            assert_eq!(find(servers, &method, url), expected, "{method} {url}");
        };
        let mcp = |name: &str| Route::Mcp(name.into());
        check(&one, Method::Post, "/mcp", mcp("a"));
        check(&one, Method::Get, "/mcp?x=y", mcp("a"));
        check(&one, Method::Delete, "/mcp/a", mcp("a"));
        check(&two, Method::Post, "/mcp/b", mcp("b"));
        check(&two, Method::Post, "/mcp", Route::NotFound);
        check(&one, Method::Post, "/mcp/b", Route::NotFound);
        check(&one, Method::Post, "/mcp/", Route::NotFound);
        check(&one, Method::Post, "/", Route::NotFound);
        check(&one, Method::Get, "/healthz", Route::Health);
        check(
            &one,
            Method::Post,
            "/healthz",
            Route::MethodNotAllowed("GET"),
        );
        check(&one, Method::Options, "/mcp", Route::Preflight);
        let allow = Route::MethodNotAllowed("GET, POST, DELETE, OPTIONS");
        check(&one, Method::Head, "/mcp", allow);
    }
}
