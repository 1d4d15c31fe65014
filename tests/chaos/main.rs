//! `chaos`: a torture run. Hundreds of clients of several principals against one broker, over
//! children that answer, crash, hang, flood and fork; the broker itself is stopped, killed and
//! started again meanwhile. Nobody may get what is not theirs, nothing may be lost without a
//! reason, and nothing may be left behind. Start it with `scripts/chaos SECONDS SEED`.
//!
//! [`plan`] decides what there is and when the broker is struck, [`prng`] by which chance.
//! [`storm`] goes through the phases, [`crowd`] runs the clients: [`steady`], [`wild`], and
//! [`streams`] for both. [`session`] checks every word that comes, over [`client`], which judges
//! what does not come, and [`wire`]. [`world`] is what they share, with [`places`] of who has how
//! many sessions, [`broker`] and [`process`] what they look at, [`ledger`] what they find,
//! [`report`] what is shown of it. Nothing here knows the broker's code.

mod broker;
mod client;
mod crowd;
mod ledger;
mod places;
mod plan;
mod prng;
mod process;
mod report;
mod session;
mod steady;
mod storm;
mod streams;
mod wild;
mod wire;
mod world;

use std::env;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::broker::{Broker, Place};
use crate::ledger::Kind;
use crate::plan::{Features, PRINCIPALS};
use crate::report::say;
use crate::storm::{INTERRUPTED, Storm};
use crate::world::World;

const USAGE: &str = "\
Tortures mcp-broker, and checks that nobody suffers for it.

usage: chaos SECONDS SEED [OPTION]...
  SECONDS           how long to go on, 20 or more; the rests come on top of it
  SEED              a number; the same one replays the same choices, scheduling apart
  --clients N       how many clients at once (default: 200)
  --broker FILE     the mcp-broker program (default: the one built beside this)
  --fixture FILE    the fake_mcp program (default: the one built beside this)
  --with NAME       hold the broker to NAME too: revive, park, escape or sweep
  --without NAME    do not
  --keep DIR        keep the broker's log (info) and state in DIR, which must not exist

status: 0 if all went well, 1 if not, 2 if it could not be run
";

struct Options {
    length: Duration,
    seed: u64,
    clients: usize,
    broker: PathBuf,
    fixture: PathBuf,
    features: Features,
    keep: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.iter().any(|it| it == "--help" || it == "-h") {
        say(USAGE.trim_end());
        return ExitCode::SUCCESS;
    }
    match Options::read(arguments).and_then(|options| run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(why) => {
            let _ = writeln!(io::stderr(), "chaos: {why}");
            ExitCode::from(2)
        }
    }
}

/// False if there are violations.
fn run(options: &Options) -> Result<bool, String> {
    let Options {
        length,
        seed,
        clients,
        features,
        ..
    } = options;
    raise_limit();
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::SeqCst))
        .map_err(|error| error.to_string())?;
    say(&format!("chaos {} {seed}", length.as_secs()));
    let place = options.place()?;
    let world = World::new(*seed, place.address, *features);
    for (principal, (name, _)) in PRINCIPALS.iter().enumerate() {
        world.set_token(principal, Some(place.add_token(name)?));
    }
    let mut storm = Storm {
        world: &world,
        place: &place,
        broker: Broker::start(&place)?,
        clients: *clients,
    };
    let balance = storm.run(*length);
    drop(storm);
    if let Err(why) = &balance {
        say(&format!("cut short: {why}"));
        world
            .ledger
            .violation(Kind::Broker, &"the run", why.clone());
    }
    let took = world.ledger.elapsed().as_secs();
    world.ledger.with(|figures| {
        let accounted = figures.answered
            + figures.refused.values().sum::<u64>()
            + figures.interrupted.values().sum::<u64>();
        say(&report::table(figures, balance.as_ref().ok()));
        if !figures.violations.is_empty() {
            say(&report::violations(figures));
        } else if accounted != figures.asked {
            let asked = figures.asked;
            return Err(format!(
                "of {asked} requests only {accounted} are accounted for"
            ));
        }
        let is_fine = figures.violations.is_empty();
        let verdict = if is_fine { "ok" } else { "FAILED" };
        say(&format!(
            "chaos {} {seed}: {verdict}, {took} s",
            length.as_secs()
        ));
        Ok(is_fine)
    })
}

/// As many descriptors as may be: each client has several.
fn raise_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: maximum,
        maximum,
    };
    // With fewer, connecting will say so.
    let _ = setrlimit(Resource::Nofile, all);
}

impl Options {
    fn place(&self) -> Result<Place, String> {
        let (broker, fixture) = (self.broker.clone(), self.fixture.clone());
        Place::make(broker, fixture, self.keep.clone(), self.features)
    }

    fn read(arguments: Vec<String>) -> Result<Self, String> {
        let here = env::current_exe().map_err(|error| format!("this program's path: {error}"))?;
        let examples = here.parent().unwrap_or(&here).to_owned();
        let broker = examples.parent().unwrap_or(&examples).join("mcp-broker");
        let mut features = Features::PRESENT;
        let (mut numbers, mut clients, mut keep) = (Vec::new(), 200, None);
        let (mut broker, mut fixture) = (broker, examples.join("fake_mcp"));
        let mut arguments = arguments.into_iter();
        let number = |text: &str| -> Result<u64, String> {
            text.parse().map_err(|_| format!("not a number: {text}"))
        };
        while let Some(name) = arguments.next() {
            if !name.starts_with("--") {
                numbers.push(number(&name)?);
                continue;
            }
            let value = arguments.next().ok_or(format!("{name} needs a value"))?;
            let is_known = match name.as_str() {
                "--clients" => {
                    clients = usize::try_from(number(&value)?).unwrap_or(clients);
                    true
                }
                "--broker" => {
                    broker = value.clone().into();
                    true
                }
                "--fixture" => {
                    fixture = value.clone().into();
                    true
                }
                "--keep" => {
                    keep = Some(value.clone().into());
                    true
                }
                "--with" => features.set(&value, true),
                "--without" => features.set(&value, false),
                _ => false,
            };
            if !is_known {
                return Err(format!("no such option: {name} {value} (see --help)"));
            }
        }
        let (seconds, seed) = match *numbers.as_slice() {
            [seconds, seed] if seconds >= 20 => (seconds, seed),
            _ => return Err("wanted: SECONDS (20 or more) and SEED (see --help)".to_owned()),
        };
        Ok(Self {
            length: Duration::from_secs(seconds),
            seed,
            clients,
            broker,
            fixture,
            features,
            keep,
        })
    }
}
