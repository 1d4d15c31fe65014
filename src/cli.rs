//! The command line: arguments in, [`Command`] or one line of what is wrong with them out. Pure;
//! reads no file and no environment. What the flags of `serve` mean is the table of `config`.

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{SETTINGS, Shape, nearest, units};

pub(crate) use crate::auth::{People, PeopleAction, TokenAction};
pub(crate) use crate::config::ServeArgs;

/// All there is to say about the command line; the README has the same text.
pub(crate) const HELP: &str = "\
mcp-broker: stdio MCP servers for many users, behind one URL

Usage:
  mcp-broker serve [OPTION]... [-- COMMAND [ARG]...]
  mcp-broker check [OPTION]... [-- COMMAND [ARG]...]
  mcp-broker token add NAME [--env KEY[=VALUE]]... [--expires TIME] [--state-dir DIR]
  mcp-broker token list [--state-dir DIR]
  mcp-broker token revoke NAME [--state-dir DIR]
  mcp-broker user list [--state-dir DIR]
  mcp-broker user revoke NAME [--state-dir DIR]
  mcp-broker client list [--state-dir DIR]
  mcp-broker client revoke NAME [--state-dir DIR]
  mcp-broker demo-server
  mcp-broker --help | --version

Commands:
  serve          serve the servers of --config, or COMMAND, or a small demo server
  check          read the configuration, start each server and print what it offers
  token add      make a token and print it; this is the only time that it is shown
  token list     name the tokens: when made, when they expire, the keys of their env
  token revoke   take a token away; a running broker ends its sessions
  user list      name those who signed in, and when a client of theirs was last active
  user revoke    sign a user out everywhere; a running broker ends their sessions
  client list    name the clients that users let in, or that registered themselves
  client revoke  sign everybody out of a client; a running broker ends its sessions
  demo-server    be the demo server, on stdin and stdout

Options of serve and check (all but --config can stand in the file, under \"broker\"):
  --config FILE               read FILE: JSON with \"mcpServers\" as MCP clients have it
  --listen ADDR               listen on ADDR:PORT or unix:PATH [127.0.0.1:8787]
  --state-dir DIR             keep tokens in DIR [$STATE_DIRECTORY, or
                              mcp-broker in $XDG_STATE_HOME or ~/.local/state]
  --no-auth                   let everybody in; on a loopback address or unix: only
  --max-sessions N            sessions in all; 0 = unlimited [100]
  --max-sessions-per-user N   sessions of one user; 0 = unlimited [16]
  --idle-timeout TIME         end a session after TIME without a request; 0 = never [30m]
  --drain TIME                let requests finish for TIME at shutdown [10s]
  --max-body SIZE             largest body of a request [4MiB]
  --max-message SIZE          longest message of a server [16MiB]
  --gone-status STATUS        answer to an ended session: 404 or 410 [404]
  --public-url URL            the URL that clients use, where a proxy stands in front
  --allow-origin ORIGIN       let web pages of ORIGIN in; can be repeated
  --admin ADDR                serve metrics on ADDR:PORT (loopback) or unix:PATH
  --run-as WHO                run servers as user WHO, UID:GID, one uid of FROM-TO for
                              each of your users, or root [61184-65519 when run by root]
  --log LEVEL                 off, error, warn, info, debug or trace [$RUST_LOG, or info]

Options of token:
  --env KEY[=VALUE]           what ${user.env.KEY} in a server's env is for this user;
                              without =VALUE, what KEY is in this command's environment
  --expires TIME              end the token after TIME [never]
  --state-dir DIR             as above

NAME is a token's, a user's or a client's; for users and clients also the ID of the list.
TIME is a number with s, m, h or d (30m), SIZE one with KiB or MiB (4MiB).
Exit status: 0 done, 1 failed, 2 wrong usage, 78 wrong configuration.
";

/// What is to be done.
#[cfg_attr(test, derive(Debug, PartialEq))] // elsewhere nothing prints it: a token's env is secret
pub(crate) enum Command {
    Serve(ServeArgs),
    Token {
        state_dir: Option<PathBuf>,
        action: TokenAction,
    },
    People {
        who: People,
        state_dir: Option<PathBuf>,
        action: PeopleAction,
    },
    Check {
        overrides: ServeArgs,
    },
    DemoServer,
    /// Print this text.
    Help(&'static str),
    Version,
}

/// What is wrong with a command line. Prints as one line.
#[derive(Debug, PartialEq)]
pub(crate) struct UsageError(String);

const COMMANDS: [&str; 6] = ["serve", "check", "token", "user", "client", "demo-server"];
const TOKEN_COMMANDS: [&str; 3] = ["add", "list", "revoke"];
const PEOPLE_COMMANDS: [&str; 2] = ["list", "revoke"];
const EXPIRES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(3650 * 24);

/// Understands the arguments, those after the program's own name. None at all is a call for help.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let args: Result<Vec<String>, OsString> = args.into_iter().map(OsString::into_string).collect();
    let args = args.map_err(|arg| UsageError(format!("{arg:?} is not UTF-8")))?;
    let Some((first, rest)) = args.split_first() else {
        return Ok(Command::Help(HELP));
    };
    match first.as_str() {
        "serve" => serve(rest, Command::Serve),
        "check" => serve(rest, |overrides| Command::Check { overrides }),
        "token" => token(rest),
        "user" => people(People::Users, rest),
        "client" => people(People::Clients, rest),
        "demo-server" => match scan(rest, &Syntax::default())? {
            Some(_) => Ok(Command::DemoServer),
            None => Ok(Command::Help(HELP)),
        },
        "help" | "--help" | "-h" => Ok(Command::Help(HELP)),
        "--version" | "-V" => Ok(Command::Version),
        other => Err(unknown("command", other, COMMANDS)),
    }
}

fn serve(
    args: &[String],
    command: impl FnOnce(ServeArgs) -> Command,
) -> Result<Command, UsageError> {
    let mut options = vec![("--config", Takes::One)];
    options.extend(SETTINGS.iter().filter_map(|setting| {
        let takes = match setting.shape {
            Shape::Switch => Takes::Nothing,
            Shape::One => Takes::One,
            Shape::Many(_) => Takes::Many,
        };
        Some((setting.flag?, takes))
    }));
    let syntax = Syntax {
        options,
        words: 0,
        program: true,
    };
    let Some(found) = scan(args, &syntax)? else {
        return Ok(Command::Help(HELP));
    };
    let mut serve = ServeArgs::default();
    for (name, value) in &found.options {
        match SETTINGS.iter().find(|setting| setting.flag == Some(name)) {
            Some(setting) => {
                let set = serve.settings.set(setting, value);
                set.map_err(|why| UsageError(format!("{name}: {why}")))?;
            }
            None => serve.config = Some(path(name, value)?),
        }
    }
    serve.command = found.program;
    Ok(command(serve))
}

fn token(args: &[String]) -> Result<Command, UsageError> {
    let Some((which, args)) = args.split_first() else {
        return Err(UsageError(
            "token needs one of add, list, revoke".to_owned(),
        ));
    };
    let mut options = vec![("--state-dir", Takes::One)];
    let words = match which.as_str() {
        "add" => {
            options.extend([("--env", Takes::Many), ("--expires", Takes::One)]);
            1
        }
        "list" => 0,
        "revoke" => 1,
        "--help" | "-h" => return Ok(Command::Help(HELP)),
        other => return Err(unknown("token command", other, TOKEN_COMMANDS)),
    };
    let syntax = Syntax {
        options,
        words,
        program: false,
    };
    let Some(mut found) = scan(args, &syntax)? else {
        return Ok(Command::Help(HELP));
    };
    let (mut state_dir, mut env, mut expires) = (None, Vec::new(), None);
    for (name, value) in &found.options {
        match *name {
            "--env" => env.push(pair(value)),
            "--expires" => {
                let time = units::duration(value, EXPIRES);
                expires = Some(time.map_err(|why| UsageError(format!("{name}: {why}")))?);
            }
            _ => state_dir = Some(path(name, value)?),
        }
    }
    let word = found.words.pop();
    let name = || word.ok_or_else(|| UsageError(format!("token {which} needs a NAME")));
    let action = match which.as_str() {
        "add" => TokenAction::Add {
            name: name()?,
            env,
            expires,
        },
        "revoke" => TokenAction::Revoke { name: name()? },
        _ => TokenAction::List,
    };
    Ok(Command::Token { state_dir, action })
}

fn people(who: People, args: &[String]) -> Result<Command, UsageError> {
    let Some((which, args)) = args.split_first() else {
        return Err(UsageError(format!("{who} needs one of list, revoke")));
    };
    let words = match which.as_str() {
        "list" => 0,
        "revoke" => 1,
        "--help" | "-h" => return Ok(Command::Help(HELP)),
        other => return Err(unknown(&format!("{who} command"), other, PEOPLE_COMMANDS)),
    };
    let syntax = Syntax {
        options: vec![("--state-dir", Takes::One)],
        words,
        program: false,
    };
    let Some(mut found) = scan(args, &syntax)? else {
        return Ok(Command::Help(HELP));
    };
    let state_dir = found.options.first().map(|(name, dir)| path(name, dir));
    let action = match (words, found.words.pop()) {
        (0, _) => PeopleAction::List,
        (_, Some(name)) => PeopleAction::Revoke { name },
        (_, None) => return Err(UsageError(format!("{who} revoke needs a NAME"))),
    };
    Ok(Command::People {
        who,
        state_dir: state_dir.transpose()?,
        action,
    })
}

/// A key, and its value if that is not to come from the environment.
fn pair(text: &str) -> (String, Option<String>) {
    match text.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (text.to_owned(), None),
    }
}

fn path(name: &str, text: &str) -> Result<PathBuf, UsageError> {
    match text.is_empty() {
        true => Err(UsageError(format!("{name} needs a path"))),
        false => Ok(PathBuf::from(text)),
    }
}

/// What may follow a command.
#[derive(Default)]
struct Syntax {
    options: Vec<(&'static str, Takes)>,
    /// At most so many words that are no option.
    words: usize,
    /// Whether `--` and a command line may come last.
    program: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Takes {
    Nothing,
    /// A value, once.
    One,
    /// A value, each time it is given.
    Many,
}

/// Arguments, told apart.
#[derive(Default)]
struct Found {
    /// In the order typed; the value of one that takes none is `true`.
    options: Vec<(&'static str, String)>,
    words: Vec<String>,
    /// What came after `--`.
    program: Vec<String>,
}

/// Tells options (`--name VALUE`, `--name=VALUE`) from words, up to `--`. `None`: there was
/// `--help` among them.
fn scan(args: &[String], syntax: &Syntax) -> Result<Option<Found>, UsageError> {
    let mut found = Found::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--help" | "-h" => return Ok(None),
            "--" if syntax.program => {
                found.program = args.cloned().collect();
                if found.program.first().is_none_or(String::is_empty) {
                    return Err(UsageError("there is no command after --".to_owned()));
                }
                break;
            }
            option if option.starts_with('-') && !matches!(option, "-" | "--") => {
                found
                    .options
                    .push(read_option(option, &mut args, syntax, &found.options)?);
            }
            word if found.words.len() < syntax.words => found.words.push(word.to_owned()),
            word if syntax.program => {
                let hint = "a command of yours comes after --";
                return Err(UsageError(format!("unexpected argument {word:?}: {hint}")));
            }
            word => return Err(UsageError(format!("unexpected argument {word:?}"))),
        }
    }
    Ok(Some(found))
}

/// Reads one option; its value may be the next argument.
fn read_option<'a>(
    arg: &str,
    rest: &mut impl Iterator<Item = &'a String>,
    syntax: &Syntax,
    given: &[(&'static str, String)],
) -> Result<(&'static str, String), UsageError> {
    let (typed, attached) = match arg.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (arg, None),
    };
    let Some((name, takes)) = syntax.options.iter().find(|(name, _)| *name == typed) else {
        return Err(unknown_option(typed, syntax));
    };
    if *takes != Takes::Many && given.iter().any(|(earlier, _)| earlier == name) {
        return Err(UsageError(format!("{name} is given twice")));
    }
    let value = match (takes, attached) {
        (Takes::Nothing, None) => "true".to_owned(),
        (Takes::Nothing, Some(_)) => return Err(UsageError(format!("{name} takes no value"))),
        (_, Some(value)) => value,
        (_, None) => match rest.next() {
            Some(next) if !next.starts_with("--") => next.clone(),
            _ => return Err(UsageError(format!("{name} needs a value"))),
        },
    };
    Ok((name, value))
}

fn unknown_option(typed: &str, syntax: &Syntax) -> UsageError {
    let key = typed.trim_start_matches('-').replace('-', "_");
    let in_file = SETTINGS
        .iter()
        .any(|setting| setting.key == key && setting.flag.is_none());
    if in_file && syntax.program {
        let where_it_goes = format!("set {key:?} under \"broker\" in the file of --config");
        return UsageError(format!("{typed} is no option: {where_it_goes}"));
    }
    unknown(
        "option",
        typed,
        syntax.options.iter().map(|(name, _)| *name),
    )
}

fn unknown<'a>(what: &str, typed: &str, known: impl IntoIterator<Item = &'a str>) -> UsageError {
    match nearest(typed, known) {
        Some(meant) => UsageError(format!("unknown {what} {typed}, did you mean {meant}?")),
        None => UsageError(format!("unknown {what} {typed}")),
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (try mcp-broker --help)", self.0)
    }
}

impl std::error::Error for UsageError {}
