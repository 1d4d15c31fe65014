//! The tour that the Rust client takes through the broker, over the fixture as child, in the era
//! that it speaks.
//!
//! `tour.mjs` and `tour.py` are the same tour for the other SDKs, and `scripts/clients` starts the
//! broker and runs them all: `tour URL TOKEN ERA CHILD [MODE]`, where ERA is the one that is to be
//! spoken, and CHILD the kind of child. MODE is how the SDK finds the era: `initialize` (its
//! default), `auto`, or `discover`. Prints `ok NAME` for each step and exits 1 at the first
//! failure. Read next: `handler` (what the client answers and keeps), `steps`.

#![allow(deprecated)] // sampling, roots, logging and the subscriptions of the legacy era

mod handler;
mod steps;

use std::process::ExitCode;

use rmcp::model::ProtocolVersion;
use rmcp::service::{RoleClient, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientLifecycleMode, ClientServiceExt};

use crate::handler::Handler;

type Failure = Box<dyn std::error::Error>;
type Outcome<T> = Result<T, Failure>;

/// One client on its way.
struct Tour {
    client: RunningService<RoleClient, Handler>,
    handler: Handler,
    modern: bool,
    modern_child: bool,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = runtime
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(run(&args)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("FAILED {why}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &[String]) -> Outcome<()> {
    let [url, token, era, child, mode @ ..] = args else {
        return Err("usage: tour URL TOKEN ERA CHILD [MODE]".into());
    };
    let config =
        StreamableHttpClientTransportConfig::with_uri(url.as_str()).auth_header(token.as_str());
    let transport = StreamableHttpClientTransport::from_config(config);
    let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
    let mode = match mode.first().map(String::as_str) {
        Some("auto") => ClientLifecycleMode::Auto {
            preferred_versions,
            legacy_version: None,
        },
        Some("discover") => ClientLifecycleMode::Discover { preferred_versions },
        _ => ClientLifecycleMode::Initialize,
    };
    let handler = Handler::default();
    let connected = handler.clone().serve_with_lifecycle(transport, mode);
    let client = steps::step("connect", async { Ok(connected.await?) }).await?;
    let tour = Tour {
        client,
        handler,
        modern: era == "modern",
        modern_child: child == "modern",
    };
    tour.go().await
}
