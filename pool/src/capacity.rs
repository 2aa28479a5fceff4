//! Admission: memory and machine slots of this host, reserved before any work.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, futures::Notified};

/// The machines that may run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Total guest memory in bytes.
    pub memory: u64,
    /// Number of machines.
    pub machines: usize,
}

/// The share of a paused sandbox's memory that others may use, from 0 to 1.
///
/// At 1, the default, paused sandboxes reserve nothing, and a wake may find the host full. At 0 they keep their memory, and
/// no wake is refused for lack of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReleaseRatio(f64);

/// The capacity of this host.
#[derive(Debug)]
pub(crate) struct Capacity {
    limits: Limits,
    paused_release: ReleaseRatio,
    used: Mutex<Used>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Used {
    memory: u64,
    machines: usize,
    /// The machines that an idle pause can free.
    evictable: usize,
}

/// Memory and a slot for one machine, freed when dropped.
#[derive(Debug)]
#[must_use = "the capacity is free as soon as the reservation is dropped"]
pub(crate) struct Reservation {
    capacity: Arc<Capacity>,
    memory: u64,
    evictable: bool,
}

/// The memory that a sandbox keeps while it is paused, freed when dropped. Its machine reserves the rest.
#[derive(Debug)]
#[must_use = "the memory is free as soon as the share is dropped"]
pub(crate) struct KeptShare {
    capacity: Arc<Capacity>,
    pub(crate) memory: u64,
}

/// The capacity that one machine reserves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Demand {
    /// Bytes, without those that its sandbox keeps.
    pub(crate) memory: u64,
    /// Bytes that its sandbox has kept while it was paused.
    pub(crate) kept: u64,
    /// Its sandbox has an idle window.
    pub(crate) evictable: bool,
}

/// The host has no capacity; names the resource that is short.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no room on this host: {0}")]
pub(crate) struct NoRoom(pub(crate) String);

// === impl Demand ===

impl Demand {
    /// A machine that belongs to no sandbox.
    pub(crate) fn of_memory(memory: u64) -> Self {
        Self {
            memory,
            kept: 0,
            evictable: false,
        }
    }
}

// === impl ReleaseRatio ===

impl ReleaseRatio {
    /// Limits a number to the range; what is not a number is 0, with which no wake is refused.
    pub fn clamped(ratio: f64) -> Self {
        if ratio.is_nan() {
            return Self(0.0);
        }
        Self(ratio.clamp(0.0, 1.0))
    }

    /// Returns the bytes of `memory` that a paused sandbox keeps.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "memory is below 2^52 bytes, and the product is between 0 and it"
    )]
    fn kept(self, memory: u64) -> u64 {
        memory.saturating_sub((memory as f64 * self.0) as u64)
    }
}

impl Default for ReleaseRatio {
    fn default() -> Self {
        Self(1.0)
    }
}

// === impl Capacity ===

impl Capacity {
    pub(crate) fn new(limits: Limits, paused_release: ReleaseRatio) -> Self {
        Self {
            limits,
            paused_release,
            used: Mutex::new(Used::default()),
            freed: Notify::new(),
        }
    }

    /// Completes when a reservation is dropped after this call.
    pub(crate) fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }

    /// Returns whether a machine of this size fits on the host without others.
    pub(crate) fn fits_when_empty(&self, memory: u64) -> bool {
        self.limits.machines > 0 && memory <= self.limits.memory
    }

    /// Returns whether an idle pause can free what a start lacks: memory, or the slot of a machine.
    pub(crate) fn has_evictable(&self) -> bool {
        let used = self.used.lock();
        let frees_memory = self.paused_release != ReleaseRatio(0.0);
        used.evictable > 0 && (frees_memory || used.machines >= self.limits.machines)
    }

    /// Reserves the share of a sandbox that exists: it is counted even if that exceeds the limit.
    pub(crate) fn keep(self: &Arc<Self>, memory: u64) -> KeptShare {
        let memory = self.paused_release.kept(memory);
        self.used.lock().memory += memory;
        KeptShare {
            capacity: Arc::clone(self),
            memory,
        }
    }

    /// Reserves capacity for a machine.
    pub(crate) fn reserve(self: &Arc<Self>, demand: Demand) -> Result<Reservation, NoRoom> {
        let Demand {
            memory,
            kept,
            evictable,
        } = demand;
        let mut used = self.used.lock();
        if used.machines >= self.limits.machines {
            return Err(NoRoom(format!(
                "{} of {} machines are running",
                used.machines, self.limits.machines
            )));
        }
        let total = used.memory.saturating_add(memory);
        if total > self.limits.memory {
            let mib = |bytes: u64| bytes >> 20;
            if kept > 0 {
                return Err(NoRoom(format!(
                    "resume rejected by paused_resource_release_ratio policy: need {} MiB > quota {} MiB",
                    mib(total),
                    mib(self.limits.memory),
                )));
            }
            return Err(NoRoom(format!(
                "{} MiB of guest memory are needed, {} of {} MiB are free",
                mib(memory),
                mib(self.limits.memory.saturating_sub(used.memory)),
                mib(self.limits.memory),
            )));
        }
        used.memory = total;
        used.machines += 1;
        used.evictable += usize::from(evictable);
        Ok(Reservation {
            capacity: Arc::clone(self),
            memory,
            evictable,
        })
    }
}

// === impl Reservation ===

impl Reservation {
    /// Splits off the share that the sandbox keeps while it is paused.
    pub(crate) fn split_kept(&mut self) -> KeptShare {
        let memory = self.capacity.paused_release.kept(self.memory);
        self.memory -= memory;
        KeptShare {
            capacity: Arc::clone(&self.capacity),
            memory,
        }
    }
}

impl Drop for KeptShare {
    fn drop(&mut self) {
        self.capacity.used.lock().memory -= self.memory;
        self.capacity.freed.notify_waiters();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut used = self.capacity.used.lock();
        used.memory -= self.memory;
        used.machines -= 1;
        used.evictable -= usize::from(self.evictable);
        drop(used);
        self.capacity.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn capacity(ratio: f64) -> Arc<Capacity> {
        let limits = Limits {
            memory: 3 * MIB,
            machines: 2,
        };
        Arc::new(Capacity::new(limits, ReleaseRatio::clamped(ratio)))
    }

    #[test]
    fn admission_error_names_the_resource_and_drop_frees_it() {
        let capacity = capacity(1.0);
        let first = capacity.reserve(Demand::of_memory(2 * MIB)).unwrap();
        let error = capacity.reserve(Demand::of_memory(2 * MIB)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no room on this host: 2 MiB of guest memory are needed, 1 of 3 MiB are free"
        );
        let _second = capacity.reserve(Demand::of_memory(MIB)).unwrap();
        assert_eq!(
            capacity
                .reserve(Demand::of_memory(0))
                .unwrap_err()
                .to_string(),
            "no room on this host: 2 of 2 machines are running"
        );
        drop(first);
        capacity
            .reserve(Demand::of_memory(2 * MIB))
            .map(drop)
            .unwrap();
    }

    #[test]
    fn release_ratio_is_clamped() {
        for (ratio, kept) in [
            (-1.0, 8),
            (0.0, 8),
            (0.25, 6),
            (1.0, 0),
            (f64::INFINITY, 0),
            (f64::NEG_INFINITY, 8),
            (f64::NAN, 8),
        ] {
            assert_eq!(ReleaseRatio::clamped(ratio).kept(8), kept, "{ratio}");
        }
        assert_eq!(ReleaseRatio::default().kept(u64::MAX), 0);
    }

    #[test]
    fn paused_sandbox_keeps_its_share() {
        let capacity = capacity(0.5);
        let mut reservation = capacity.reserve(Demand::of_memory(2 * MIB)).unwrap();
        let share = reservation.split_kept();
        assert_eq!(share.memory, MIB);
        drop(reservation);
        assert!(capacity.reserve(Demand::of_memory(3 * MIB)).is_err());
        let other = capacity.reserve(Demand::of_memory(2 * MIB)).unwrap();
        let wake = Demand {
            kept: share.memory,
            ..Demand::of_memory(MIB)
        };
        assert_eq!(
            capacity.reserve(wake).unwrap_err().0,
            "resume rejected by paused_resource_release_ratio policy: need 4 MiB > quota 3 MiB"
        );
        drop(other);
        capacity.reserve(wake).map(drop).unwrap();
        drop(share);
        capacity
            .reserve(Demand::of_memory(3 * MIB))
            .map(drop)
            .unwrap();
    }

    #[test]
    fn pauses_that_free_no_memory_are_not_worth_an_eviction() {
        let capacity = capacity(0.0);
        let evictable = Demand {
            evictable: true,
            ..Demand::of_memory(MIB)
        };
        let first = capacity.reserve(evictable).unwrap();
        assert!(!capacity.has_evictable());
        let second = capacity.reserve(evictable).unwrap();
        assert!(capacity.has_evictable(), "no slot is free");
        drop((first, second));
    }
}
