//! Exponential back-off after failures of one operation.

use std::time::Duration;

use tokio::time::Instant;

/// The time before the next attempt of an operation that failed. The first failure may be repeated at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    last: Duration,
    failures: u32,
    until: Option<Instant>,
}

impl Backoff {
    /// The back-off of wakes.
    pub(crate) fn of_wakes() -> Self {
        Self::new(Duration::from_secs(1), Duration::from_secs(60))
    }

    /// The back-off of idle pauses: each writes a snapshot.
    pub(crate) fn of_pauses() -> Self {
        Self::new(Duration::from_secs(5), Duration::from_secs(600))
    }

    fn new(first: Duration, last: Duration) -> Self {
        Self {
            first,
            last,
            failures: 0,
            until: None,
        }
    }

    /// Records a failure.
    pub(crate) fn failed(&mut self, now: Instant) {
        let doublings = self.failures.saturating_sub(1).min(16);
        self.until =
            (self.failures > 0).then(|| now + self.last.min(self.first * (1 << doublings)));
        self.failures = self.failures.saturating_add(1);
    }

    /// Records a success.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
        self.until = None;
    }

    /// Returns the seconds until the next attempt, rounded up; `None` when it is due.
    pub(crate) fn remaining_secs(&self, now: Instant) -> Option<u32> {
        let remaining = self.until?.checked_duration_since(now)?;
        let secs = remaining.as_secs() + u64::from(remaining.subsec_nanos() > 0);
        (secs > 0).then(|| u32::try_from(secs).unwrap_or(u32::MAX))
    }

    /// Returns the time of the next attempt, if it is not due at once.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn delays_double_up_to_the_last_until_a_success() {
        let mut backoff = Backoff::of_wakes();
        let now = Instant::now();
        let mut delays = Vec::new();
        for _ in 0..9 {
            backoff.failed(now);
            delays.push(backoff.remaining_secs(now).unwrap_or(0));
        }
        assert_eq!(delays, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
        let until_end = |millis: u64| now + Duration::from_millis(60_000 - millis);
        assert_eq!(backoff.remaining_secs(until_end(1)), Some(1));
        assert_eq!(backoff.remaining_secs(until_end(1001)), Some(2));
        assert_eq!(backoff.remaining_secs(until_end(0)), None);
        backoff.succeeded();
        assert_eq!(backoff.remaining_secs(now), None);
    }
}
