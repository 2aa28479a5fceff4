//! Waiting of a disk's writes for space on the host.
//!
//! A write that finds the host's filesystem full stays in its queue and is tried again for a while; the device does not
//! process later requests meanwhile. The guest runs on and sees a slow disk. A machine that is paused or captured has
//! the write in its queue, and tries it again after a resume or a load.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::event::{EventfdFlags, eventfd};

/// The time for which a write waits before it fails.
const LIMIT: Duration = Duration::from_secs(30);

/// The state of a disk's writes.
#[derive(Debug)]
pub(super) struct SpaceWait {
    phase: Phase,
    /// Becomes readable when a write begins to wait.
    begun: OwnedFd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Writes succeed.
    Space,
    /// A write waits, until then from the first retry on.
    Waiting { until: Option<Instant> },
    /// A write is tried again.
    Retrying { until: Instant },
    /// A write has waited in vain. Writes fail at once until one succeeds.
    Expired,
}

impl SpaceWait {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            phase: Phase::Space,
            begun: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Duplicates the descriptor that becomes readable when a write begins to wait.
    pub(super) fn begun(&self) -> io::Result<OwnedFd> {
        self.begun.as_fd().try_clone_to_owned()
    }

    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Waiting { .. })
    }

    /// Records a write that found no space; returns whether it waits.
    pub(super) fn no_space(&mut self) -> bool {
        let until = match self.phase {
            Phase::Expired => return false,
            Phase::Space => None,
            Phase::Waiting { until } => until,
            Phase::Retrying { until } => Some(until),
        };
        if self.phase == Phase::Space {
            tracing::warn!("disk write waits for space on the host");
            if let Err(error) = rustix::io::write(&self.begun, &1_u64.to_ne_bytes()) {
                tracing::error!(error = %error_chain::chain(&error), "failed to announce waiting write");
                return false;
            }
        }
        self.phase = Phase::Waiting { until };
        true
    }

    /// Records a write that succeeded.
    pub(super) fn written(&mut self) {
        self.phase = Phase::Space;
    }

    /// Begins to try the waiting write again, for the last time when it has waited long enough.
    pub(super) fn begin_retry(&mut self, now: Instant) {
        if let Phase::Waiting { until } = self.phase {
            let until = until.unwrap_or(now + LIMIT);
            self.phase = if now < until {
                Phase::Retrying { until }
            } else {
                Phase::Expired
            };
        }
    }

    /// Ends a retry that found no write to try.
    pub(super) fn end_retry(&mut self) {
        if matches!(self.phase, Phase::Retrying { .. }) {
            self.phase = Phase::Space;
        }
    }

    /// Forgets the waiting write, because the driver reset the device.
    pub(super) fn reset(&mut self) {
        self.phase = Phase::Space;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_without_space_waits_for_the_limit() {
        let mut wait = SpaceWait::new().unwrap();
        let start = Instant::now();
        assert!(wait.no_space() && wait.is_waiting());
        for seconds in [0, 1, 29] {
            wait.begin_retry(start + Duration::from_secs(seconds));
            assert!(!wait.is_waiting(), "the retry would be ignored");
            assert!(wait.no_space(), "{seconds}");
        }
        wait.begin_retry(start + LIMIT);
        assert!(!wait.no_space() && !wait.no_space());
        wait.written();
        assert!(wait.no_space(), "a write that succeeded begins anew");
        wait.begin_retry(start + LIMIT);
        assert!(wait.no_space());
    }

    #[test]
    fn event_is_set_once_for_each_wait() {
        let mut wait = SpaceWait::new().unwrap();
        let event = wait.begun().unwrap();
        let mut count = [0; 8];
        wait.no_space();
        wait.begin_retry(Instant::now());
        wait.no_space();
        assert_eq!(rustix::io::read(&event, &mut count).unwrap(), 8);
        assert_eq!(u64::from_ne_bytes(count), 1);
        assert!(rustix::io::read(&event, &mut count).is_err());
        // The driver has replaced the write by another request.
        wait.begin_retry(Instant::now());
        wait.end_retry();
        wait.no_space();
        assert_eq!(rustix::io::read(&event, &mut count).unwrap(), 8);
    }
}
