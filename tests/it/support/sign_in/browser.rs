//! A browser as far as signing in needs one: cookies, forms, and redirects that are followed one
//! by one.

use std::net::SocketAddr;

use super::Site;
use crate::support::{Request, Response};

/// One person's browser.
#[derive(Clone, Debug, Default)]
pub(crate) struct Browser {
    /// Host, name and value. As in real browsers, the port does not matter.
    pub(crate) cookies: Vec<(String, String, String)>,
}

impl Browser {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Opens a URL of the broker or of the forge.
    #[track_caller]
    pub(crate) fn open(&mut self, site: &Site, url: &str) -> Response {
        let (authority, path) = split(url);
        self.send(site, authority, Request::new("GET", path))
    }

    /// Sends a form as a page of the same site does.
    #[track_caller]
    pub(crate) fn post(&mut self, site: &Site, url: &str, form: &[(&str, &str)]) -> Response {
        let (authority, path) = split(url);
        let origin = url.trim_end_matches(path);
        let request = form_request(path, form)
            .header("Origin", origin)
            .header("Sec-Fetch-Site", "same-origin");
        self.send(site, authority, request)
    }

    /// Sends a request with the cookies of its host, and keeps those that come back.
    #[track_caller]
    pub(crate) fn send(&mut self, site: &Site, authority: &str, request: Request) -> Response {
        let host = host(authority);
        let cookies = self.cookies.iter().filter(|it| it.0 == host);
        let pairs = cookies.map(|(_, name, value)| format!("{name}={value}"));
        let pairs: Vec<String> = pairs.collect();
        let mut request = request.header("Host", authority);
        if !pairs.is_empty() {
            request = request.header("Cookie", &pairs.join("; "));
        }
        let response = request.send(site.at(authority));
        for cookie in set_cookies(&response) {
            self.keep(host, cookie);
        }
        response
    }

    fn keep(&mut self, host: &str, cookie: &str) {
        let (pair, attributes) = cookie.split_once(';').unwrap_or((cookie, ""));
        let (name, value) = pair.split_once('=').expect("a pair");
        self.cookies
            .retain(|(of, other, _)| (of.as_str(), other.as_str()) != (host, name));
        if !attributes.contains("Max-Age=0") {
            let cookie = [host, name, value].map(str::to_owned);
            self.cookies.push(cookie.into());
        }
    }

    /// The value of the cookie whose name begins so.
    pub(crate) fn cookie(&self, name: &str) -> Option<&str> {
        let mut cookies = self.cookies.iter();
        let found = cookies.find(|it| it.1.starts_with(name));
        found.map(|(_, _, value)| value.as_str())
    }

    /// Answers the broker's page that asks: the way to the provider, or back to the client.
    #[track_caller]
    pub(crate) fn answer(&mut self, site: &Site, page: &Response, action: &str) -> Response {
        let sealed = hidden(page, "request");
        let url = format!("{}/oauth/authorize", site.issuer);
        self.post(site, &url, &[("request", &sealed), ("action", action)])
    }

    /// Says yes to the broker: the way to the provider.
    #[track_caller]
    pub(crate) fn approve(&mut self, site: &Site, page: &Response) -> String {
        location(&self.answer(site, page, "allow"))
    }

    /// Logs in at the forge, agrees there if it asks, and gives the way back to the broker.
    #[track_caller]
    pub(crate) fn visit_forge(&mut self, site: &Site, url: &str, user: &str) -> String {
        let at = |path: &str| format!("{}{path}", site.forge.url);
        let mut url = url.to_owned();
        for _ in 0..8 {
            if !url.starts_with(&site.forge.url) {
                return url;
            }
            let page = self.open(site, &url);
            let next = match (page.status, url == at("/user/login")) {
                (200, true) => {
                    let form = [("user_name", user), ("password", "any")];
                    self.post(site, &url, &form)
                }
                (200, false) => {
                    let names = ["client_id", "state", "scope", "nonce", "redirect_uri"];
                    let fields = names.map(|name| (name, hidden(&page, name)));
                    let mut form: Vec<(&str, &str)> =
                        fields.iter().map(|(name, it)| (*name, &**it)).collect();
                    form.push(("granted", "true"));
                    self.post(site, &at("/login/oauth/grant"), &form)
                }
                _ => page,
            };
            let to = location(&next);
            url = match to.starts_with('/') {
                true => at(&to),
                false => to,
            };
        }
        panic!("the forge goes round in circles at {url}");
    }

    /// All the way from the client's request to the way back to the client.
    #[track_caller]
    pub(crate) fn sign_in(&mut self, site: &Site, url: &str, user: &str) -> String {
        let back = self.come_back(site, url, user);
        location(&back)
    }

    /// The same up to the broker's last answer, whatever it is.
    #[track_caller]
    pub(crate) fn come_back(&mut self, site: &Site, url: &str, user: &str) -> Response {
        let callback = self.until_callback(site, url, user);
        self.open(site, &callback)
    }

    /// The same up to where the provider sends the browser back to the broker.
    #[track_caller]
    pub(crate) fn until_callback(&mut self, site: &Site, url: &str, user: &str) -> String {
        let page = self.open(site, url);
        assert_eq!(page.status, 200, "{}", page.text());
        let to = self.approve(site, &page);
        self.visit_forge(site, &to, user)
    }
}

impl Site {
    /// Where an authority of a URL is: the broker's own need not be an address.
    fn at(&self, authority: &str) -> SocketAddr {
        match authority == self.host() {
            true => self.addr(),
            false => authority.parse().expect("an address"),
        }
    }
}

pub(crate) fn form_request(path: &str, form: &[(&str, &str)]) -> Request {
    Request::new("POST", path)
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(encode(form))
}

pub(crate) fn encode(form: &[(&str, &str)]) -> String {
    let mut text = form_urlencoded::Serializer::new(String::new());
    text.extend_pairs(form).finish()
}

/// Authority and path of a URL.
pub(crate) fn split(url: &str) -> (&str, &str) {
    let rest = url.split_once("://").map(|(_, rest)| rest);
    let rest = rest.unwrap_or_else(|| panic!("no URL: {url:?}"));
    rest.split_at(rest.find('/').unwrap_or(rest.len()))
}

fn host(authority: &str) -> &str {
    authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host)
}

/// The value of a hidden field of a page.
#[track_caller]
pub(crate) fn hidden(page: &Response, name: &str) -> String {
    let text = page.text();
    let start = format!("name=\"{name}\" value=\"");
    let value = text.split_once(&start).and_then(|it| it.1.split_once('"'));
    let (value, _) = value.unwrap_or_else(|| panic!("no {name} in {text}"));
    value.replace("&amp;", "&")
}

pub(crate) fn set_cookies(response: &Response) -> Vec<&str> {
    let fields = response.fields.iter();
    let fields = fields.filter(|(name, _)| name.eq_ignore_ascii_case("Set-Cookie"));
    fields.map(|(_, value)| value.as_str()).collect()
}

/// Where a response sends a browser, which it must.
#[track_caller]
pub(crate) fn location(response: &Response) -> String {
    let location = response.header("Location");
    let location = location.unwrap_or_else(|| panic!("{} {}", response.status, response.text()));
    assert!([302, 303].contains(&response.status), "{}", response.status);
    location.to_owned()
}

/// A parameter of a URL's query, which must not be there twice.
#[track_caller]
pub(crate) fn parameter(url: &str, name: &str) -> Option<String> {
    let (_, query) = url.split_once('?')?;
    let all = form_urlencoded::parse(query.as_bytes());
    let mut values = all.filter(|(key, _)| key == name);
    let value = values.next()?.1.into_owned();
    assert!(values.next().is_none(), "{name} stands twice in {url}");
    Some(value)
}

/// A response that ends it: a page with this status and in it these words, and nothing that leads
/// anywhere.
#[track_caller]
pub(crate) fn assert_page(response: &Response, status: u16, words: &str) {
    let text = response.text();
    assert_eq!(response.status, status, "{text}");
    assert!(text.contains(words), "{words:?} is not in {text}");
    assert_eq!(response.header("Location"), None, "{text}");
    let kind = response.header("Content-Type").unwrap_or_default();
    assert!(kind.starts_with("text/html"), "{kind}: {text}");
    assert_eq!(set_cookies(response), Vec::<&str>::new(), "{text}");
}
