//! One command line a line.

use super::*;

/// What is typed after `serve`, by what it changes.
fn args(change: fn(&mut ServeArgs)) -> ServeArgs {
    let mut args = ServeArgs::default();
    change(&mut args);
    args
}

fn run(line: &str) -> Result<Command, String> {
    parse(line.split_whitespace().map(OsString::from)).map_err(|error| error.to_string())
}

#[test]
fn plain_command_lines() {
    let check = |line: &str, expected: Command| assert_eq!(run(line), Ok(expected), "{line}");
    check("", Command::Help(HELP));
    check("help", Command::Help(HELP));
    check("-h", Command::Help(HELP));
    check("serve --config x --help", Command::Help(HELP));
    check("token --help", Command::Help(HELP));
    check("token add --help", Command::Help(HELP));
    check("user --help", Command::Help(HELP));
    check("client revoke x -h", Command::Help(HELP));
    check("demo-server --help", Command::Help(HELP));
    check("--version", Command::Version);
    check("-V", Command::Version);
    check("demo-server", Command::DemoServer);
}

#[test]
#[rustfmt::skip] // one case a line
fn serve_and_check() {
    let origins = || Some(vec!["http://a.example".to_owned(), "http://b.example".to_owned()]);
    let check = |line: &str, expected: ServeArgs| {
        assert_eq!(run(&format!("serve {line}")), Ok(Command::Serve(expected.clone())), "{line}");
        let overrides = expected;
        assert_eq!(run(&format!("check {line}")), Ok(Command::Check { overrides }), "{line}");
    };
    check("", ServeArgs::default());
    check("--config f.json", args(|a| a.config = Some("f.json".into())));
    check("--config=f.json", args(|a| a.config = Some("f.json".into())));
    check("--config a=b", args(|a| a.config = Some("a=b".into())));
    check("--no-auth", args(|a| a.settings.no_auth = Some(true)));
    check("--max-sessions 3", args(|a| a.settings.max_sessions = Some(3)));
    check("--idle-timeout=0", args(|a| a.settings.idle_timeout = Some(Duration::ZERO)));
    check("--log=a=debug", args(|a| a.settings.log = Some("a=debug".into())));
    check("--gone-status 410", args(|a| a.settings.gone_status = Some(410)));
    check("-- x", args(|a| a.command = vec!["x".into()]));
    let command = || ["x", "-y", "--help", "--", "z"].map(str::to_owned).to_vec();
    check("-- x -y --help -- z", ServeArgs { command: command(), ..ServeArgs::default() });
    let mut expected = ServeArgs::default();
    expected.settings.allowed_origins = origins();
    check("--allow-origin http://a.example --allow-origin http://b.example", expected);
}

#[test]
#[rustfmt::skip] // one case a line
fn token_commands() {
    let check = |line: &str, state_dir: Option<&str>, action: TokenAction| {
        let expected = Command::Token { state_dir: state_dir.map(PathBuf::from), action };
        assert_eq!(run(line), Ok(expected), "{line}");
    };
    let add = |env: &[(&str, Option<&str>)], expires: Option<Duration>| {
        let env = env.iter().map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned)));
        let env = env.collect();
        TokenAction::Add { name: "alice".to_owned(), env, expires }
    };
    let revoke = || TokenAction::Revoke { name: "alice".to_owned() };
    let three = [("A", Some("1")), ("B", Some("x=y")), ("C", Some(""))];
    let year = Some(Duration::from_hours(365 * 24));
    check("token list", None, TokenAction::List);
    check("token list --state-dir /s", Some("/s"), TokenAction::List);
    check("token revoke alice --state-dir=/s", Some("/s"), revoke());
    check("token add alice", None, add(&[], None));
    check("token add alice --expires 365d", None, add(&[], year));
    check("token add --env A=1 alice --env=B=x=y --env C=", None, add(&three, None));
    check("token add alice --env A --env=B", None, add(&[("A", None), ("B", None)], None));
}

#[test]
#[rustfmt::skip] // one case a line
fn user_and_client_commands() {
    let check = |line: &str, state_dir: Option<&str>, action: fn() -> PeopleAction| {
        for (word, who) in [("user", People::Users), ("client", People::Clients)] {
            let state_dir = state_dir.map(PathBuf::from);
            let expected = Command::People { who, state_dir, action: action() };
            assert_eq!(run(&format!("{word} {line}")), Ok(expected), "{word} {line}");
        }
    };
    let revoke = || PeopleAction::Revoke { name: "https://a.example#1".to_owned() };
    check("list", None, || PeopleAction::List);
    check("list --state-dir /s", Some("/s"), || PeopleAction::List);
    check("revoke https://a.example#1", None, revoke);
    check("revoke --state-dir=/s https://a.example#1", Some("/s"), revoke);
}

#[test]
#[rustfmt::skip] // one case a line
fn wrong_command_lines() {
    let check = |line: &str, expected: &str| {
        assert_eq!(run(line), Err(format!("{expected} (try mcp-broker --help)")), "{line}");
    };
    let hint = "a command of yours comes after --";
    let form = "write it like 90s, 30m, 2h or 1d";
    check("sevre", "unknown command sevre, did you mean serve?");
    check("forgejo-mcp", "unknown command forgejo-mcp");
    check("--config f", "unknown command --config");
    check("serve --lisetn 127.0.0.1:0", "unknown option --lisetn, did you mean --listen?");
    check("serve --colour", "unknown option --colour");
    check("serve -c f", "unknown option -c");
    check("serve --config", "--config needs a value");
    check("serve --config --no-auth", "--config needs a value");
    check("serve --config=", "--config needs a path");
    check("serve --no-auth=yes", "--no-auth takes no value");
    check("serve --max-sessions 3 --max-sessions 4", "--max-sessions is given twice");
    check("serve --no-auth --no-auth", "--no-auth is given twice");
    check("serve --max-sessions many", "--max-sessions: \"many\" is not a whole number");
    check("serve --max-body 1GiB", "--max-body: 1GiB is not between 1KiB and 64MiB");
    let in_file = "set \"kill_grace\" under \"broker\" in the file of --config";
    check("serve --kill-grace 5s", &format!("--kill-grace is no option: {in_file}"));
    check("serve x-mcp -t stdio", &format!("unexpected argument \"x-mcp\": {hint}"));
    check("serve --", "there is no command after --");
    check("demo-server x", "unexpected argument \"x\"");
    check("demo-server -- x", "unexpected argument \"--\"");
    check("demo-server --kill-grace", "unknown option --kill-grace");
    check("token", "token needs one of add, list, revoke");
    check("token rewoke alice", "unknown token command rewoke, did you mean revoke?");
    check("token add", "token add needs a NAME");
    check("token revoke", "token revoke needs a NAME");
    check("token add alice bob", "unexpected argument \"bob\"");
    check("token add alice -- bob", "unexpected argument \"--\"");
    check("token list alice", "unexpected argument \"alice\"");
    check("token add alice --expires soon", &format!("--expires: \"soon\" is not a time: {form}"));
    check("token add alice --expires 0", "--expires: 0 is not between 1s and 3650d");
    check("token list --env A=1", "unknown option --env");
    check("uesr list", "unknown command uesr, did you mean user?");
    check("user", "user needs one of list, revoke");
    check("client", "client needs one of list, revoke");
    check("user add alice", "unknown user command add");
    check("client lsit", "unknown client command lsit, did you mean list?");
    check("client revoke", "client revoke needs a NAME");
    check("user revoke alice bob", "unexpected argument \"bob\"");
    check("user list alice", "unexpected argument \"alice\"");
    check("user list --state-dir=", "--state-dir needs a path");
    check("client list --expires 1d", "unknown option --expires");
    check("token revoke alice --expires 1d", "unknown option --expires");
}

#[test]
fn arguments_that_are_not_utf8_are_refused() {
    use std::os::unix::ffi::OsStringExt;
    let error = parse(["serve".into(), OsString::from_vec(vec![b'x', 0xff])]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "\"x\\xFF\" is not UTF-8 (try mcp-broker --help)"
    );
}

#[test]
fn the_help_names_every_flag_and_no_other() {
    let section = HELP
        .lines()
        .skip_while(|line| !line.starts_with("Options of serve"));
    let words = section
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next());
    let named: Vec<&str> = words.filter(|word| word.starts_with("--")).collect();
    let flags: Vec<&str> = SETTINGS.iter().filter_map(|setting| setting.flag).collect();
    assert_eq!(named, [&["--config"], flags.as_slice()].concat());
}

#[test]
fn the_help_fits_a_terminal() {
    let long: Vec<&str> = HELP
        .lines()
        .filter(|line| line.chars().count() > 90)
        .collect();
    assert!(long.is_empty(), "{long:?}");
}
