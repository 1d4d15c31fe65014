//! What the operator sees and clients do not: `/metrics` and `/healthz` of the admin listener.
//!
//! The edge says through which door a request came. A scrape reads `/proc`, so it happens on a
//! thread of its own; there are never more of them than the edge lets in connections.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use tiny_http::Request;

use super::reply::{self, Answer, Face};
use super::request::Incoming;
use super::route::{self, Route};
use super::{App, refuse};
use crate::metrics::{self, Kind, Page, process};
use crate::{supervisor, thread};

/// Scrapes at a time; they are small, but their sum should be too.
const SCRAPES_MAX: usize = 16;

/// Serves a request that came through the admin listener.
pub(super) fn serve(app: &Arc<App>, request: Request, incoming: &Incoming, mut face: Face) {
    match app
        .admin_policy
        .check(incoming.host.as_deref(), incoming.origin.as_deref())
    {
        Ok(origin) => face.origin = origin,
        Err(answer) => return refuse(app, request, answer, face),
    }
    match route::find_admin(&incoming.method, request.url()) {
        Route::Metrics => scrape(app, request, face),
        Route::Health => refuse(app, request, app.health(), face),
        Route::MethodNotAllowed(allow) => {
            refuse(app, request, Answer::MethodNotAllowed(allow), face);
        }
        _ => refuse(app, request, Answer::NotFound, face),
    }
}

fn scrape(app: &Arc<App>, request: Request, face: Face) {
    if app.scrapes.count() >= SCRAPES_MAX {
        return refuse(app, request, Answer::TooManyScrapes, face);
    }
    let its_app = Arc::clone(app);
    let scrape = move || {
        let answer = Answer::Metrics(page(&its_app));
        reply::send(request, &answer, &face);
    };
    match thread::spawn_brief("metrics", scrape) {
        Ok(thread) => app.scrapes.push(thread),
        // The request went with the closure, which tiny_http answers with 500.
        Err(error) => log::error!("cannot start a thread for the metrics: {error}"),
    }
}

fn page(app: &App) -> String {
    let mut page = Page::default();
    write_build(app, &mut page);
    write_sessions(app, &mut page);
    metrics::write(&mut page);
    process::write_own(&mut page);
    let groups = supervisor::live_groups();
    page.gauge("children", "Server processes that run.", groups.len());
    page.gauge(
        "children_resident_memory_bytes",
        "Resident memory of all servers and what they started; shared pages count for each.",
        process::resident_bytes(&groups),
    );
    page.into_text()
}

fn write_build(app: &App, page: &mut Page) {
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    page.head("build_info", Kind::Gauge, "The broker's version.");
    page.sample("build_info", &version, 1);
    let started = app.started.duration_since(UNIX_EPOCH).unwrap_or_default();
    page.gauge(
        "start_time_seconds",
        "When the broker was started, in seconds since 1970.",
        started.as_secs_f64(),
    );
}

fn write_sessions(app: &App, page: &mut Page) {
    let counts = app.registry.counts();
    let states = [
        ("starting", counts.starting),
        ("active", counts.active),
        ("parked", counts.parked),
        ("dormant", counts.dormant),
        ("stopping", counts.stopping),
    ];
    page.gauges(
        "sessions",
        "Sessions, by what they are doing.",
        "state",
        states.map(|(state, count)| (state, count as u64)),
    );
    page.gauge(
        "requests_in_flight",
        "Requests to servers that wait for an answer.",
        counts.in_flight,
    );
}
