//! Retries of disk writes that wait for space on the host.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::event::Timespec;

use crate::{
    bus::Bus,
    virtio::{Device, QueueOutcome},
};

/// The time between two attempts.
const INTERVAL: Duration = Duration::from_millis(100);

/// The waiting writes of a machine.
#[derive(Debug, Default)]
pub(super) struct SpaceRetries {
    /// One for each disk: readable when a write begins to wait.
    events: Vec<OwnedFd>,
    /// The time of the next attempt; `None` when no write waits.
    next: Option<Instant>,
}

impl SpaceRetries {
    pub(super) fn new(bus: &Bus) -> io::Result<Self> {
        let mut events = Vec::new();
        for mut transport in bus.devices() {
            if let Device::Block(block) = transport.device_mut() {
                events.push(block.space_event()?);
            }
        }
        Ok(Self { events, next: None })
    }

    /// Returns the descriptors that become readable when a write begins to wait.
    pub(super) fn events(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.events.iter().map(AsFd::as_fd)
    }

    /// Returns the time until the next attempt.
    pub(super) fn timeout(&self, now: Instant) -> Option<Timespec> {
        let left = self.next?.saturating_duration_since(now);
        left.try_into().ok()
    }

    /// Records that writes have begun to wait.
    pub(super) fn begin(&mut self, now: Instant) {
        for event in &self.events {
            // One that is not readable belongs to a disk without waiting writes.
            let _count = rustix::io::read(event, &mut [0; 8]);
        }
        self.next.get_or_insert(now);
    }

    /// Tries the waiting writes again if it is time to.
    pub(super) fn attempt(&mut self, bus: &Bus, now: Instant) {
        if self.next.is_none_or(|next| now < next) {
            return;
        }
        let mut waiting = false;
        for mut transport in bus.devices() {
            transport.with(|device, queues, memory| match device {
                Device::Block(block) if block.is_waiting() => {
                    let outcome = block.retry(queues, memory, now);
                    waiting |= block.is_waiting();
                    outcome
                }
                _ => QueueOutcome::default(),
            });
        }
        self.next = waiting.then(|| now + INTERVAL);
    }
}
