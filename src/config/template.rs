//! A value of a server's `env`, with placeholders that are filled in for each child: who the user
//! is is known only when their session opens. Values are secrets more often than not, so nothing
//! here can be printed by accident.

use std::fmt;

use crate::auth::{self, Principal};

use super::nearest::nearest;

/// A parsed `env` value. `$$` stands for one dollar sign; a dollar sign before anything but `{` or
/// `$` is itself.
#[derive(Clone, PartialEq)]
pub(crate) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, PartialEq)]
enum Piece {
    Literal(String),
    UserName,
    UserToken,
    UserSub,
    UserEmail,
    UserEnv(String),
    BrokerEnv(String),
}

/// A value, ready for a child's environment.
#[derive(Clone, PartialEq)]
pub(crate) struct Filled {
    pub(crate) value: String,
    /// Whether any placeholder was used: then the value is to be struck out of whatever the child
    /// writes.
    pub(crate) secret: bool,
}

/// Why a value cannot be had for this user. Names what is missing, never what is there.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum MissingValue {
    /// The user's token was made without this key.
    UserEnv { user: String, key: String },
    /// Only a user who signed in has a token of their own that could be passed on.
    UserToken { user: String },
    /// The provider has not said one, or nobody was asked.
    UserEmail { user: String },
    /// The broker's own environment has no such variable.
    BrokerEnv { key: String },
}

const NOT_CLOSED: &str =
    "a placeholder is not closed: \"${\" needs \"}\", and \"$${\" stands for itself";

impl Template {
    /// Reads a value as it stands in the file. The error names the placeholder.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            literal.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                literal.push('$');
                rest = after;
            } else if let Some(after) = after.strip_prefix('{') {
                let (name, after) = after.split_once('}').ok_or(NOT_CLOSED)?;
                if !literal.is_empty() {
                    pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                }
                pieces.push(placeholder(name)?);
                rest = after;
            } else {
                literal.push('$');
                rest = after;
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Ok(Self { pieces })
    }

    /// The value for one user, whose own token is `token` if they have one. `broker_env` reads the
    /// broker's own environment, by name.
    pub(crate) fn fill(
        &self,
        principal: &Principal,
        token: Option<&str>,
        broker_env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Filled, MissingValue> {
        let mut filled = Filled {
            value: String::new(),
            secret: false,
        };
        for piece in &self.pieces {
            filled.secret |= !matches!(piece, Piece::Literal(_));
            let user = || principal.name.to_string();
            match piece {
                Piece::Literal(text) => filled.value.push_str(text),
                Piece::UserName => filled.value.push_str(&principal.name),
                Piece::UserSub => filled.value.push_str(&principal.subject),
                Piece::UserToken => match token {
                    Some(token) => filled.value.push_str(token),
                    None => return Err(MissingValue::UserToken { user: user() }),
                },
                Piece::UserEmail => match &principal.email {
                    Some(email) => filled.value.push_str(email),
                    None => return Err(MissingValue::UserEmail { user: user() }),
                },
                Piece::UserEnv(key) => match principal.env.get(key) {
                    Some(value) => filled.value.push_str(value),
                    None => {
                        return Err(MissingValue::UserEnv {
                            user: user(),
                            key: key.clone(),
                        });
                    }
                },
                Piece::BrokerEnv(key) => match broker_env(key) {
                    Some(value) => filled.value.push_str(&value),
                    None => return Err(MissingValue::BrokerEnv { key: key.clone() }),
                },
            }
        }
        Ok(filled)
    }

    /// The value where there is no user: of its text and the broker's own environment.
    pub(super) fn fill_for_nobody(
        &self,
        broker_env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<String, String> {
        let mut filled = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => filled.push_str(text),
                Piece::BrokerEnv(key) => match broker_env(key) {
                    Some(value) => filled.push_str(&value),
                    None => return Err(format!("the broker's own environment has no {key}")),
                },
                _ => return Err("there is no user here: only ${env.KEY} can be used".to_owned()),
            }
        }
        Ok(filled)
    }

    /// What tells it from all others, without any value filled in; as secret as its file.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for piece in &self.pieces {
            let (kind, text) = match piece {
                Piece::Literal(text) => (0, text.as_str()),
                Piece::UserName => (1, ""),
                Piece::UserToken => (2, ""),
                Piece::UserEnv(key) => (3, key.as_str()),
                Piece::BrokerEnv(key) => (4, key.as_str()),
                Piece::UserSub => (5, ""),
                Piece::UserEmail => (6, ""),
            };
            bytes.push(kind);
            bytes.extend((text.len() as u64).to_be_bytes());
            bytes.extend(text.as_bytes());
        }
        bytes
    }

    /// Whether it has the user's own token in it.
    pub(crate) fn needs_token(&self) -> bool {
        self.pieces.contains(&Piece::UserToken)
    }

    /// The variables of the broker's own environment that this value needs.
    pub(super) fn broker_keys(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::BrokerEnv(key) => Some(key.as_str()),
            _ => None,
        })
    }
}

/// What can be said of any user.
const OF_USER: [&str; 4] = ["user.name", "user.token", "user.sub", "user.email"];

fn placeholder(name: &str) -> Result<Piece, String> {
    match name {
        "user.name" => return Ok(Piece::UserName),
        "user.token" => return Ok(Piece::UserToken),
        "user.sub" => return Ok(Piece::UserSub),
        "user.email" => return Ok(Piece::UserEmail),
        _ => {}
    }
    if let Some(key) = name
        .strip_prefix("user.env.")
        .filter(|key| auth::is_env_key(key))
    {
        return Ok(Piece::UserEnv(key.to_owned()));
    }
    if let Some(key) = name
        .strip_prefix("env.")
        .filter(|key| auth::is_env_key(key))
    {
        return Ok(Piece::BrokerEnv(key.to_owned()));
    }
    let shown = name.escape_debug(); // it may have line ends, or worse
    // MCP clients write `${KEY}` and `${env:KEY}`; here it must be said whose KEY is meant.
    let key = name.strip_prefix("env:").unwrap_or(name);
    let meant = match nearest(name, OF_USER) {
        Some(known) => known.to_owned(),
        None if auth::is_env_key(key) && !key.contains('.') => format!("env.{key}"),
        None => return Err(format!("unknown placeholder \"${{{shown}}}\"")),
    };
    Err(format!(
        "unknown placeholder \"${{{shown}}}\", did you mean \"${{{meant}}}\"?"
    ))
}

/// Says that there is a template, not what is in it: operators write passwords into configuration
/// files.
impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Template(..)")
    }
}

impl fmt::Debug for Filled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filled")
            .field("secret", &self.secret)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for MissingValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UserEnv { user, key } => write!(
                f,
                "user {user} has no env {key}: it is given by `token add NAME --env {key}=VALUE`"
            ),
            Self::UserToken { user } => {
                write!(
                    f,
                    "user {user} has no token to pass on: \
                     only sign-in provides ${{user.token}}, \
                     and of a static token the broker keeps only the hash"
                )
            }
            Self::UserEmail { user } => {
                write!(
                    f,
                    "user {user} has no email to pass on: \
                     ${{user.email}} is what the provider says of one who signed in"
                )
            }
            Self::BrokerEnv { key } => write!(f, "the broker's own environment has no {key}"),
        }
    }
}

impl std::error::Error for MissingValue {}

#[cfg(test)]
mod tests;
