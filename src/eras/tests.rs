//! Real processes: shell scripts that behave as servers are known to. And what all tests here
//! share.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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
        Self::with(|config| config.start_timeout = start_timeout)
    }

    fn with(set: impl Fn(&mut Config)) -> Self {
        let dir = TempDir::new("rig");
        let state_dir = dir.path().to_str().map(str::to_owned);
        let env = |key: &str| (key == "STATE_DIRECTORY").then(|| state_dir.clone())?;
        let mut config = config::load(&ServeArgs::default(), &env).unwrap();
        set(&mut config);
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
        let start = || self.start(script);
        self.eras.speaks_modern(&server, start, &|| true).unwrap()
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
    // A third of it is what is left for those that work.
    let soon = Duration::from_secs(6);
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
    // That is not the program's fault, and the start fails too.
    let cannot = || Err::<(Launch, ()), _>("no home".to_owned());
    let failed = rig.eras.speaks_modern(&server("sh", &[]), cannot, &|| true);
    assert_eq!(failed, Err(NotFound::Failed("no home".to_owned())));
    let script = format!("read d; {RESULT}; cat");
    let works = || rig.start(&script);
    let found = rig.eras.speaks_modern(&server("sh", &[]), works, &|| true);
    assert_eq!(found, Ok(true));
}

#[test]
fn what_is_configured_is_not_found_out() {
    let rig = Rig::new(DEADLINE);
    let must_not = || -> Result<(Launch, ()), String> { panic!("it is known") };
    let check = |server: &Server, modern: bool| {
        let found = rig.eras.speaks_modern(server, must_not, &|| true);
        assert_eq!(found, Ok(modern));
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
        let found = rig.eras.speaks_modern(&server, must_not, &|| true);
        assert_eq!(found, Ok(true));
        rig.eras.tick();
        rig.restart();
    }
    rig.eras.disproved(&server);
    assert!(!rig.eras.is_modern_only(&server));
}

/// A process that would not end by itself, nor by SIGTERM, leaves its pid in the file first.
fn stubborn(file: &Path, then: &str) -> String {
    let file = file.display();
    format!(
        "trap '' TERM; echo $$ >{file}.new; mv {file}.new {file}; {then}; while :; do sleep 1000; done"
    )
}

/// The pid that a process has left.
fn pid(file: &Path) -> String {
    let deadline = Instant::now() + DEADLINE;
    while !file.exists() {
        assert!(Instant::now() < deadline, "no process has started");
        std::thread::yield_now();
    }
    fs::read_to_string(file).unwrap().trim().to_owned()
}

fn is_there(pid: &str) -> bool {
    Path::new("/proc").join(pid).exists()
}

/// Whatever becomes of it just now.
#[test]
fn a_process_that_nobody_wants_any_more_is_killed() {
    // In the middle of the questions, and in the ladder after them.
    for then in [":", RESULT] {
        for by_shutdown in [false, true] {
            let rig = Arc::new(Rig::with(|config| {
                config.start_timeout = Duration::from_secs(600);
                config.stop_grace = Duration::from_secs(600);
            }));
            let file = rig._dir.path().join("pid");
            let is_wanted = Arc::new(AtomicBool::new(true));
            let probing = {
                let (rig, is_wanted) = (Arc::clone(&rig), Arc::clone(&is_wanted));
                let script = stubborn(&file, then);
                let work = move || {
                    let server = server("sh", &["-c", &script]);
                    let is_wanted = || is_wanted.load(Ordering::SeqCst);
                    rig.eras
                        .speaks_modern(&server, || rig.start(&script), &is_wanted)
                };
                thread::spawn("probe", work).unwrap()
            };
            let pid = pid(&file);
            assert!(is_there(&pid));
            let unwanted = Instant::now();
            match by_shutdown {
                true => rig.eras.stop(),
                false => is_wanted.store(false, Ordering::SeqCst),
            }
            let found = probing.join().unwrap();
            assert!(unwanted.elapsed() < Duration::from_secs(2), "{then}");
            assert!(!is_there(&pid), "{then}");
            // It may have been heard before.
            let is_in_vain = matches!(found, Err(NotFound::Unwanted));
            assert!(is_in_vain || then == RESULT && found == Ok(true));
            assert_eq!(rig.starts(), 1);
        }
    }
}

#[test]
fn nothing_is_found_out_during_a_shutdown() {
    let rig = Rig::new(DEADLINE);
    rig.eras.stop();
    let start = || rig.start(&format!("read d; {RESULT}; cat"));
    let found = rig.eras.speaks_modern(&server("sh", &[]), start, &|| true);
    assert_eq!(found, Err(NotFound::Unwanted));
    assert_eq!(rig.starts(), 0);
}

#[test]
fn a_hung_server_is_not_waited_for_by_everybody() {
    let rig = Arc::new(Rig::new(Duration::from_millis(1500)));
    let script = "exec cat >/dev/null";
    let begun = Instant::now();
    let ask = |no: usize| {
        let rig = Arc::clone(&rig);
        let work = move || {
            let server = server("sh", &["-c", script]);
            rig.eras
                .speaks_modern(&server, || rig.start(script), &|| true)
        };
        thread::spawn(format!("ask {no}"), work).unwrap()
    };
    let all: Vec<_> = (0..INSIDE_MAX + 8).map(ask).collect();
    let found: Vec<_> = all.into_iter().map(|it| it.join().unwrap()).collect();
    // The probe and the greeting have one deadline, and who waits for them too; two processes are
    // stopped.
    assert!(begun.elapsed() < Duration::from_secs(8), "{found:?}");
    let busy = found.iter().filter(|it| **it == Err(NotFound::Busy));
    assert!(busy.count() >= 8, "{found:?}");
    assert!(found.contains(&Ok(false)), "{found:?}");
    assert_eq!(rig.starts(), 2);
    // For a while it counts as legacy.
    assert!(!rig.speaks_modern(script));
    assert_eq!(rig.starts(), 0);
}

/// What is said to `initialize` alone proves nothing.
#[test]
fn an_error_to_initialize_is_no_greeting() {
    let error =
        r#"echo '{"jsonrpc":"2.0","id":"initialize","error":{"code":-32600,"message":"no"}}'"#;
    let slow = format!("read d; read i; {error}; sleep 2; {RESULT}; cat");
    check(&slow, DEADLINE, true, 1, true);
    let useless = format!("read first; {error}; exec cat >/dev/null");
    check(&useless, Duration::from_millis(600), false, 2, false);
}
