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

/// The capacity of this host.
#[derive(Debug)]
pub(crate) struct Capacity {
    limits: Limits,
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

/// The host has no capacity; names the resource that is short.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no room on this host: {0}")]
pub(crate) struct NoRoom(pub(crate) String);

impl Capacity {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
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

    /// Returns whether an idle pause can free a reservation.
    pub(crate) fn has_evictable(&self) -> bool {
        self.used.lock().evictable > 0
    }

    /// Reserves capacity for a machine with `memory` bytes, which is `evictable` if its sandbox has an idle window.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        memory: u64,
        evictable: bool,
    ) -> Result<Reservation, NoRoom> {
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
            return Err(NoRoom(format!(
                "{} MiB of guest memory are needed, {} of {} MiB are free",
                mib(memory),
                mib(self.limits.memory - used.memory),
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

    #[test]
    fn admission_error_names_the_resource_and_drop_frees_it() {
        let capacity = Arc::new(Capacity::new(Limits {
            memory: 3 << 20,
            machines: 2,
        }));
        let first = capacity.reserve(2 << 20, false).unwrap();
        let error = capacity.reserve(2 << 20, false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no room on this host: 2 MiB of guest memory are needed, 1 of 3 MiB are free"
        );
        let _second = capacity.reserve(1 << 20, false).unwrap();
        assert_eq!(
            capacity.reserve(0, false).unwrap_err().to_string(),
            "no room on this host: 2 of 2 machines are running"
        );
        drop(first);
        capacity.reserve(2 << 20, false).map(drop).unwrap();
    }
}
