//! The example files under `tests/data/config` are the table: each bad one has its message beside
//! it (`.err`), each good one its warnings, if there are any (`.warn`).

use std::collections::BTreeSet;
use std::fs;

use super::server_options::ChildLimits;
use super::*;

fn no_env(_: &str) -> Option<String> {
    None
}

fn env(key: &str) -> Option<String> {
    match key {
        "HOME" => Some("/home/alice".to_owned()),
        "HTTPS_PROXY" => Some("http://proxy.example.org:3128".to_owned()),
        _ => None,
    }
}

fn examples(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/config")
        .join(kind)
}

/// The names of the example files of a kind, without extension, and what the other extension holds
/// for each.
fn each_example(kind: &str, mut check: impl FnMut(&str, &Path)) {
    let names: BTreeSet<String> = fs::read_dir(examples(kind))
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .path()
                .file_stem()
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert!(names.len() > 3, "the examples are missing: {names:?}");
    for name in names {
        check(&name, &examples(kind).join(format!("{name}.json")));
    }
}

fn load_file(path: &Path) -> Result<Config, String> {
    let args = ServeArgs {
        config: Some(path.to_owned()),
        ..ServeArgs::default()
    };
    load(&args, &env).map_err(|error| without_directory(&error.to_string(), path))
}

fn without_directory(message: &str, path: &Path) -> String {
    message.replace(&format!("{}/", path.parent().unwrap().display()), "")
}

#[test]
fn bad_files_are_refused_with_line_and_reason() {
    each_example("bad", |name, path| {
        let expected = fs::read_to_string(path.with_extension("err")).expect(name);
        match load_file(path) {
            Err(message) => assert_eq!(message, expected.trim_end(), "{name}"),
            Ok(_) => panic!("{name} was accepted"),
        }
    });
}

#[test]
fn good_files_are_taken_with_their_warnings() {
    each_example("good", |name, path| {
        let expected = fs::read_to_string(path.with_extension("warn")).unwrap_or_default();
        let config = load_file(path).unwrap_or_else(|message| panic!("{name}: {message}"));
        let found: String = config
            .warnings
            .iter()
            .map(|line| without_directory(line, path) + "\n")
            .collect();
        assert_eq!(found, expected, "{name}");
    });
}

#[test]
fn nothing_said_gives_the_defaults() {
    let config = load(&ServeArgs::default(), &env).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8787");
    assert_eq!(
        config.state_dir,
        Path::new("/home/alice/.local/state/mcp-broker")
    );
    assert!(config.auth);
    assert_eq!(
        (config.max_sessions, config.max_sessions_per_user),
        (100, 16)
    );
    assert_eq!(config.idle_timeout, Some(Duration::from_mins(30)));
    assert_eq!(
        (config.drain, config.start_timeout),
        (Duration::from_secs(10), Duration::from_secs(120))
    );
    assert_eq!(config.input_timeout, Duration::from_mins(5));
    assert_eq!(
        (config.stop_grace, config.kill_grace),
        (Duration::from_secs(2), Duration::from_secs(3))
    );
    assert_eq!((config.max_body, config.max_message), (4 << 20, 16 << 20));
    assert_eq!((config.max_in_flight, config.gone_status), (64, 404));
    assert_eq!(
        (config.max_connections, config.max_connections_per_address),
        (4096, 256)
    );
    assert_eq!((config.public_url, config.log), (None, None));
    assert!(config.allowed_origins.is_empty() && config.warnings.is_empty());
    assert_eq!(
        config.trusted_proxies,
        ["127.0.0.1", "::1"].map(|ip| ip.parse::<IpAddr>().unwrap())
    );
    assert_eq!(config.servers, [servers::demo()]);
}

#[test]
fn a_file_can_say_everything() {
    let config = load_file(&examples("good").join("full.json")).unwrap();
    assert_eq!(config.listen.to_string(), "0.0.0.0:9000");
    assert_eq!(config.state_dir, Path::new("/var/lib/mcp-broker"));
    assert!(config.auth);
    assert_eq!((config.max_sessions, config.max_sessions_per_user), (0, 4));
    assert_eq!(config.idle_timeout, None);
    assert_eq!(
        (config.drain, config.start_timeout),
        (Duration::from_secs(5), Duration::from_secs(60))
    );
    assert_eq!(
        (config.stop_grace, config.kill_grace),
        (Duration::from_millis(500), Duration::from_secs(1))
    );
    assert_eq!((config.max_body, config.max_message), (64 << 10, 1 << 20));
    assert_eq!((config.max_in_flight, config.gone_status), (8, 410));
    assert_eq!(
        (config.max_connections, config.max_connections_per_address),
        (100, 0)
    );
    assert_eq!(
        config.public_url.unwrap().to_string(),
        "https://mcp.example.org/tools"
    );
    assert_eq!(
        config.allowed_origins,
        ["https://app.example.org", "http://localhost:5173"]
    );
    assert_eq!(
        config.trusted_proxies,
        ["10.0.0.2", "fd00::2"].map(|ip| ip.parse::<IpAddr>().unwrap())
    );
    assert_eq!(config.log.as_deref(), Some("info,mcp_broker::edge=debug"));

    let [forgejo, shell] = config.servers.as_slice() else {
        panic!("{:?}", config.servers)
    };
    assert_eq!(forgejo.name, "forgejo");
    let args = ["--transport", "stdio", "--url", "https://git.example.org"]
        .map(str::to_owned)
        .to_vec();
    assert_eq!(
        forgejo.command,
        ServerCommand::Program {
            command: "forgejo-mcp".to_owned(),
            args
        }
    );
    assert_eq!(forgejo.cwd.as_deref(), Some(Path::new("/srv/forgejo")));
    let keys: Vec<&str> = forgejo.env.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "FORGEJO_ACCESS_TOKEN",
            "FORGEJO_USER",
            "HTTPS_PROXY",
            "PRICE"
        ]
    );
    let args = ["-c", "exec \"$HOME/bin/server\" ${PORT:-80}"]
        .map(str::to_owned)
        .to_vec();
    assert_eq!(
        shell.command,
        ServerCommand::Program {
            command: "/bin/sh".to_owned(),
            args
        }
    );
    assert_eq!((shell.env.as_slice(), &shell.cwd), ([].as_slice(), &None));
}

#[test]
fn an_empty_list_is_not_the_default() {
    let config = load_file(&examples("good").join("broker_only.json")).unwrap();
    assert!(config.trusted_proxies.is_empty());
    assert!(!config.auth);
}

#[test]
fn flags_win_over_the_file() {
    let mut args = ServeArgs {
        config: Some(examples("good").join("full.json")),
        ..ServeArgs::default()
    };
    let typed = [
        ("listen", "127.0.0.1:0"),
        ("no_auth", "true"),
        ("max_sessions", "7"),
        ("allowed_origins", "http://a.example"),
    ];
    for (key, text) in typed {
        let setting = SETTINGS.iter().find(|setting| setting.key == key).unwrap();
        args.settings.set(setting, text).unwrap();
    }
    let config = load(&args, &env).unwrap();
    assert_eq!(
        (config.listen.to_string().as_str(), config.auth),
        ("127.0.0.1:0", false)
    );
    assert_eq!((config.max_sessions, config.max_sessions_per_user), (7, 4));
    assert_eq!(config.allowed_origins, ["http://a.example"]);
}

#[test]
fn a_file_can_say_how_children_are_treated() {
    let config = load_file(&examples("good").join("full.json")).unwrap();
    assert_eq!(config.input_timeout, Duration::from_secs(90));
    assert_eq!(config.max_session_age, Some(Duration::from_hours(24)));
    assert_eq!(
        (config.max_in_flight_per_user, config.min_free_memory),
        (32, 128 << 20)
    );
    assert_eq!(config.run_as, Some(RunAs::Uids(60000..=60999)));
    assert!(config.keep_homes);
    assert_eq!(
        config.servers[0].options,
        ServerOptions {
            revive: Some(Duration::from_hours(7 * 24)),
            park: Some(Duration::from_secs(60)),
            on_refresh: OnRefresh::Keep,
            era: EraChoice::Legacy,
            isolate: false,
            limits: ChildLimits {
                memory_max: Some(512 << 20),
                pids_max: Some(64),
                file_size_max: Some(1 << 30),
                open_files_max: Some(1024),
            },
        }
    );
}

#[test]
fn a_server_speaks_the_era_that_its_file_says() {
    let config = load_file(&examples("good").join("eras.json")).unwrap();
    let eras = [
        EraChoice::Auto,
        EraChoice::Legacy,
        EraChoice::Modern,
        EraChoice::Auto,
    ];
    assert_eq!(
        config
            .servers
            .iter()
            .map(|it| it.options.era)
            .collect::<Vec<_>>(),
        eras
    );
}

#[test]
fn each_setting_wins_over_the_same_setting_only() {
    let samples = [
        ("listen", "127.0.0.1:1", "127.0.0.1:2"),
        ("state_dir", "/a", "/b"),
        ("no_auth", "true", "false"),
        ("max_sessions", "1", "2"),
        ("max_sessions_per_user", "1", "2"),
        ("idle_timeout", "1s", "2s"),
        ("drain", "1s", "2s"),
        ("max_body", "1KiB", "2KiB"),
        ("max_message", "1KiB", "2KiB"),
        ("gone_status", "404", "410"),
        ("public_url", "http://a", "http://b"),
        ("allowed_origins", "http://a", "http://b"),
        ("admin", "127.0.0.1:1", "127.0.0.1:2"),
        ("run_as", "a", "b"),
        ("log", "info", "debug"),
        ("keep_homes", "true", "false"),
        ("max_session_age", "1s", "2s"),
        ("start_timeout", "1s", "2s"),
        ("input_timeout", "1s", "2s"),
        ("stop_grace", "1s", "2s"),
        ("kill_grace", "1s", "2s"),
        ("max_in_flight", "1", "2"),
        ("max_in_flight_per_user", "1", "2"),
        ("min_free_memory", "1", "2"),
        ("max_connections", "1", "2"),
        ("max_connections_per_address", "1", "2"),
        ("trusted_proxies", "10.0.0.1", "10.0.0.2"),
    ];
    let (mut flags, mut file) = (Settings::default(), Settings::default());
    assert_eq!(
        samples.map(|(key, ..)| key),
        SETTINGS.each_ref().map(|setting| setting.key)
    );
    for ((key, flag, other), setting) in samples.iter().zip(&SETTINGS) {
        let before = (flags.clone(), file.clone());
        flags.set(setting, flag).unwrap();
        file.set(setting, other).unwrap();
        assert_ne!(flags, before.0, "{key} sets nothing");
        assert_ne!(flags, file, "{key}");
        assert_eq!(flags.clone().or(file.clone()), flags, "{key}");
        assert_eq!(file.clone().or(flags.clone()), file, "{key}");
    }
    assert_eq!(Settings::default().or(file.clone()), file);
}

#[test]
fn the_environment_may_set_the_log_level() {
    let log = |flag: Option<&str>, variable: Option<&str>| {
        let settings = Settings {
            log: flag.map(str::to_owned),
            ..Settings::default()
        };
        let env = |key: &str| {
            if key == "RUST_LOG" {
                variable.map(str::to_owned)
            } else {
                env(key)
            }
        };
        load(
            &ServeArgs {
                settings,
                ..ServeArgs::default()
            },
            &env,
        )
        .unwrap()
        .log
    };
    assert_eq!(log(None, Some("debug")).as_deref(), Some("debug"));
    assert_eq!(log(Some("warn"), Some("debug")).as_deref(), Some("warn"));
    assert_eq!(log(None, Some("")), None);
}

#[test]
fn a_missing_file_is_named() {
    let path = examples("bad").join("no_such_file.json");
    assert_eq!(
        load_file(&path).unwrap_err(),
        "cannot read the configuration file no_such_file.json: \
         No such file or directory (os error 2)"
    );
}

#[test]
fn a_command_becomes_a_server_of_its_name() {
    let check = |command: &[&str], name: &str| {
        let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        let args = ServeArgs {
            command: command.clone(),
            ..ServeArgs::default()
        };
        let servers = load(&args, &env).unwrap().servers;
        let [server] = servers.as_slice() else {
            panic!("{servers:?}")
        };
        assert_eq!(server.name, name);
        let expected = ServerCommand::Program {
            command: command[0].clone(),
            args: command[1..].to_vec(),
        };
        assert_eq!(server.command, expected);
    };
    check(&["forgejo-mcp", "-t", "stdio"], "forgejo-mcp");
    check(&["/usr/local/bin/server.py"], "server.py");
    check(&["./my server"], "my-server");
    check(&["bücher"], "b-cher");
    check(&["dir/"], "server");
    check(&["/bin/.."], "server");
    check(&[&"x".repeat(100)], &"x".repeat(64));
}

#[test]
fn a_command_and_a_file_of_servers_are_one_too_many() {
    let load = |file: &str| {
        let config = Some(examples("good").join(file));
        let args = ServeArgs {
            config,
            command: vec!["server".to_owned()],
            ..ServeArgs::default()
        };
        load(&args, &env)
            .map(|config| config.servers.len())
            .map_err(|error| error.to_string())
    };
    assert_eq!(load("broker_only.json"), Ok(1));
    assert!(
        load("full.json")
            .unwrap_err()
            .starts_with("a command after -- and \"mcpServers\" in ")
    );
}

#[test]
fn the_state_directory_is_found() {
    let check = |typed: Option<&str>, variables: &[(&str, &str)], expected: Option<&str>| {
        let env = |key: &str| {
            variables
                .iter()
                .find(|(name, _)| *name == key)
                .map(|(_, value)| (*value).to_owned())
        };
        let found = state_dir(typed.map(PathBuf::from), &env).ok();
        assert_eq!(
            found.as_deref(),
            expected.map(Path::new),
            "{typed:?} {variables:?}"
        );
    };
    check(Some("state"), &[("STATE_DIRECTORY", "/s")], Some("state"));
    check(
        None,
        &[
            ("STATE_DIRECTORY", "/s"),
            ("XDG_STATE_HOME", "/x"),
            ("HOME", "/h"),
        ],
        Some("/s"),
    );
    check(None, &[("STATE_DIRECTORY", "/s:/t")], Some("/s"));
    check(
        None,
        &[
            ("STATE_DIRECTORY", ""),
            ("XDG_STATE_HOME", "/x"),
            ("HOME", "/h"),
        ],
        Some("/x/mcp-broker"),
    );
    check(
        None,
        &[("XDG_STATE_HOME", "x"), ("HOME", "/h")],
        Some("/h/.local/state/mcp-broker"),
    );
    check(None, &[("HOME", "h")], None);
    check(None, &[], None);
    assert_eq!(
        load(&ServeArgs::default(), &no_env)
            .unwrap_err()
            .to_string(),
        "no directory for tokens: give --state-dir, or set HOME"
    );
}

#[test]
fn debug_shows_no_value_of_a_servers_env() {
    let shown = format!(
        "{:?}",
        load_file(&examples("good").join("full.json")).unwrap()
    );
    assert!(
        shown.contains("FORGEJO_USER") && !shown.contains("FORGEJO_TOKEN") && !shown.contains("5$"),
        "{shown}"
    );
}
