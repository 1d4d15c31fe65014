//! Real processes: shell scripts that behave as servers are known to. And what all tests here
//! share.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::config::{self, ServeArgs, ServerCommand, ServerOptions};
use crate::supervisor::{Parent, StderrTail, Tether};
use crate::thread;

/// For whatever must happen.
const DEADLINE: Duration = Duration::from_secs(20);

const RESULT: &str = r#"echo '{"jsonrpc":"2.0","id":"server/discover","result":{"supportedVersions":["2026-07-28"]}}'"#;
const REFUSAL: &str =
    r#"echo '{"jsonrpc":"2.0","id":"server/discover","error":{"code":-32601,"message":"no"}}'"#;
const HELLO: &str = r#"echo '{"jsonrpc":"2.0","id":"initialize","result":{}}'"#;

/// A directory of one test, only for this user, removed at its end.
pub(super) struct TempDir(PathBuf);

impl TempDir {
    pub(super) fn new(label: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let no = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mcp-broker-eras-{label}-{}-{no}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).unwrap();
    }

    pub(super) fn write_program(&self, name: &str, text: &str) {
        self.write(name, text);
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(self.0.join(name), mode).unwrap();
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(super) fn server(command: &str, args: &[&str]) -> Server {
    Server {
        name: "test".to_owned(),
        command: ServerCommand::Program {
            command: command.to_owned(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        },
        env: Vec::new(),
        cwd: None,
        options: ServerOptions::default(),
    }
}

struct Rig {
    eras: Eras,
    parent: Parent,
    config: Config,
    starts: AtomicUsize,
    _dir: TempDir,
}

impl Rig {
    fn new(start_timeout: Duration) -> Self {
        let dir = TempDir::new("rig");
        let state_dir = dir.path().to_str().map(str::to_owned);
        let env = |key: &str| (key == "STATE_DIRECTORY").then(|| state_dir.clone())?;
        let config = config::load(&ServeArgs::default(), &env).unwrap();
        let config = Config {
            start_timeout,
            ..config
        };
        let parent = Parent::start().unwrap();
        Self {
            eras: Eras::open(&config, parent.nursery()),
            parent,
            config,
            starts: AtomicUsize::new(0),
            _dir: dir,
        }
    }

    /// As after a restart of the broker.
    fn restart(&mut self) {
        self.eras = Eras::open(&self.config, self.parent.nursery());
    }

    fn start(&self, script: &str) -> Result<(Launch, ()), String> {
        self.starts.fetch_add(1, Ordering::SeqCst);
        let launch = Launch {
            label: "probe".to_owned(),
            // As the launcher begins.
            program: "setsid".into(),
            args: ["/bin/sh", "-c", script].map(Into::into).into(),
            env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            stderr: Arc::new(StderrTail::new("probe".to_owned(), &[])),
            tether: Tether::default(),
        };
        Ok((launch, ()))
    }

    fn speaks_modern(&self, script: &str) -> bool {
        let server = server("sh", &["-c", script]);
        self.eras.speaks_modern(&server, || self.start(script))
    }

    fn starts(&self) -> usize {
        self.starts.swap(0, Ordering::SeqCst)
    }
}

/// What the script does makes it modern or not, takes so many processes to find out, and is known
/// afterwards or not.
#[track_caller]
fn check(script: &str, start_timeout: Duration, expected: bool, processes: usize, is_known: bool) {
    let mut rig = Rig::new(start_timeout);
    assert_eq!(rig.speaks_modern(script), expected, "{script}");
    assert_eq!(rig.starts(), processes, "{script}");
    rig.restart();
    assert_eq!(rig.speaks_modern(script), expected, "{script}");
    let again = if is_known { 0 } else { processes };
    assert_eq!(rig.starts(), again, "{script} again");
    assert!(!rig.eras.is_modern_only(&server("sh", &["-c", script])));
}

#[test]
fn what_a_program_speaks_is_told_by_its_answers() {
    let both = |discover: &str, then: &str| format!("read d; {discover}; read i; {then}; cat");
    let known = |script: &str, expected| check(script, DEADLINE, expected, 1, true);
    known(&both(RESULT, ":"), true);
    known(&both(RESULT, HELLO), true);
    known(&both(REFUSAL, HELLO), false);
    // In the other order.
    known(&format!("read d; read i; {HELLO}; {RESULT}; cat"), true);
    // Silent to the one, and to the end, but not to the other.
    known(&both(":", HELLO), false);
    known(&format!("read d; read i; {HELLO}; exit 1"), false);
    let noise =
        r#"echo starting; echo '{"id":7}'; echo '{"jsonrpc":"2.0","id":1,"method":"ping"}'"#;
    known(&format!("{noise}; {}", both(RESULT, ":")), true);
}

#[test]
fn a_program_that_a_probe_breaks_is_legacy_if_it_works_without() {
    let unless_probed =
        |then: &str| format!("read first; case $first in *discover*) {then};; esac; {HELLO}; cat");
    check(&unless_probed("exit 1"), DEADLINE, false, 2, true);
    let soon = Duration::from_secs(2);
    check(&unless_probed("exec cat >/dev/null"), soon, false, 2, true);
}

#[test]
fn a_program_that_does_not_work_is_not_known() {
    check("exit 1", DEADLINE, false, 2, false);
    check(
        "exec cat >/dev/null",
        Duration::from_millis(300),
        false,
        2,
        false,
    );
    let rig = Rig::new(DEADLINE);
    let cannot = || Err::<(Launch, ()), _>("no home".to_owned());
    assert!(!rig.eras.speaks_modern(&server("sh", &[]), cannot));
    let script = format!("read d; {RESULT}; cat");
    let works = || rig.start(&script);
    assert!(rig.eras.speaks_modern(&server("sh", &[]), works));
}

#[test]
fn what_is_configured_is_not_found_out() {
    let rig = Rig::new(DEADLINE);
    let must_not = || -> Result<(Launch, ()), String> { panic!("it is known") };
    let check = |server: &Server, modern: bool| {
        assert_eq!(rig.eras.speaks_modern(server, must_not), modern);
        assert_eq!(rig.eras.is_modern_only(server), modern);
    };
    for (era, modern) in [(EraChoice::Legacy, false), (EraChoice::Modern, true)] {
        let mut server = server("sh", &[]);
        server.options.era = era;
        check(&server, modern);
        // What a child does cannot change it.
        rig.eras.learned_modern_only(&server);
        check(&server, modern);
        rig.eras.disproved(&server);
        check(&server, modern);
    }
    let mut built_in = server("sh", &[]);
    built_in.command = ServerCommand::DemoServer;
    check(&built_in, false);
}

#[test]
fn what_a_session_has_shown_is_known() {
    let mut rig = Rig::new(DEADLINE);
    let server = server("sh", &[]);
    let must_not = || -> Result<(Launch, ()), String> { panic!("it is known") };
    assert!(!rig.eras.is_modern_only(&server));
    rig.eras.learned_modern_only(&server);
    for _ in 0..2 {
        assert!(rig.eras.is_modern_only(&server));
        assert!(rig.eras.speaks_modern(&server, must_not));
        rig.restart();
    }
    rig.eras.disproved(&server);
    assert!(!rig.eras.is_modern_only(&server));
}

#[test]
fn nothing_is_found_out_during_a_shutdown() {
    let rig = Arc::new(Rig::new(Duration::from_secs(600)));
    let probing = {
        let rig = Arc::clone(&rig);
        // It would not end by itself, nor by SIGTERM.
        let script = "trap '' TERM; while :; do sleep 1000; done";
        thread::spawn("probe", move || rig.speaks_modern(script)).unwrap()
    };
    while rig.starts.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    let stopped = Instant::now();
    rig.eras.stop();
    assert_eq!(probing.join(), Some(false));
    // Less than the ladder takes.
    assert!(stopped.elapsed() < rig.config.stop_grace);
    assert_eq!(rig.starts(), 1);
    assert!(!rig.speaks_modern(&format!("read d; {RESULT}; cat")));
    assert_eq!(rig.starts(), 0);
}
