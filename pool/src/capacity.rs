//! How much fits on this host: asked before any work is done.

use std::sync::Arc;

use parking_lot::Mutex;

/// What may run here at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Guest memory of all machines together, in bytes.
    pub memory: u64,
    /// Machines.
    pub machines: usize,
}

/// What is left.
#[derive(Debug)]
pub(crate) struct Capacity {
    limits: Limits,
    used: Mutex<Limits>,
}

/// Room for one machine, given back when dropped.
#[derive(Debug)]
#[must_use = "the room is given back as soon as the permit is dropped"]
pub(crate) struct Permit {
    capacity: Arc<Capacity>,
    memory: u64,
}

/// There is no room; says what is short.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NoRoom(pub(crate) String);

impl Capacity {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            used: Mutex::new(Limits {
                memory: 0,
                machines: 0,
            }),
        }
    }

    /// Takes room for a machine with so many bytes of memory.
    pub(crate) fn admit(self: &Arc<Self>, memory: u64) -> Result<Permit, NoRoom> {
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
        Ok(Permit {
            capacity: Arc::clone(self),
            memory,
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut used = self.capacity.used.lock();
        used.memory -= self.memory;
        used.machines -= 1;
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn what_is_short_is_said_and_room_comes_back() {
        let capacity = Arc::new(Capacity::new(Limits {
            memory: 3 << 20,
            machines: 2,
        }));
        let first = capacity.admit(2 << 20).unwrap();
        let error = capacity.admit(2 << 20).unwrap_err();
        assert_eq!(
            error.to_string(),
            "2 MiB of guest memory are needed, 1 of 3 MiB are free"
        );
        let _second = capacity.admit(1 << 20).unwrap();
        assert_eq!(
            capacity.admit(0).unwrap_err().to_string(),
            "2 of 2 machines are running"
        );
        drop(first);
        capacity.admit(2 << 20).map(drop).unwrap();
    }
}
