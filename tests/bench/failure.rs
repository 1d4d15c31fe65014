//! What ends a run of the bench: one line that says where and why. Used by every other file here,
//! uses none.

use std::fmt::{self, Display};

/// Why the bench stopped.
#[derive(Debug)]
pub(crate) struct Failure(String);

/// What everything here returns that can go wrong.
pub(crate) type Outcome<T> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Says where an error came from.
pub(crate) trait Context<T> {
    fn at(self, place: &dyn Display) -> Outcome<T>;
}

impl<T, E: Display> Context<T> for Result<T, E> {
    fn at(self, place: &dyn Display) -> Outcome<T> {
        self.map_err(|error| Failure(format!("{place}: {error}")))
    }
}
