//! What one guest said over the last hour: every answer of the last ten minutes, then one a minute.

use std::{collections::VecDeque, time::Duration};

use pool_api::GuestMetrics;

use crate::time::Micros;

/// Answers that are kept as they came.
const RECENT: usize = 120;
/// The time between answers that are kept longer.
const SPARSE: Duration = Duration::from_secs(60);
/// The age at which an answer is forgotten.
const OLDEST: Duration = Duration::from_secs(3600);

/// Answers, in the order of their times.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<GuestMetrics>);

fn at(sample: &GuestMetrics) -> Micros {
    sample.at.into()
}

impl History {
    /// Adds an answer. One that is no newer than the last is dropped, as after two asked at once.
    pub(super) fn add(&mut self, sample: GuestMetrics) {
        let now = at(&sample);
        if self.0.back().is_some_and(|last| at(last) >= now) {
            return;
        }
        self.0.push_back(sample);
        while self
            .0
            .front()
            .is_some_and(|first| at(first).after(OLDEST) < now)
        {
            self.0.pop_front();
        }
        // The one that has just ceased to be recent stays if the one before it is long ago.
        let Some(ceased) = self.0.len().checked_sub(RECENT + 1) else {
            return;
        };
        let Some(before) = ceased.checked_sub(1) else {
            return;
        };
        if let (Some(before), Some(sample)) = (self.0.get(before), self.0.get(ceased))
            && at(before).after(SPARSE) > at(sample)
        {
            self.0.remove(ceased);
        }
    }

    pub(super) fn latest(&self) -> Option<GuestMetrics> {
        self.0.back().cloned()
    }

    pub(super) fn between(&self, from: Micros, to: Micros) -> Vec<GuestMetrics> {
        let inside = |sample: &&GuestMetrics| (from..=to).contains(&at(sample));
        self.0.iter().filter(inside).cloned().collect()
    }
}

#[cfg(test)]
mod test {
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
    fn an_hour_is_kept_and_grows_sparse() {
        let mut history = History::default();
        for second in (0..8000).step_by(5) {
            history.add(sample(second));
            history.add(sample(second));
        }
        let all = history.between(Micros(0), Micros(i64::MAX));
        let seconds: Vec<i64> = all.iter().map(|sample| at(sample).seconds()).collect();
        let apart = |pair: &[i64]| pair[1] - pair[0];
        let (old, recent) = seconds.split_at(seconds.len() - RECENT);
        assert!(recent.windows(2).all(|pair| apart(pair) == 5), "{recent:?}");
        assert!(old.windows(2).all(|pair| apart(pair) >= 60), "{old:?}");
        assert!(seconds[0] >= 7995 - 3600 && seconds[0] < 7995 - 3500);
        assert!(seconds.len() < 180, "{}", seconds.len());
        assert_eq!(at(&history.latest().unwrap()).seconds(), 7995);
        let some = history.between(Micros(7_990_000_000), Micros(7_994_000_000));
        assert_eq!(some.len(), 1);
    }
}
