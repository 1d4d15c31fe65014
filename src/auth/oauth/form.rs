//! Parameters of a query or a form, as RFC 6749 wants them read (appendix B and section 3.1): one
//! of each at most, an empty one counts as absent, unknown ones do not matter.

/// The longest query or body that is looked at, bytes.
const MAX_BYTES: usize = 32 << 10;
/// The most parameters that are looked at, known or not.
const MAX_PARAMETERS: usize = 64;

/// The longest value of an id, an address, or a state, bytes.
pub(super) const MAX_LONG: usize = 2 << 10;
/// The longest value of anything else, bytes.
pub(super) const MAX_SHORT: usize = 1 << 10;

/// The parameters of a known name, in their order.
pub(super) struct Form(Vec<(&'static str, String)>);

/// Why one parameter cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Twice,
    TooLong,
}

impl Form {
    /// `None` if there is too much of it to be looked at.
    pub(super) fn read(text: &str, known: &'static [&'static str]) -> Option<Self> {
        if text.len() > MAX_BYTES {
            return None;
        }
        let mut found = Vec::new();
        for (no, (name, value)) in form_urlencoded::parse(text.as_bytes()).enumerate() {
            if no >= MAX_PARAMETERS {
                return None;
            }
            if let Some(name) = known.iter().find(|known| **known == name) {
                found.push((*name, value.into_owned()));
            }
        }
        Some(Self(found))
    }

    /// Every value of a name, the empty ones too.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let of_name = self.0.iter().filter(move |(found, _)| *found == name);
        of_name.map(|(_, value)| value.as_str())
    }

    /// The one value of a name; `None` where it is empty or absent.
    pub(super) fn one(&self, name: &str, longest: usize) -> Result<Option<&str>, Fault> {
        let mut values = self.all(name);
        let first = values.next();
        if values.next().is_some() {
            return Err(Fault::Twice);
        }
        match first.filter(|value| !value.is_empty()) {
            Some(value) if value.len() > longest => Err(Fault::TooLong),
            value => Ok(value),
        }
    }
}

impl Fault {
    /// What follows the parameter's name in a sentence.
    pub(super) fn predicate(self) -> &'static str {
        match self {
            Self::Twice => "is there more than once",
            Self::TooLong => "is too long",
        }
    }
}
