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
    used: Mutex<Limits>,
    freed: Notify,
}

/// Memory and a slot for one machine, freed when dropped.
#[derive(Debug)]
#[must_use = "the capacity is free as soon as the reservation is dropped"]
pub(crate) struct Reservation {
    capacity: Arc<Capacity>,
    memory: u64,
}

/// The host has no capacity; names the resource that is short.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no room on this host: {0}")]
pub(crate) struct NoRoom(pub(crate) String);

impl Capacity {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            used: Mutex::new(Limits {
                memory: 0,
                machines: 0,
            }),
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

    /// Reserves capacity for a machine with `memory` bytes.
    pub(crate) fn reserve(self: &Arc<Self>, memory: u64) -> Result<Reservation, NoRoom> {
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
        *used = Limits {
            memory: total,
            machines: used.machines + 1,
        };
        Ok(Reservation {
            capacity: Arc::clone(self),
            memory,
        })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut used = self.capacity.used.lock();
        used.memory -= self.memory;
        used.machines -= 1;
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
        let first = capacity.reserve(2 << 20).unwrap();
        let error = capacity.reserve(2 << 20).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no room on this host: 2 MiB of guest memory are needed, 1 of 3 MiB are free"
        );
        let _second = capacity.reserve(1 << 20).unwrap();
        assert_eq!(
            capacity.reserve(0).unwrap_err().to_string(),
            "no room on this host: 2 of 2 machines are running"
        );
        drop(first);
        capacity.reserve(2 << 20).map(drop).unwrap();
    }
}
