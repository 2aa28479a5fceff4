//! Violations of rules.

use std::fmt;

/// The place and the description of a broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Violation {
    place: String,
    message: String,
}

impl Violation {
    /// A violation by a whole file or crate.
    pub(super) fn of(place: &str, message: impl Into<String>) -> Self {
        Self {
            place: place.to_owned(),
            message: message.into(),
        }
    }

    /// A violation on one line of a file.
    pub(super) fn at(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self {
            place: format!("{path}:{line}"),
            message: message.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}
