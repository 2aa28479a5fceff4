//! Makes what is counted with, and registers it.

use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
    core::Collector,
};

/// From a warm request's tens of microseconds to the longest wake, in seconds.
const BUCKETS: [f64; 18] = [
    0.00001, 0.000_05, 0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.25, 0.5, 1.0, 5.0, 15.0, 60.0,
];

/// A maker of things that a registry knows.
#[derive(Debug)]
pub(super) struct Make<'a>(pub(super) &'a Registry);

impl Make<'_> {
    pub(super) fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.known(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.known(IntCounter::new(name, help)?)
    }

    pub(super) fn gauges(
        &self,
        name: &str,
        help: &str,
        label: &str,
    ) -> Result<IntGaugeVec, prometheus::Error> {
        self.known(IntGaugeVec::new(Opts::new(name, help), &[label])?)
    }

    /// Times of stages.
    pub(super) fn times(&self, name: &str, help: &str) -> Result<HistogramVec, prometheus::Error> {
        let opts = HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
        self.known(HistogramVec::new(opts, &["stage"])?)
    }

    fn known<C: Collector + Clone + 'static>(&self, made: C) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(made.clone()))?;
        Ok(made)
    }
}
