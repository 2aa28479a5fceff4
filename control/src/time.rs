//! Instants as the wire and the ledger have them: whole microseconds, UTC.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jiff::Timestamp;
use serde::{Serialize, Serializer};

/// Microseconds since 1970, UTC. Written as RFC 3339 with six digits, the same from every route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Micros(pub(crate) i64);

impl Micros {
    /// Now, by the wall clock.
    pub(crate) fn now() -> Self {
        SystemTime::now().into()
    }

    /// Later by `by`, or the end of time.
    pub(crate) fn after(self, by: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)),
        )
    }

    /// How long until then from `now`; zero when it is past.
    pub(crate) fn until(self, now: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(now.0)).unwrap_or(0))
    }

    /// Reads RFC 3339, dropping what is finer than a microsecond.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let time: Timestamp = text.parse().ok()?;
        Some(Self(time.as_microsecond()))
    }
}

impl From<SystemTime> for Micros {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Out of range only when the ledger was written by somebody else.
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
mod test {
    use super::*;

    #[test]
    fn microseconds_survive_the_wire() {
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
    }
}
