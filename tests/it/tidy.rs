//! The rules of the house that a compiler does not know: who may use whom, how long a file may be,
//! and that the README says what the program says.

use std::fs;
use std::path::{Path, PathBuf};

/// The layers of `src/main.rs`, lowest first. A module uses those below its own and itself; within
/// a layer, those that stand in one entry.
const LAYERS: [&[&str]; 14] = [
    &[
        "exit",
        "metrics",
        "clock",
        "rate",
        "memory",
        "private_file",
        "thread",
        "jsonrpc",
        "mcp",
        "systemd",
    ],
    &["cgroup", "orphans"],
    &["launcher"],
    &["auth", "demo", "edge", "supervisor"],
    &["translate"],
    &["bridge"],
    &["session"],
    &["http"],
    &["config", "cli", "isolation", "launch"],
    &["talk"],
    &["eras"],
    &["spawner"],
    &["check", "serve", "main"],
    &["fuzz"],
];
/// Words that all share know each other, and so do the ways in which an operator speaks.
const OPEN_LAYERS: [usize; 2] = [0, 8];

const MAX_LINES: usize = 500;
const MAX_COLUMNS: usize = 100;

struct Source {
    /// Relative to the package, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// The module of `src` that the file belongs to.
    fn module(&self) -> &str {
        let path = self.path.trim_start_matches("src/");
        path.split(['/', '.']).next().unwrap_or_default()
    }

    fn is_test(&self) -> bool {
        let path = self.path.as_str();
        path.starts_with("tests/") || path.ends_with("tests.rs") || path.contains("/tests/")
    }

    /// A fuzz target stands in the module that it looks into, and in the list that knows them all.
    fn is_fuzz_target(&self) -> bool {
        self.path.ends_with("/fuzz.rs") || self.path.contains("/fuzz/")
    }

    /// The lines of the program itself: no comments, no unit tests.
    fn program(&self) -> impl Iterator<Item = &str> {
        let text = self.text.split("#[cfg(test)]\nmod tests {").next();
        let lines = text.unwrap_or_default().lines();
        lines.filter(|line| !line.trim_start().starts_with("//"))
    }
}

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = vec![package().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the package") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                let name = path.strip_prefix(package()).expect("within the package");
                let path_text = name.to_str().expect("UTF-8").to_owned();
                let text = fs::read_to_string(&path).expect("a source file");
                found.push(Source {
                    path: path_text,
                    text,
                });
            }
        }
    }
    assert!(!found.is_empty(), "nothing in {folder}");
    found
}

fn layer(module: &str) -> usize {
    let found = LAYERS.iter().position(|layer| layer.contains(&module));
    found.unwrap_or_else(|| panic!("{module} is in no layer: see src/main.rs"))
}

/// The modules that a line names after `crate::`, also in a group.
fn used(line: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        let is_name = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
        text.chars().take_while(is_name).collect()
    };
    let mut names = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let rest = &line[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => names.extend(top_level_names(group).iter().map(|it| word(it))),
            None => names.push(word(rest)),
        }
    }
    names
}

/// The entries of `{a, b::{c, d}, e}`, from behind its first bracket.
fn top_level_names(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut names) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(group[start..at].trim());
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names
}

#[test]
fn the_reader_of_use_lines_can_read() {
    assert_eq!(used("use crate::bridge::{Bridge, Exchange};"), ["bridge"]);
    assert_eq!(
        used("use crate::{mcp, metrics::{A, B}, thread};"),
        ["mcp", "metrics", "thread"]
    );
    assert_eq!(
        used("let x: crate::edge::Edge = crate::auth::x();"),
        ["edge", "auth"]
    );
    assert_eq!(used("use std::fmt;"), Vec::<String>::new());
}

#[test]
fn each_module_uses_only_those_below_it() {
    let mut wrong = Vec::new();
    for source in sources("src") {
        let module = match source.is_fuzz_target() {
            true => "fuzz",
            false => source.module(),
        };
        let own = layer(module);
        let program: String = source.program().collect();
        for name in used(&program).iter().filter(|name| *name != module) {
            let other = layer(name);
            if other > own || (other == own && !OPEN_LAYERS.contains(&own)) {
                wrong.push(format!("{} uses {name}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn only_http_knows_tiny_http_and_serve_builds_its_server() {
    assert_only("tiny_http::", &["http", "serve"]);
}

#[test]
fn only_the_supervisor_starts_processes_and_only_thread_starts_threads() {
    for text in [
        "process::Command",
        "process::{Child, Command",
        "process::{Command",
    ] {
        assert_only(text, &["supervisor", "launcher"]);
    }
    assert_only("thread::Builder", &["thread"]);
    assert_only("std::thread::spawn", &[]);
    assert_only("thread::scope", &[]);
}

#[test]
fn nothing_is_unsafe_unfinished_or_printed_on_the_side() {
    for word in [
        "unsafe ",
        "todo!(",
        "unimplemented!(",
        "dbg!(",
        "println!(",
        "eprintln!(",
    ] {
        assert_only(word, &[]);
    }
}

/// Only these modules have the text in their program.
#[track_caller]
fn assert_only(text: &str, modules: &[&str]) {
    for source in sources("src") {
        let is_program = !source.is_test() && !source.is_fuzz_target();
        let has = is_program && source.program().any(|line| line.contains(text));
        assert!(
            !has || modules.contains(&source.module()),
            "{} has {text:?}",
            source.path
        );
    }
}

#[test]
fn no_file_is_too_long_or_too_wide() {
    let mut wrong = Vec::new();
    for source in sources("src").into_iter().chain(sources("tests")) {
        let lines = source.text.lines().count();
        if lines > MAX_LINES {
            wrong.push(format!("{}: {lines} lines", source.path));
        }
        for (no, line) in source.text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > MAX_COLUMNS && !is_verbatim(line) {
                wrong.push(format!("{}:{}: {columns} columns", source.path, no + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A literal that would be another one if it were cut.
fn is_verbatim(line: &str) -> bool {
    let line = line.trim_start();
    line.contains("r#\"") || line.contains("&str = \"") || line.starts_with('"')
}

#[test]
fn each_file_places_itself() {
    for source in sources("src").into_iter().chain(sources("tests")) {
        let opens = source.text.starts_with("//! ");
        assert!(opens, "{} does not open with a //! line", source.path);
    }
}

#[test]
fn the_readme_has_the_help_verbatim() {
    let help = crate::support::run(&["--help"]).stdout;
    let Ok(readme) = fs::read_to_string(package().join("README.md")) else {
        return; // not written yet
    };
    assert!(
        readme.contains(help.trim_end()),
        "the README's Options differ from --help"
    );
}
