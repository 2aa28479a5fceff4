//! Instants as the wire and the ledger have them: whole microseconds, UTC; and how long a sandbox is given.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jiff::Timestamp;
use serde::{Serialize, Serializer};

/// Microseconds since 1970, UTC. Written as RFC 3339 with six digits, the same from every route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Micros(pub(crate) i64);

/// How long a sandbox is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Window {
    /// So long.
    For(Duration),
    /// It has no end.
    Never,
}

impl Window {
    /// When a sandbox that started at `started` and is given this now ends. No life is longer than `longest`, but one
    /// that has no end.
    pub(crate) fn end(self, started: Micros, now: Micros, longest: Duration) -> Micros {
        match self {
            Self::For(span) => now.after(span).min(started.after(longest)),
            Self::Never => Micros::NEVER,
        }
    }

    /// This, or `least` if that is longer; `longest` at most.
    pub(crate) fn clamp(self, least: Duration, longest: Duration) -> Self {
        match self {
            Self::For(span) => Self::For(span.max(least).min(longest)),
            Self::Never => Self::Never,
        }
    }
}

impl Micros {
    /// The end of what has no end: the last second that the wire can say.
    pub(crate) const NEVER: Self = Self(253_402_300_799_000_000);

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

    /// Earlier by `by`.
    pub(crate) fn before(self, by: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)),
        )
    }

    /// Whole milliseconds since 1970.
    pub(crate) fn millis(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Whole seconds since 1970.
    pub(crate) fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
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
        if *self == Self::NEVER {
            // Clients compare the text, and it is beyond what `Timestamp` holds.
            return f.write_str("9999-12-31T23:59:59Z");
        }
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
    fn windows_end_with_the_longest_life() {
        let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(86_400));
        let (started, now) = (Micros(0), Micros(0).after(day - hour / 2));
        assert_eq!(Window::For(hour).end(now, now, day), now.after(hour));
        assert_eq!(
            Window::For(hour).end(started, now, day),
            Micros(0).after(day)
        );
        assert_eq!(Window::Never.end(started, now, day), Micros::NEVER);
        assert_eq!(Window::For(hour).clamp(day * 2, day), Window::For(day));
        assert_eq!(Window::Never.clamp(hour, day), Window::Never);
    }

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
        assert_eq!(Micros::NEVER.to_string(), "9999-12-31T23:59:59Z");
    }
}
