//! `fake_mcp`: a stdio MCP server for tests, in both eras, that can also misbehave in every way a
//! child is known to.
//!
//! The broker's tests and the conformance runs start it as a child. Read in this order: `options`
//! (the command line), `message` (one line from the client), `wire` (stdout), `server` (who is
//! asked what, and in which era), `call` (one request and what it may do), `seal` (`requestState`),
//! `catalogue` and `content` (what is offered), `tools` (what the conformance suite calls),
//! `probes` (what the broker's own tests call), `witness` (what the torture run calls), `process`
//! (pids, grandchildren, stderr).
//!
//! It shares no code with the broker: a fault in the one must not hide in the other.

mod call;
mod catalogue;
mod content;
mod message;
mod options;
mod probes;
mod process;
mod seal;
mod server;
mod tools;
mod wire;
mod witness;

use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::options::{Options, Parsed};
use crate::server::Server;

fn main() {
    let options = match options::parse(std::env::args().skip(1)) {
        Ok(Parsed::Run(options)) => options,
        Ok(Parsed::Help) => {
            let _ = io::stdout().write_all(options::HELP.as_bytes());
            return;
        }
        Err(why) => {
            let _ = writeln!(io::stderr(), "fake_mcp: {why}; see --help");
            process::quit(2);
        }
    };
    if options.ignore_term && !options.term_ignored {
        process::start_over_without_term();
    }
    if let Some(code) = options.exit_at_start {
        process::complain();
        process::quit(code);
    }
    if options.flood_stderr {
        process::flood_stderr();
    }
    if options.grandchild
        && let Err(error) = process::grandchild(process::Escape::default())
    {
        let _ = writeln!(io::stderr(), "fake_mcp: grandchild: {error}");
    }
    if options.deaf {
        sleep_for_ever();
    }
    serve(options);
}

/// Reads lines until the client closes stdin, or until a `deaf` call.
fn serve(options: Options) {
    let outlive_eof = options.ignore_term;
    let server = Arc::new(Server::new(options));
    let mut stdin = io::stdin().lock();
    let mut line = Vec::new();
    while !server.is_deaf() {
        line.clear();
        match stdin.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => server.take(&line),
        }
    }
    if server.is_deaf() || outlive_eof {
        sleep_for_ever();
    }
    server.close();
}

fn sleep_for_ever() -> ! {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}
