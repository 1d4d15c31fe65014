//! The `mcpServers` object, as MCP clients and the READMEs of servers write it, so that it can be
//! pasted. Each key a client is known to put there is understood, or ignored aloud, or refused with
//! a reason; any other is a slip.

use std::path::{Path, PathBuf};

use crate::auth;

use super::json::{Entry, Fault, Node};
use super::server_options::ServerOptions;
use super::template::Template;

/// A configured stdio MCP server.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Server {
    /// `[A-Za-z0-9._-]`, at most 64 bytes, not only dots; unique. Its path is `/mcp/NAME`.
    pub(crate) name: String,
    pub(crate) command: ServerCommand,
    /// What is added to a child's environment, in the order of the file.
    pub(crate) env: Vec<(String, Template)>,
    /// Absolute. `None`: the broker's own.
    pub(crate) cwd: Option<PathBuf>,
    /// Its `broker` object.
    pub(crate) options: ServerOptions,
}

/// What a child runs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ServerCommand {
    /// The server that is built in: `mcp-broker demo-server`.
    DemoServer,
    /// A program, looked up in `PATH` unless it has a slash, and its arguments.
    Program { command: String, args: Vec<String> },
}

/// Keys that mean something here.
const KNOWN: [&str; 14] = [
    "command",
    "args",
    "env",
    "cwd",
    "type",
    "transport",
    "transportType",
    "disabled",
    "enabled",
    "url",
    "serverUrl",
    "httpUrl",
    "headers",
    "broker",
];

/// Keys that some client understands and that the broker can do without, with what that means.
const IGNORED: [(&str, &str); 14] = [
    ("alwaysAllow", "the client decides what needs no approval"),
    ("autoApprove", "the client decides what needs no approval"),
    ("trust", "the client decides what needs no approval"),
    (
        "timeout",
        "how long a call may take is for the client to say",
    ),
    ("description", "it says nothing about how to run the server"),
    ("name", "a server is called by its key"),
    ("version", "it says nothing about how to run the server"),
    ("gallery", "it says nothing about how to run the server"),
    ("icon", "it says nothing about how to run the server"),
    ("tools", "every tool is offered"),
    ("includeTools", "every tool is offered"),
    ("excludeTools", "every tool is offered"),
    ("disabledTools", "every tool is offered"),
    (
        "watchPaths",
        "a server is started again with the next session",
    ),
];

const PLACEHOLDER_OUTSIDE_ENV: &str = "placeholders are for \"env\" only: \
    a command line can be read by every user of the machine";

/// Reads the object. What was ignored is added to `remarks`; so is each variable that `broker_env`
/// does not have.
pub(super) fn read(
    object: &Node<'_>,
    broker_env: &dyn Fn(&str) -> Option<String>,
    remarks: &mut Vec<Fault>,
) -> Result<Vec<Server>, Fault> {
    let mut servers = Vec::new();
    for entry in object.entries()? {
        if !is_server_name(&entry.key) {
            return Err(entry.at.fault(format!(
                "server name {:?} does not fit into a URL: \
                 use 1 to 64 letters, digits, \".\", \"_\" or \"-\"",
                entry.key
            )));
        }
        let members = entry.value.entries()?;
        if is_disabled(&members)? {
            remarks.push(
                entry
                    .at
                    .fault(format!("server {:?} is disabled and left out", entry.key)),
            );
            continue;
        }
        let server = read_server(&entry, &members, remarks)?;
        for (name, value) in &server.env {
            for key in value.broker_keys().filter(|key| broker_env(key).is_none()) {
                remarks.push(entry.at.fault(format!(
                    "server {:?} cannot start: its env {name} needs {key}, \
                     which the broker's own environment does not have",
                    entry.key
                )));
            }
        }
        servers.push(server);
    }
    Ok(servers)
}

/// A disabled entry is not looked at any further: it may well be one that cannot be served here.
fn is_disabled(members: &[Entry<'_>]) -> Result<bool, Fault> {
    for member in members {
        let disabled = match member.key.as_str() {
            "disabled" => member.value.boolean()?,
            "enabled" => !member.value.boolean()?,
            _ => false,
        };
        if disabled {
            return Ok(true);
        }
    }
    Ok(false)
}

fn read_server(
    entry: &Entry<'_>,
    members: &[Entry<'_>],
    remarks: &mut Vec<Fault>,
) -> Result<Server, Fault> {
    let (mut command, mut args, mut env, mut cwd) = (None, Vec::new(), Vec::new(), None);
    let mut options = ServerOptions::default();
    for member in members {
        let value = &member.value;
        match member.key.as_str() {
            "command" => command = Some(read_command(value)?),
            "args" => args = read_args(value)?,
            "env" => env = read_env(value)?,
            "cwd" => cwd = Some(read_cwd(value)?),
            "type" | "transport" | "transportType" => check_transport(value)?,
            "url" | "serverUrl" | "httpUrl" | "headers" => {
                return Err(member.at.fault(format!(
                    "{:?} is for a remote server: \
                     the broker serves stdio servers only, by their \"command\"",
                    member.key
                )));
            }
            "disabled" | "enabled" => {}
            "broker" => options = ServerOptions::read(value)?,
            key => match IGNORED.iter().find(|(ignored, _)| *ignored == key) {
                Some((_, why)) => {
                    remarks.push(member.at.fault(format!("{key:?} is ignored: {why}")))
                }
                None => return Err(member.unknown(KNOWN)),
            },
        }
    }
    let Some(command) = command else {
        return Err(entry
            .at
            .fault(format!("server {:?} has no \"command\"", entry.key)));
    };
    Ok(Server {
        name: entry.key.clone(),
        command: ServerCommand::Program { command, args },
        env,
        cwd,
        options,
    })
}

fn read_command(value: &Node<'_>) -> Result<String, Fault> {
    let command = value.string()?;
    if command.trim().is_empty() || command.contains('\0') {
        return Err(value.fault("\"command\" is not the name of a program"));
    }
    if command.contains("${") {
        return Err(value.fault(PLACEHOLDER_OUTSIDE_ENV));
    }
    Ok(command)
}

/// Arguments go to the program as they are: `${HOME}` may well be meant for a shell. The broker's
/// own placeholders would be taken for filled in, and are refused.
fn read_args(value: &Node<'_>) -> Result<Vec<String>, Fault> {
    let mut args = Vec::new();
    for item in value.items()? {
        let arg = item.string()?;
        if arg.contains('\0') {
            return Err(item.fault("an argument cannot contain a NUL character"));
        }
        if ["${user.", "${env."]
            .iter()
            .any(|start| arg.contains(start))
        {
            return Err(item.fault(PLACEHOLDER_OUTSIDE_ENV));
        }
        args.push(arg);
    }
    Ok(args)
}

fn read_env(value: &Node<'_>) -> Result<Vec<(String, Template)>, Fault> {
    let mut env = Vec::new();
    for entry in value.entries()? {
        if !auth::is_env_key(&entry.key) {
            return Err(entry.at.fault(format!(
                "{:?} is not the name of an environment variable",
                entry.key
            )));
        }
        let text = entry.value.string()?;
        if text.contains('\0') {
            return Err(entry
                .value
                .fault("a variable cannot contain a NUL character"));
        }
        let template = Template::parse(&text)
            .map_err(|why| entry.value.fault(format!("env {}: {why}", entry.key)))?;
        env.push((entry.key, template));
    }
    Ok(env)
}

fn read_cwd(value: &Node<'_>) -> Result<PathBuf, Fault> {
    let path = value.string()?;
    if !Path::new(&path).is_absolute() || path.contains('\0') {
        return Err(value.fault(format!("\"cwd\" must be an absolute path, not {path:?}")));
    }
    Ok(PathBuf::from(path))
}

fn check_transport(value: &Node<'_>) -> Result<(), Fault> {
    let transport = value.string()?;
    match transport.as_str() {
        "stdio" | "local" => Ok(()),
        _ => Err(value.fault(format!(
            "{transport:?} is no transport of the broker's: it serves stdio servers only"
        ))),
    }
}

/// The longest name of a server, in bytes.
const NAME_BYTES: usize = 64;

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

/// Only dots would be a step in a path, not a name.
fn is_server_name(name: &str) -> bool {
    name.len() <= NAME_BYTES
        && name.bytes().all(is_name_byte)
        && name.bytes().any(|byte| byte != b'.')
}

/// The server of a command line: called by its program's file name.
pub(super) fn from_command_line(command: &str, args: &[String]) -> Server {
    let file_name = command.rsplit('/').next().unwrap_or(command);
    let fitting = |letter: char| u8::try_from(letter).is_ok_and(is_name_byte);
    let name: String = file_name
        .chars()
        .map(|letter| if fitting(letter) { letter } else { '-' })
        .take(NAME_BYTES)
        .collect();
    let name = if is_server_name(&name) {
        name
    } else {
        "server".to_owned()
    };
    let command = ServerCommand::Program {
        command: command.to_owned(),
        args: args.to_vec(),
    };
    Server {
        name,
        command,
        env: Vec::new(),
        cwd: None,
        options: ServerOptions::default(),
    }
}

/// The server of someone who configured none.
pub(super) fn demo() -> Server {
    Server {
        name: "demo".to_owned(),
        command: ServerCommand::DemoServer,
        env: Vec::new(),
        cwd: None,
        options: ServerOptions::default(),
    }
}
