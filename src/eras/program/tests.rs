//! What makes two programs different, and what does not.

use super::super::tests::{TempDir, server};
use super::*;
use crate::config::Template;

fn program(server: &Server) -> Program {
    Program::of(server).unwrap()
}

#[test]
fn a_command_line_that_differs_is_another_program() {
    let all = [
        server("cat", &[]),
        server("sh", &[]),
        server("/bin/cat", &[]),
        server("no-such-program", &[]),
        server("cat", &["a"]),
        server("cat", &["b"]),
        server("cat", &["a", "b"]),
        server("cat", &["ab"]),
        Server {
            cwd: Some("/".into()),
            ..server("cat", &[])
        },
    ];
    for (no, one) in all.iter().enumerate() {
        assert_eq!(program(one), program(one));
        for other in &all[no + 1..] {
            assert_ne!(program(one), program(other), "{one:?} {other:?}");
        }
    }
    let with_env = |env: &[(&str, &str)]| {
        let parse =
            |(key, text): &(&str, &str)| ((*key).to_owned(), Template::parse(text).unwrap());
        program(&Server {
            env: env.iter().map(parse).collect(),
            ..server("cat", &[])
        })
    };
    let all: [&[(&str, &str)]; 8] = [
        &[],
        &[("A", "b")],
        &[("B", "b")],
        &[("A", "c")],
        &[("A", "${user.name}")],
        &[("A", "${user.env.b}")],
        &[("A", "${env.b}")],
        &[("A", "b"), ("B", "b")],
    ];
    for (no, one) in all.iter().enumerate() {
        assert_eq!(with_env(one), with_env(one));
        for other in &all[no + 1..] {
            assert_ne!(with_env(one), with_env(other), "{one:?} {other:?}");
        }
    }
    let renamed = Server {
        name: "other".to_owned(),
        ..server("cat", &[])
    };
    assert_eq!(program(&renamed), program(&server("cat", &[])));
    let built_in = Server {
        command: ServerCommand::DemoServer,
        ..server("cat", &[])
    };
    assert_eq!(Program::of(&built_in), None);
}

#[test]
fn a_file_that_changes_makes_it_another_program() {
    let dir = TempDir::new("program");
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let make = |name: &str, text: &str| {
        // A new inode each time, whatever the clock of the file system.
        dir.write(&format!("{name}.new"), text);
        fs::rename(path(&format!("{name}.new")), path(name)).unwrap();
    };
    let check = |it: &dyn Fn() -> Program, name: &str| {
        make(name, "one");
        let before = it();
        assert_eq!(it(), before);
        make(name, "two");
        assert_ne!(it(), before, "{name} replaced");
        let before = it();
        dir.write(name, "longer than before");
        assert_ne!(it(), before, "{name} written to");
        let before = it();
        fs::remove_file(path(name)).unwrap();
        assert_ne!(it(), before, "{name} removed");
    };
    check(&|| program(&server(&path("server"), &[])), "server");
    let script = || program(&server("node", &["--flag", &path("server.js"), "more"]));
    check(&script, "server.js");
    let relative = |command: &str, args: &[&str]| {
        program(&Server {
            cwd: Some(dir.path().to_owned()),
            ..server(command, args)
        })
    };
    check(&|| relative("./server", &[]), "server");
    check(&|| relative("node", &["server.js"]), "server.js");
}

#[test]
fn a_name_is_looked_up_in_the_servers_own_path() {
    let dir = TempDir::new("path");
    let own = Template::parse(dir.path().to_str().unwrap()).unwrap();
    let with_path = Server {
        env: vec![("PATH".to_owned(), own)],
        ..server("server", &[])
    };
    let before = program(&with_path);
    dir.write_program("server", "#!/bin/sh");
    assert_ne!(program(&with_path), before);
    let base = Path::new("/usr");
    let found = |command, path| find(command, base, path);
    assert_eq!(found("sh", "/no:/bin"), Some("/bin/sh".into()));
    assert_eq!(found("sh", "no:bin"), Some("/usr/bin/sh".into()));
    assert_eq!(found("./x", "/bin"), Some("/usr/./x".into()));
    assert_eq!(found("passwd", "/etc"), None);
}

#[test]
fn what_is_written_down_is_a_hash() {
    let known = program(&server("cat", &["--token", "hunter2"]));
    assert_eq!(Program::parse(known.as_str()), Some(known.clone()));
    assert_eq!(known.as_str().len(), DIGITS);
    for text in [
        "",
        "cat",
        &"G".repeat(DIGITS),
        &"A".repeat(DIGITS),
        &"0".repeat(63),
    ] {
        assert_eq!(Program::parse(text), None, "{text}");
    }
}
