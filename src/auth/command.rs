//! `mcp-broker token add | list | revoke`: the operator's hand on the token file. Everything it
//! needs is handed to it, so that it runs in a test as it runs in a shell.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::tokens::{TokenError, TokenRecord, TokenStore, seconds};

/// What is to be done with the tokens.
#[cfg_attr(test, derive(Debug, PartialEq))] // elsewhere nothing prints it: `env` is secret
pub(crate) enum TokenAction {
    Add {
        name: String,
        /// A key without a value has that of the environment.
        env: Vec<(String, Option<String>)>,
        /// From now. `None`: it never expires.
        expires: Option<Duration>,
    },
    List,
    Revoke {
        name: String,
    },
}

/// Does it, and writes what there is to see to `out`: the new token and nothing else, or the list,
/// or nothing.
pub(crate) fn run_token_command(
    action: TokenAction,
    state_dir: &Path,
    variable: &dyn Fn(&str) -> Option<String>,
    now: SystemTime,
    out: &mut dyn Write,
) -> Result<(), TokenError> {
    let store = TokenStore::open(state_dir)?;
    let written = match action {
        TokenAction::Add { name, env, expires } => {
            let token = store.add(&name, values(env, variable)?, expires, now)?;
            writeln!(out, "{token}")
        }
        TokenAction::List => print_list(&store.list()?, now, out),
        TokenAction::Revoke { name } => {
            store.revoke(&name)?;
            Ok(())
        }
    };
    written
        .and_then(|()| out.flush())
        .map_err(TokenError::Output)
}

fn values(
    env: Vec<(String, Option<String>)>,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>, TokenError> {
    let mut by_key = BTreeMap::new();
    for (key, value) in env {
        let value = value.or_else(|| variable(&key));
        let value = value.ok_or(TokenError::NoVariable)?;
        if by_key.insert(key.clone(), value).is_some() {
            return Err(TokenError::BadEnv {
                key,
                why: "is given twice",
            });
        }
    }
    Ok(by_key)
}

/// One line a token: name, the days it was made and ends, and the keys of its environment. No
/// value, no hash.
fn print_list(records: &[TokenRecord], now: SystemTime, out: &mut dyn Write) -> io::Result<()> {
    let width = records
        .iter()
        .map(|record| record.name.len())
        .fold("NAME".len(), usize::max);
    writeln!(
        out,
        "{:width$}  {:20}  {:20}  ENV",
        "NAME", "CREATED", "EXPIRES"
    )?;
    for record in records {
        let expires = match record.expires {
            Some(time) if time <= now => "expired".to_owned(),
            Some(time) => utc(time),
            None => "never".to_owned(),
        };
        let keys: Vec<&str> = record.env.keys().map(String::as_str).collect();
        let keys = if keys.is_empty() {
            "-".to_owned()
        } else {
            keys.join(",")
        };
        writeln!(
            out,
            "{:width$}  {:20}  {expires:20}  {keys}",
            record.name,
            utc(record.created)
        )?;
    }
    Ok(())
}

/// RFC 3339, in UTC and whole seconds. Counts whole spans of the Gregorian calendar off, the year
/// beginning in March so that the leap day is its last.
pub(super) fn utc(time: SystemTime) -> String {
    const DAYS_TO_1970: u64 = 719_468; // from 0000-03-01
    let (days, second) = (
        seconds(time) / 86_400 + DAYS_TO_1970,
        seconds(time) % 86_400,
    );
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_dates() {
        let check = |at: u64, expected: &str| {
            assert_eq!(
                utc(SystemTime::UNIX_EPOCH + Duration::from_secs(at)),
                expected
            )
        };
        check(0, "1970-01-01T00:00:00Z");
        check(68_169_599, "1972-02-28T23:59:59Z");
        check(68_169_600, "1972-02-29T00:00:00Z");
        check(951_782_400, "2000-02-29T00:00:00Z");
        check(951_868_800, "2000-03-01T00:00:00Z");
        check(1_735_689_599, "2024-12-31T23:59:59Z");
        check(4_107_542_400, "2100-03-01T00:00:00Z");
    }
}
