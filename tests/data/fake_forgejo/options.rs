//! The command line: who has an account, and what the one OAuth application is called.

use std::time::Duration;

/// Shown by `--help`.
pub(crate) const HELP: &str = "\
fake_forgejo: the sign-in side of a Forgejo, for tests; prints its URL as the first line

usage: fake_forgejo [OPTION]...

  --port N                  on 127.0.0.1; 0, a free one, is the default
  --user NAME[=GROUP,...]   an account, with its organizations (`org`) and teams (`org:team`);
                            repeatable; default: alice=friends,friends:owners and bob
  --client-id ID            of the one application, a confidential client (broker)
  --client-secret TEXT      (broker-secret)
  --redirect-uri URI        one of the application's; repeatable; see also /control
  --access-lifetime S       of access tokens, in seconds (3600)
  --refresh-lifetime S      of refresh tokens, in seconds (730 hours)
  --keep-refresh-tokens     INVALIDATE_REFRESH_TOKENS = false, as in Gitea
  --help                    print this

POST /control takes {\"do\": WHAT, ...} and answers with JSON:
  status                                  counts, and all grants
  events                                  what arrived, oldest first, and how it was answered
  forget_events
  fail      place, how, times (1), ms     the next requests at discovery, keys, authorize, exchange,
                                          refresh, userinfo, introspect or api go wrong: a status
                                          such as \"500\", hang (nothing for ms, then the connection
                                          ends), late (served at once, answered after ms), close,
                                          lose (served, and the answer lost), garbage
  mend                                    nothing goes wrong any more
  revoke    user                          the user takes the grant away
  expire    user                          all access tokens of the user are too old
  expire_refresh user                     all refresh tokens of the user are too old
  groups    user, groups                  other organizations and teams
  rename    user, to                      another name for the account; its id stays
  lifetime  seconds                       of access tokens from now on
  redirect_uri  uri                       one more for the application
";

/// What the command line asked for.
pub(crate) struct Options {
    pub(crate) port: u16,
    /// Names and their groups.
    pub(crate) users: Vec<(String, Vec<String>)>,
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
    pub(crate) redirect_uris: Vec<String>,
    pub(crate) access_lifetime: Duration,
    pub(crate) refresh_lifetime: Duration,
    /// `INVALIDATE_REFRESH_TOKENS`.
    pub(crate) invalidate: bool,
}

/// A command line that could be read.
pub(crate) enum Parsed {
    Run(Options),
    Help,
}

/// Reads the arguments that follow the program's name; the error is one line for stderr.
pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Parsed, String> {
    let mut options = Options {
        port: 0,
        users: Vec::new(),
        client_id: "broker".to_owned(),
        client_secret: "broker-secret".to_owned(),
        redirect_uris: Vec::new(),
        access_lifetime: Duration::from_secs(3600),
        refresh_lifetime: Duration::from_secs(730 * 3600),
        invalidate: true,
    };
    while let Some(flag) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{flag} takes a value"));
        match flag.as_str() {
            "--port" => options.port = number(&flag, &value()?)?,
            "--user" => options.users.push(user(&value()?)),
            "--client-id" => options.client_id = value()?,
            "--client-secret" => options.client_secret = value()?,
            "--redirect-uri" => options.redirect_uris.push(value()?),
            "--access-lifetime" => {
                options.access_lifetime = Duration::from_secs(number(&flag, &value()?)?);
            }
            "--refresh-lifetime" => {
                options.refresh_lifetime = Duration::from_secs(number(&flag, &value()?)?);
            }
            "--keep-refresh-tokens" => options.invalidate = false,
            "--help" => return Ok(Parsed::Help),
            _ => return Err(format!("unknown option {flag}")),
        }
    }
    if options.users.is_empty() {
        options.users = ["alice=friends,friends:owners", "bob"].map(user).to_vec();
    }
    Ok(Parsed::Run(options))
}

/// `NAME` or `NAME=GROUP,...`.
fn user(text: &str) -> (String, Vec<String>) {
    let (name, groups) = text.split_once('=').unwrap_or((text, ""));
    let groups = groups.split(',').filter(|group| !group.is_empty());
    (name.to_owned(), groups.map(str::to_owned).collect())
}

fn number<T: std::str::FromStr>(flag: &str, text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("{flag} {text}: not a number"))
}
