//! Reasons for which a machine ends.

use std::fmt;

/// The reason for which a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// The guest powered off or reset. A kernel panic resets.
    Guest,
    /// The host killed it, through [`crate::Machine::kill`] or by dropping it.
    Killed,
    /// The monitor stopped because of this error.
    Failed(String),
    /// The monitor's process ended without reporting a reason, with this status.
    Died(String),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guest => f.write_str("the guest powered off or reset"),
            Self::Killed => f.write_str("killed by the host"),
            Self::Failed(error) => write!(f, "the monitor failed: {error}"),
            Self::Died(status) => write!(f, "the monitor process died: {status}"),
        }
    }
}
