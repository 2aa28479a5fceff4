//! Panics of this process, counted and logged.
//!
//! A panic ends the request or the sandbox in whose task it happens; the process continues.

use std::panic::{self, PanicHookInfo};

use prometheus::IntCounter;
use tracing::error;

/// Counts panics as `catnap_panics_total`. Clones share one count.
#[derive(Debug, Clone)]
pub struct PanicCounter(IntCounter);

impl PanicCounter {
    /// Creates a counter at zero.
    pub fn new() -> Result<Self, prometheus::Error> {
        let help = "Panics; each ended a request or an operation on a sandbox.";
        Ok(Self(IntCounter::new("catnap_panics_total", help)?))
    }

    /// Counts and logs every panic of this process from now on, in place of the default report.
    pub fn install_hook(&self) {
        let count = self.0.clone();
        panic::set_hook(Box::new(move |panic| {
            count.inc();
            let location = panic.location().map(ToString::to_string);
            error!(location, message = message(panic), "gateway panicked");
        }));
    }

    pub(crate) fn metric(&self) -> &IntCounter {
        &self.0
    }
}

fn message<'a>(panic: &'a PanicHookInfo<'_>) -> &'a str {
    panic.payload_as_str().unwrap_or("")
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn panics_are_counted_in_the_metrics() {
        let panics = PanicCounter::new().unwrap();
        let metrics = Metrics::new().unwrap();
        metrics.add_panics(&panics).unwrap();
        panics.install_hook();
        let ended = thread::spawn(|| panic!("on purpose")).join();
        drop(panic::take_hook());
        assert!(ended.is_err());
        let text = String::from_utf8(metrics.render(&[]).unwrap()).unwrap();
        assert!(text.contains("\ncatnap_panics_total 1\n"), "{text}");
    }
}
