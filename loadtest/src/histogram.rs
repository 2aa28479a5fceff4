//! A distribution of durations.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Durations, kept to three digits.
#[derive(Debug)]
pub(crate) struct Record {
    nanos: Histogram<u64>,
}

impl Record {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            nanos: Histogram::new(3)?,
        })
    }

    pub(crate) fn add(&mut self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
        // A histogram that sizes itself takes any value.
        self.nanos.record(nanos).unwrap_or_default();
    }

    /// Measures `act` so many times.
    pub(crate) fn of(
        count: u32,
        mut act: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let mut record = Self::new()?;
        for _ in 0..count {
            let begun = Instant::now();
            act()?;
            record.add(begun.elapsed());
        }
        Ok(record)
    }

    pub(crate) fn p50(&self) -> Duration {
        self.quantile(0.5)
    }

    pub(crate) fn p99(&self) -> Duration {
        self.quantile(0.99)
    }

    pub(crate) fn count(&self) -> u64 {
        self.nanos.len()
    }

    fn quantile(&self, at: f64) -> Duration {
        Duration::from_nanos(self.nanos.value_at_quantile(at))
    }
}
