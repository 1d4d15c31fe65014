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
    Metrics,
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

/// The same for the admin listener.
pub(super) fn find_admin(method: &Method, url: &str) -> Route {
    let route = match url.split('?').next().unwrap_or(url) {
        "/metrics" => Route::Metrics,
        "/healthz" => Route::Health,
        _ => return Route::NotFound,
    };
    match method {
        Method::Get => route,
        _ => Route::MethodNotAllowed("GET"),
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
        check(&one, Method::Get, "/metrics", Route::NotFound);
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

    #[test]
    fn finds_routes_of_the_admin_listener() {
        let get = |url| find_admin(&Method::Get, url);
        assert_eq!(get("/metrics"), Route::Metrics);
        assert_eq!(get("/metrics?name[]=x"), Route::Metrics);
        assert_eq!(get("/healthz"), Route::Health);
        assert_eq!(get("/mcp"), Route::NotFound);
        assert_eq!(get("/metrics/"), Route::NotFound);
        let allow = Route::MethodNotAllowed("GET");
        assert_eq!(find_admin(&Method::Post, "/metrics"), allow);
    }
}
