//! `fake_forgejo`: the sign-in side of a Forgejo, for tests: its OAuth endpoints, its rotation of
//! refresh tokens, and as much of its API as a child needs to show whose token it has.
//!
//! It answers as Forgejo does, flaws included: an existing grant of the one confidential client is
//! redirected at once, without a page; the PKCE challenge is lost on the way through the consent
//! page; each issue of tokens raises the counter of the grant, and a refresh token with another
//! counter is refused with `unauthorized_client`. Tests steer and watch it with `POST /control`.
//!
//! Read in this order: `options` (the command line), `http` (the wire), `state` (users, grants,
//! codes, tokens), `faults` (what goes wrong on demand), `authorize` (pages), `token`, `api`
//! (userinfo, introspection, API), `jwt` (signing), `control` (how tests drive it), `routes`.
//! `check` is a program of its own with the tests of all this.
//!
//! It shares no code with the broker: a fault in the one must not hide in the other.

mod api;
mod authorize;
mod control;
mod faults;
mod http;
mod jwt;
mod options;
mod routes;
mod state;
mod token;

use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use crate::faults::Effect;
use crate::http::Reply;
use crate::options::Parsed;
use crate::routes::{place, route};
use crate::state::Forge;

fn main() {
    let options = match options::parse(std::env::args().skip(1)) {
        Ok(Parsed::Run(options)) => options,
        Ok(Parsed::Help) => {
            let _ = io::stdout().write_all(options::HELP.as_bytes());
            return;
        }
        Err(why) => quit(&format!("{why}; see --help")),
    };
    let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)) {
        Ok(listener) => listener,
        Err(error) => quit(&format!("port {}: {error}", options.port)),
    };
    let url = match listener.local_addr() {
        Ok(address) => format!("http://{address}"),
        Err(error) => quit(&error.to_string()),
    };
    let mut stdout = io::stdout();
    if writeln!(stdout, "{url}")
        .and_then(|()| stdout.flush())
        .is_err()
    {
        return; // nobody is there to be served
    }
    let forge = Arc::new(Forge::new(url, options));
    for stream in listener.incoming().flatten() {
        let forge = Arc::clone(&forge);
        let _ = thread::Builder::new().spawn(move || serve(&forge, stream));
    }
}

/// The end, for a reason that goes to stderr.
#[expect(clippy::exit, reason = "an error at the start of a program")]
fn quit(why: &str) -> ! {
    let _ = writeln!(io::stderr(), "fake_forgejo: {why}");
    std::process::exit(2)
}

/// One request on one connection.
fn serve(forge: &Forge, mut stream: TcpStream) {
    let Some(request) = http::read(&mut stream) else {
        return;
    };
    if request.path == "/control" {
        http::write(&mut stream, &control::answer(forge, &request));
        return;
    }
    let fault = place(&request).and_then(|place| forge.faults.take(place));
    let reply = match fault {
        Some(Effect::Hang(time)) => {
            forge.note(&request, None);
            thread::sleep(time);
            return;
        }
        Some(Effect::Close) => {
            forge.note(&request, None);
            return;
        }
        Some(Effect::Status(status)) => Reply::text(status, "on demand"),
        Some(Effect::Garbage) => Reply::new(200, "application/json", "{\"access_token\":"),
        Some(Effect::Late(time)) => {
            let reply = route(forge, &request);
            forge.note(&request, Some(&reply));
            thread::sleep(time);
            http::write(&mut stream, &reply);
            return;
        }
        Some(Effect::Lose) => {
            let reply = route(forge, &request);
            forge.note(&request, Some(&reply));
            return;
        }
        None => route(forge, &request),
    };
    forge.note(&request, Some(&reply));
    http::write(&mut stream, &reply);
}
