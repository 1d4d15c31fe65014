//! `bench`: what a call through the broker costs, beside two other gateways and beside the least
//! that it can cost. Start it with `scripts/bench`. One run, one machine, one and the same child
//! (`mcp-broker demo-server`, tool `echo`) for everyone, and turns short enough that the machine's
//! moods meet all alike.
//!
//! [`plan`] decides what is measured, in which order, and so does [`eras`] for both eras of the
//! protocol; [`server`] starts and stops what is measured; [`client`] and [`pipe`] speak MCP over
//! HTTP and over pipes; [`load`] makes the calls and counts; [`floor`] is the least an HTTP server
//! can do; [`figures`] is what comes out, which [`report`] and [`chart`] show. Nothing here knows
//! the broker's code.

mod chart;
mod client;
mod compare;
mod echo;
mod eras;
mod failure;
mod figures;
mod floor;
mod load;
mod pipe;
mod plan;
mod report;
mod server;

use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use failure::{Context, Failure, Outcome};
use figures::{Figures, Target};
use plan::Plan;

const USAGE: &str = "\
Measures mcp-broker, supergateway and mcp-proxy on one and the same child, and mcp-broker with
clients and children of both eras of the protocol.

usage: bench [OPTION]...
  --only NAMES      of mcp-broker, supergateway, mcp-proxy (comma between them; `broker` will do),
                    with which HTTP alone and the pipe alone are measured; of `eras`, clients and
                    children of both eras of the protocol; `before` is only what --before names
  --before FILE     another mcp-broker program, measured beside this one, call by call
  --rounds N        so many rounds
  --quick           a few seconds, rough
  --json FILE       write the figures
  --svg FILE        draw the chart
  --compare FILE    tell the change since the figures in FILE; status 1 if the broker got slower
  --broker FILE     the mcp-broker program (default: the one built beside this)
  --modules DIR     where npm has put the others (default: tests/bench/node_modules)
";

struct Options {
    plan: Plan,
    json: Option<PathBuf>,
    svg: Option<PathBuf>,
    compare: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let done = match arguments.first().map(String::as_str) {
        Some("http-floor") => floor::serve().map(|()| true),
        Some("--help" | "-h") => say(USAGE).map(|()| true),
        _ => Options::read(arguments).and_then(|options| run(&options)),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => {
            // Nobody is left to tell when stderr is gone.
            let _ = writeln!(io::stderr(), "bench: {failure}");
            ExitCode::from(2)
        }
    }
}

/// Measures and reports. False when `--compare` found the broker slower.
fn run(options: &Options) -> Outcome<bool> {
    // Read first: a mistyped name should not cost minutes.
    let earlier = options.compare.as_deref().map(|file| {
        let text = fs::read_to_string(file).at(&file.display())?;
        Figures::from_json(&text).at(&file.display())
    });
    let earlier = earlier.transpose()?;
    let figures = plan::measure(&options.plan)?;
    say(&report::all(&figures))?;
    if let Some(file) = &options.json {
        fs::write(file, figures.to_json()).at(&file.display())?;
    }
    if let Some(file) = &options.svg {
        fs::write(file, chart::svg(&figures)).at(&file.display())?;
    }
    let Some(earlier) = earlier else {
        return Ok(true);
    };
    let change = compare::change(&earlier, &figures)?;
    say(&format!("\n{change}\n"))?;
    Ok(!change.is_slower())
}

impl Options {
    fn read(arguments: Vec<String>) -> Outcome<Self> {
        let here = env::current_exe().at(&"this program's own path")?;
        let beside = here
            .parent()
            .and_then(|examples| examples.parent())
            .unwrap_or(&here);
        let mut options = Self {
            plan: Plan {
                targets: Target::ALL.to_vec(),
                eras: true,
                before: None,
                quick: false,
                rounds: None,
                programs: server::Programs {
                    broker: beside.join("mcp-broker"),
                    modules: PathBuf::from("tests/bench/node_modules"),
                    fake: here.with_file_name("fake_mcp"),
                    bench: here,
                },
            },
            json: None,
            svg: None,
            compare: None,
        };
        let mut arguments = arguments.into_iter();
        while let Some(name) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .ok_or_else(|| Failure::new(format!("{name} needs a value")))
            };
            match name.as_str() {
                "--quick" => options.plan.quick = true,
                "--only" => (options.plan.targets, options.plan.eras) = only(&value()?)?,
                "--before" => options.plan.before = Some(value()?.into()),
                "--rounds" => options.plan.rounds = Some(value()?.parse().at(&name)?),
                "--json" => options.json = Some(value()?.into()),
                "--svg" => options.svg = Some(value()?.into()),
                "--compare" => options.compare = Some(value()?.into()),
                "--broker" => options.plan.programs.broker = value()?.into(),
                "--modules" => options.plan.programs.modules = value()?.into(),
                _ => return Err(Failure::new(format!("no such option: {name} (see --help)"))),
            }
        }
        Ok(options)
    }
}

/// The gateways that `names` names, with the floors; and whether it names both eras.
fn only(names: &str) -> Outcome<(Vec<Target>, bool)> {
    let (mut targets, mut eras) = (Vec::new(), false);
    for name in names.split(',') {
        if name == "eras" {
            eras = true;
            continue;
        }
        if name == "before" {
            continue;
        }
        let name = if name == "broker" {
            Target::Broker.name()
        } else {
            name
        };
        let known = Target::GATEWAYS
            .into_iter()
            .find(|target| target.name() == name);
        targets
            .push(known.ok_or_else(|| Failure::new(format!("nothing called {name} to measure")))?);
    }
    if !targets.is_empty() {
        targets.splice(0..0, [Target::HttpAlone, Target::PipeAlone]);
    }
    Ok((targets, eras))
}

fn say(text: &str) -> Outcome<()> {
    io::stdout()
        .write_all(text.as_bytes())
        .at(&"standard output")
}
