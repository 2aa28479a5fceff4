//! Distribution of durations.

use std::time::{Duration, Instant};

/// Distribution of durations, with three significant digits.
#[derive(Debug)]
pub(crate) struct Histogram {
    nanos: hdrhistogram::Histogram<u64>,
}

impl Histogram {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            nanos: hdrhistogram::Histogram::new(3)?,
        })
    }

    pub(crate) fn add(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos())
            .unwrap_or(u64::MAX)
            .max(1);
        // An auto-resizing histogram accepts any value.
        self.nanos.record(nanos).unwrap_or_default();
    }

    /// Measures `count` calls of `operation`.
    pub(crate) fn measure(
        count: u32,
        mut operation: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let mut histogram = Self::new()?;
        for _ in 0..count {
            let started = Instant::now();
            operation()?;
            histogram.add(started.elapsed());
        }
        Ok(histogram)
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

    fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.nanos.value_at_quantile(quantile))
    }
}
