//! The command line: which eras to speak and how to misbehave. Knows nothing of what the options
//! lead to.

/// Shown by `--help`.
pub(crate) const HELP: &str = "\
fake_mcp: a stdio MCP server for tests

usage: fake_mcp [OPTION]...

  --era legacy|modern|dual  legacy: 2024-11-05 to 2025-11-25 (default); modern: 2026-07-28;
                            dual: both, chosen request by request
  --slow-ms N               wait N ms before answering initialize or server/discover
  --die-after N             answer N requests, exit with status 7 at the next
  --kill-after N            answer N requests, end by SIGKILL at the next
  --exit-at-start CODE      write two lines to stderr (with $SECRET_IN_STDERR), exit with CODE
  --at-discover HOW         when asked server/discover: exit; silence (no answer); hang (no answer
                            to anything any more); invalid (-32602); lock (answer, then refuse
                            initialize); else what the era demands
  --lax                     serve legacy requests before initialize too
  --mute                    never answer initialize or server/discover
  --deaf                    never read stdin
  --ignore-term             ignore SIGTERM and the end of stdin
  --flood-stderr            write some 10 MB/s to stderr for ever
  --garbage                 write lines that are not JSON-RPC before every answer
  --grandchild              start a process that holds stdin, stdout and stderr open
  --help                    print this

Tools that tests call by name: echo sleep env pid big raw count ask log notify notify_after
change_after exit stderr received garbage longline spawn_grandchild deaf result_before_progress
escape_id late_after_cancel touch_resource witness deluge; tools/list says what each one takes.
";

/// Which protocol revisions the server speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Eras {
    /// `initialize`, up to 2025-11-25.
    Legacy,
    /// Metadata in each request, 2026-07-28.
    Modern,
    /// Both.
    Dual,
}

/// What servers are known to do at `server/discover`, other than to answer it as their era says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtDiscover {
    /// As rmcp 1.2 does.
    Exit,
    Silence,
    Hang,
    /// As FastMCP 1.30 does.
    Invalid,
    /// As Python's SDK 2.3 does: `initialize` comes too late.
    Lock,
}

/// What the command line asked for.
pub(crate) struct Options {
    pub(crate) eras: Eras,
    pub(crate) at_discover: Option<AtDiscover>,
    pub(crate) lax: bool,
    pub(crate) slow_ms: u64,
    pub(crate) die_after: Option<u64>,
    pub(crate) kill_after: Option<u64>,
    pub(crate) exit_at_start: Option<i32>,
    pub(crate) mute: bool,
    pub(crate) deaf: bool,
    pub(crate) ignore_term: bool,
    /// Not for users: SIGTERM is ignored by now.
    pub(crate) term_ignored: bool,
    pub(crate) flood_stderr: bool,
    pub(crate) garbage: bool,
    pub(crate) grandchild: bool,
}

/// A command line that could be read.
pub(crate) enum Parsed {
    Run(Options),
    Help,
}

/// Reads the arguments that follow the program's name; the error is one line for stderr.
pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Parsed, String> {
    let mut options = Options {
        eras: Eras::Legacy,
        at_discover: None,
        lax: false,
        slow_ms: 0,
        die_after: None,
        kill_after: None,
        exit_at_start: None,
        mute: false,
        deaf: false,
        ignore_term: false,
        term_ignored: false,
        flood_stderr: false,
        garbage: false,
        grandchild: false,
    };
    while let Some(flag) = args.next() {
        match flag.as_str() {
            "--era" => options.eras = eras(&value(&flag, args.next())?)?,
            "--at-discover" => {
                options.at_discover = Some(at_discover(&value(&flag, args.next())?)?);
            }
            "--lax" => options.lax = true,
            "--slow-ms" => options.slow_ms = number(&flag, args.next())?,
            "--die-after" => options.die_after = Some(number(&flag, args.next())?),
            "--kill-after" => options.kill_after = Some(number(&flag, args.next())?),
            "--exit-at-start" => options.exit_at_start = Some(number(&flag, args.next())?),
            "--mute" => options.mute = true,
            "--deaf" => options.deaf = true,
            "--ignore-term" => options.ignore_term = true,
            "--term-ignored" => options.term_ignored = true,
            "--flood-stderr" => options.flood_stderr = true,
            "--garbage" => options.garbage = true,
            "--grandchild" => options.grandchild = true,
            "--help" => return Ok(Parsed::Help),
            _ => return Err(format!("unknown option {flag}")),
        }
    }
    Ok(Parsed::Run(options))
}

fn eras(name: &str) -> Result<Eras, String> {
    match name {
        "legacy" => Ok(Eras::Legacy),
        "modern" => Ok(Eras::Modern),
        "dual" => Ok(Eras::Dual),
        _ => Err(format!("--era {name}: not legacy, modern or dual")),
    }
}

fn at_discover(name: &str) -> Result<AtDiscover, String> {
    match name {
        "exit" => Ok(AtDiscover::Exit),
        "silence" => Ok(AtDiscover::Silence),
        "hang" => Ok(AtDiscover::Hang),
        "invalid" => Ok(AtDiscover::Invalid),
        "lock" => Ok(AtDiscover::Lock),
        _ => Err(format!(
            "--at-discover {name}: not exit, silence, hang, invalid or lock"
        )),
    }
}

fn value(flag: &str, value: Option<String>) -> Result<String, String> {
    value.ok_or_else(|| format!("{flag} takes a value"))
}

fn number<T: std::str::FromStr>(flag: &str, text: Option<String>) -> Result<T, String> {
    let text = value(flag, text)?;
    text.parse()
        .map_err(|_| format!("{flag} {text}: not a number"))
}
