//! From a configured server and a principal to what the supervisor starts: the command, and an
//! environment that holds what was asked for and nothing else.

use std::path::PathBuf;
use std::sync::Arc;

use crate::auth::Principal;
use crate::config::{Server, ServerCommand};
use crate::isolation::{Home, Isolation};
use crate::launcher::Orders;
use crate::supervisor::{Launch, StderrTail, Tether};

/// What every child gets of the broker's own environment, so that programs are found and speak the
/// operator's language.
const INHERITED: [&str; 2] = ["PATH", "LANG"];
/// Where its private directories stand.
const PRIVATE: [&str; 2] = ["HOME", "TMPDIR"];
/// The broker's own program, also when its file has been replaced or is out of a child's reach.
const MYSELF: &str = "/proc/self/exe";
/// A literal this long may be a secret that was written into the file; a shorter one, like
/// `true` or `debug`, would be struck out of text where it stands by chance.
const SECRET_MIN_BYTES: usize = 8;
/// Tells the built-in server who it speaks to.
const DEMO_USER: &str = "MCP_BROKER_USER";

/// Whether a child of this server gets its user's own token.
pub(crate) fn needs_token(server: &Server) -> bool {
    server
        .env
        .iter()
        .any(|(_, template)| template.needs_token())
}

/// How to start `server` for `principal`, whose own token is `token` if they have one, and where it
/// lives, which is to be kept until it has ended; `label` stands in logs and thread names.
///
/// # Errors
/// One line that says what is missing, without any value.
pub(crate) fn prepare(
    server: &Server,
    principal: &Principal,
    token: Option<&str>,
    label: &str,
    isolation: &Isolation,
    tether: Tether,
) -> Result<(Launch, Home), String> {
    let broker_env = |key: &str| std::env::var(key).ok();
    let mut env: Vec<(String, String)> = INHERITED
        .iter()
        .filter_map(|key| Some(((*key).to_owned(), broker_env(key)?)))
        .collect();
    let own = principal.env.values().map(String::as_str);
    let mut secrets: Vec<String> = own.chain(token).map(str::to_owned).collect();
    for (key, template) in &server.env {
        let filled = template
            .fill(principal, token, &broker_env)
            .map_err(|missing| format!("env {key}: {missing}"))?;
        if filled.secret || filled.value.len() >= SECRET_MIN_BYTES {
            secrets.push(filled.value.clone());
        }
        env.retain(|(other, _)| other != key);
        env.push((key.clone(), filled.value));
    }
    let (program, args) = match &server.command {
        ServerCommand::Program { command, args } => (PathBuf::from(command), args.clone()),
        ServerCommand::DemoServer => {
            env.push((DEMO_USER.to_owned(), principal.name.to_string()));
            (PathBuf::from(MYSELF), vec!["demo-server".to_owned()])
        }
    };
    let home = isolation.home(principal)?;
    for (key, directory) in PRIVATE.iter().zip(home.directories()) {
        if env.iter().all(|(other, _)| other != key) {
            let path = directory
                .to_str()
                .ok_or("the state directory is not UTF-8")?;
            env.push(((*key).to_owned(), path.to_owned()));
        }
    }
    let mut orders = Orders {
        record: tether.kin.as_ref().map(|kin| kin.record_dir().to_owned()),
        cgroup: tether.cgroup.as_ref().map(|it| it.path().to_owned()),
        ..isolation.orders(server, &home)
    };
    if let (Some(confine), Some(cgroup)) = (&mut orders.confine, &tether.cgroup) {
        // Where it has the broker's uid, it could lift its own limits.
        confine.hidden.push(cgroup.mount().to_owned());
        confine.readable.push(cgroup.mount().to_owned());
    }
    let launch = Launch {
        label: label.to_owned(),
        program: PathBuf::from(MYSELF),
        args: orders.args(&program, &args),
        env,
        stderr: Arc::new(StderrTail::new(label.to_owned(), &secrets)),
        tether,
    };
    Ok((launch, home))
}
