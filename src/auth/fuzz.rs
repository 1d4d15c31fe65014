//! Fuzz target: the token in an `Authorization` field, against the grammar of RFC 6750 read from
//! its end.

use super::{AuthError, MAX_TOKEN_BYTES, bearer as token};
use crate::fuzz::input;

const SCHEME: &str = "bearer";

/// The value of a field.
pub(crate) fn bearer(data: &[u8]) {
    let value = input::text(data);
    let field = value.trim();
    let words: Vec<&str> = field.splitn(2, ' ').collect();
    let is_bearer = words
        .first()
        .is_some_and(|word| word.to_ascii_lowercase() == SCHEME);
    match token(Some(value)) {
        Ok(token) => {
            assert!(is_bearer && field.ends_with(token), "{value:?}");
            assert!(is_token(token), "{token:?}");
            let between = &field[SCHEME.len()..field.len() - token.len()];
            assert!(
                !between.is_empty() && between.trim().is_empty(),
                "{value:?}"
            );
            assert_eq!(super::bearer(Some(&format!("Bearer {token}"))), Ok(token));
        }
        Err(AuthError::Missing) => assert!(!is_bearer, "{value:?}"),
        Err(_) => {
            let rest = words.get(1).copied().unwrap_or_default();
            assert!(is_bearer && !is_token(rest.trim_start()), "{value:?}");
        }
    }
    assert_eq!(token(None), Err(AuthError::Missing));
}

/// `1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="`
fn is_token(text: &str) -> bool {
    let of_grammar = |c: char| c.is_ascii_alphanumeric() || "-._~+/".contains(c);
    let end = text.find(|c| !of_grammar(c)).unwrap_or(text.len());
    let (characters, padding) = text.split_at(end);
    !characters.is_empty() && padding.chars().all(|c| c == '=') && text.len() <= MAX_TOKEN_BYTES
}
