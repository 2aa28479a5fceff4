//! Instants in whole microseconds, and lifetimes of sandboxes.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jiff::Timestamp;
use serde::{Serialize, Serializer};

/// Microseconds since 1970, UTC. Displayed as RFC 3339 with six fractional digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Micros(pub(crate) i64);

/// The time that a caller requests for a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// A limited time.
    For(Duration),
    /// No deadline.
    Unlimited,
}

// === impl Lifetime ===

impl Lifetime {
    /// The deadline of a lifetime that begins at `start`.
    pub(crate) fn deadline(self, start: Micros) -> Micros {
        match self {
            Self::For(span) => start.after(span),
            Self::Unlimited => Micros::NEVER,
        }
    }

    /// Limits the lifetime to `max`. An unlimited one stays unlimited.
    pub(crate) fn at_most(self, max: Duration) -> Self {
        match self {
            Self::For(span) => Self::For(span.min(max)),
            Self::Unlimited => Self::Unlimited,
        }
    }

    /// Raises the lifetime to `min`.
    pub(crate) fn at_least(self, min: Duration) -> Self {
        match self {
            Self::For(span) => Self::For(span.max(min)),
            Self::Unlimited => Self::Unlimited,
        }
    }
}

// === impl Micros ===

impl Micros {
    /// The deadline of an unlimited lifetime: the last second that RFC 3339 can express.
    pub(crate) const NEVER: Self = Self(253_402_300_799_000_000);

    /// The current wall-clock time.
    pub(crate) fn now() -> Self {
        SystemTime::now().into()
    }

    /// Adds a duration, saturating.
    pub(crate) fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(whole_micros(by)))
    }

    /// Subtracts a duration, saturating.
    pub(crate) fn before(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(whole_micros(by)))
    }

    /// Whole milliseconds since 1970.
    pub(crate) fn millis(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Whole seconds since 1970.
    pub(crate) fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// The duration from `now` to this instant; zero if it is past.
    pub(crate) fn until(self, now: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(now.0)).unwrap_or(0))
    }

    /// Parses RFC 3339, truncating to microseconds.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let time: Timestamp = text.parse().ok()?;
        Some(Self(time.as_microsecond()))
    }
}

/// A duration in microseconds, saturating.
pub(crate) fn whole_micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl From<SystemTime> for Micros {
    fn from(time: SystemTime) -> Self {
        Self(whole_micros(
            time.duration_since(UNIX_EPOCH).unwrap_or_default(),
        ))
    }
}

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NEVER {
            // Clients compare the text, and the value is out of `Timestamp`'s range.
            return f.write_str("9999-12-31T23:59:59Z");
        }
        // Out of range only if another program wrote the ledger.
        let time = Timestamp::from_microsecond(self.0).unwrap_or(Timestamp::MAX);
        write!(f, "{time:.6}")
    }
}

impl Serialize for Micros {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limited_lifetimes_are_clamped_and_unlimited_ones_are_not() {
        let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(86_400));
        let start = Micros(5);
        assert_eq!(Lifetime::For(hour).deadline(start), start.after(hour));
        assert_eq!(Lifetime::Unlimited.deadline(start), Micros::NEVER);
        assert_eq!(Lifetime::For(day).at_most(hour), Lifetime::For(hour));
        assert_eq!(Lifetime::For(hour).at_most(day), Lifetime::For(hour));
        assert_eq!(Lifetime::For(hour).at_least(day), Lifetime::For(day));
        assert_eq!(
            Lifetime::Unlimited.at_least(hour).at_most(day),
            Lifetime::Unlimited
        );
    }

    #[test]
    fn rfc3339_text_round_trips_to_the_microsecond() {
        for micros in [0, 1_763_775_311_872_215, 1_763_775_311_000_000] {
            let text = Micros(micros).to_string();
            assert_eq!(Micros::parse(&text), Some(Micros(micros)), "{text}");
        }
        assert_eq!(
            Micros(1_763_775_311_872_215).to_string(),
            "2025-11-22T01:35:11.872215Z"
        );
        assert_eq!(
            Micros(1_763_775_311_000_000).to_string(),
            "2025-11-22T01:35:11.000000Z"
        );
        assert_eq!(Micros::parse("yesterday"), None);
        assert_eq!(Micros::NEVER.to_string(), "9999-12-31T23:59:59Z");
    }
}
