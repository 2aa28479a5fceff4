//! Samples of one guest over the last hour: all of the last ten minutes, then one per minute.

use std::{collections::VecDeque, time::Duration};

use pool_api::GuestMetrics;

use crate::time::Micros;

/// Samples at full resolution.
const FULL_RESOLUTION: usize = 120;
/// The time between older samples.
const SPARSE_INTERVAL: Duration = Duration::from_secs(60);
/// The age at which a sample is dropped.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// Samples in chronological order.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<GuestMetrics>);

fn at(sample: &GuestMetrics) -> Micros {
    sample.at.into()
}

impl History {
    /// Appends a sample. Drops it if it is not newer than the latest, as after two concurrent polls.
    pub(super) fn push(&mut self, sample: GuestMetrics) {
        let now = at(&sample);
        if self.0.back().is_some_and(|last| at(last) >= now) {
            return;
        }
        self.0.push_back(sample);
        while self
            .0
            .front()
            .is_some_and(|first| at(first).after(MAX_AGE) < now)
        {
            self.0.pop_front();
        }
        self.thin();
    }

    /// Drops the newest sample beyond full resolution if it is too close to the one before it.
    fn thin(&mut self) {
        let Some(index) = self.0.len().checked_sub(FULL_RESOLUTION + 1) else {
            return;
        };
        let Some(previous) = index.checked_sub(1) else {
            return;
        };
        if let (Some(previous), Some(sample)) = (self.0.get(previous), self.0.get(index))
            && at(previous).after(SPARSE_INTERVAL) > at(sample)
        {
            self.0.remove(index);
        }
    }

    /// The latest sample.
    pub(super) fn latest(&self) -> Option<GuestMetrics> {
        self.0.back().cloned()
    }

    /// The samples between two instants, inclusive.
    pub(super) fn range(&self, from: Micros, to: Micros) -> Vec<GuestMetrics> {
        let inside = |sample: &&GuestMetrics| (from..=to).contains(&at(sample));
        self.0.iter().filter(inside).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn sample(second: u64) -> GuestMetrics {
        GuestMetrics {
            at: UNIX_EPOCH + Duration::from_secs(second),
            cpus: 1,
            cpu_used_pct: 0.0,
            memory_used: 0,
            memory_total: 0,
            memory_cache: 0,
            disk_used: 0,
            disk_total: 0,
        }
    }

    #[test]
    fn history_covers_an_hour_and_thins_older_samples() {
        let mut history = History::default();
        for second in (0..8000).step_by(5) {
            history.push(sample(second));
            history.push(sample(second));
        }
        let all = history.range(Micros(0), Micros(i64::MAX));
        let seconds: Vec<i64> = all.iter().map(|sample| at(sample).seconds()).collect();
        let apart = |pair: &[i64]| pair[1] - pair[0];
        let (old, recent) = seconds.split_at(seconds.len() - FULL_RESOLUTION);
        assert!(recent.windows(2).all(|pair| apart(pair) == 5), "{recent:?}");
        assert!(old.windows(2).all(|pair| apart(pair) >= 60), "{old:?}");
        assert!(seconds[0] >= 7995 - 3600 && seconds[0] < 7995 - 3500);
        assert!(seconds.len() < 180, "{}", seconds.len());
        assert_eq!(at(&history.latest().unwrap()).seconds(), 7995);
        let some = history.range(Micros(7_990_000_000), Micros(7_994_000_000));
        assert_eq!(some.len(), 1);
    }
}
