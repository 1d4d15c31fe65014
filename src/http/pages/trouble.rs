//! What went wrong, and what to do about it, for the person in front of the browser.

use askama::Template;

use super::words::{NAME_CHARS, shown};
use super::{ICON, Page, STYLE, closed_policy, render};

/// Characters of a detail that are shown.
const DETAIL_CHARS: usize = 200;

/// Why a sign-in goes no further. Names of clients and people are as they came.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) enum Trouble<'a> {
    /// The request is wrong; what about it, and what to do, in a sentence each.
    Request {
        what: &'a str,
        advice: &'a str,
    },
    /// There is no such `client_id`, or its document cannot be had.
    UnknownClient,
    /// The login took too long, or has been through the callback already.
    Expired,
    /// The cookie is missing, or is of another login.
    OtherBrowser,
    /// The provider refuses, or the person refused there.
    ProviderSaidNo {
        provider: &'a str,
    },
    ProviderUnreachable {
        provider: &'a str,
    },
    /// On none of the lists of those who may enter.
    NotAdmitted {
        name: &'a str,
        provider: &'a str,
    },
    RateLimited,
    /// Our own fault.
    Broken,
}

struct Text {
    status: u16,
    title: &'static str,
    what: String,
    advice: String,
}

#[derive(Template)]
#[template(path = "trouble.html", config = "src/http/pages/askama.toml")]
struct TroublePage<'a> {
    broker: &'a str,
    title: &'static str,
    what: String,
    advice: String,
    detail: Option<&'a str>,
}

/// `detail` is one line for whoever is asked for help, never with a secret in it.
pub(in crate::http) fn trouble(broker: &str, trouble: Trouble<'_>, detail: Option<&str>) -> Page {
    let Text {
        status,
        title,
        what,
        advice,
    } = text(trouble, broker);
    let detail = detail.map(|detail| shown(detail, DETAIL_CHARS));
    let page = TroublePage {
        broker,
        title,
        what,
        advice,
        detail: detail.as_deref(),
    };
    render(status, closed_policy(), &page)
}

fn text(trouble: Trouble<'_>, broker: &str) -> Text {
    let again = "Go back to the app and connect again.";
    match trouble {
        Trouble::Request { .. } | Trouble::UnknownClient => of_the_app(trouble, broker),
        Trouble::ProviderSaidNo { .. }
        | Trouble::ProviderUnreachable { .. }
        | Trouble::NotAdmitted { .. } => of_the_provider(trouble, broker),
        Trouble::Expired => Text {
            status: 400,
            title: "This sign-in is no longer valid",
            what: "It took longer than ten minutes, or it has been used already. Each can be \
                   used once only."
                .to_owned(),
            advice: format!("{again} The Back button does not help here."),
        },
        Trouble::OtherBrowser => Text {
            status: 400,
            title: "This sign-in was started elsewhere",
            what: "A sign-in must end in the browser in which it was started, and this browser \
                   does not have its cookie."
                .to_owned(),
            advice: format!(
                "{again} Stay in one browser and do not use a private window for half of it. If \
                 this happens each time, allow cookies for {broker}. If you have not started \
                 anything and somebody sent you a link, close this page."
            ),
        },
        Trouble::RateLimited => Text {
            status: 429,
            title: "Too many attempts",
            what: "There have been many sign-ins from your network in a short time.".to_owned(),
            advice: "Wait a minute, then try again from the app.".to_owned(),
        },
        Trouble::Broken => Text {
            status: 500,
            title: "Something went wrong here",
            what: format!("{broker} could not finish the sign-in. It is not your fault."),
            advice: format!(
                "{again} If it happens again, tell the operator of {broker} when it happened."
            ),
        },
    }
}

fn of_the_app(trouble: Trouble<'_>, broker: &str) -> Text {
    let (title, what, advice) = match trouble {
        Trouble::Request { what, advice } => (
            "The app's request is not right",
            what.to_owned(),
            advice.to_owned(),
        ),
        _ => (
            "This app is not known here",
            format!("{broker} does not know the app that sent you, or cannot check who it is."),
            "Remove this server in the app, add it again, and connect. If you came by a link that \
             somebody sent you, close this page."
                .to_owned(),
        ),
    };
    Text {
        status: 400,
        title,
        what,
        advice,
    }
}

fn of_the_provider(trouble: Trouble<'_>, broker: &str) -> Text {
    match trouble {
        Trouble::ProviderUnreachable { provider } => Text {
            status: 503,
            title: "The provider does not answer",
            what: format!("{broker} cannot reach {provider} at the moment."),
            advice: "Wait a minute, then go back to the app and connect again.".to_owned(),
        },
        Trouble::NotAdmitted { name, provider } => Text {
            status: 403,
            title: "You may not use this server",
            what: format!(
                "You are signed in as “{}” at {provider}, but this account is not on the list of \
                 those who may use {broker}.",
                shown(name, NAME_CHARS)
            ),
            advice: format!(
                "Ask the operator of {broker} to let this account in. To use another account, \
                 sign out at {provider}, then go back to the app and connect again."
            ),
        },
        Trouble::ProviderSaidNo { provider } => Text {
            status: 403,
            title: "Not signed in",
            what: format!("{provider} did not let {broker} sign you in, or you said no there."),
            advice: "If you did not mean to, go back to the app and connect again.".to_owned(),
        },
        _ => text(Trouble::Broken, broker),
    }
}
