//! Entropy device (virtio 1.2 section 5.4): random bytes of the host.

use std::io::Write;

use virtio_queue::Queue;

use super::queue::{self, QueueOutcome};
use crate::memory::GuestMemory;

/// Maximum number of bytes for each buffer.
const BUFFER_LIMIT: usize = 4096;

/// An entropy device. It has no state that a snapshot could repeat.
#[derive(Debug, Default)]
pub(crate) struct Rng;

impl Rng {
    pub(super) fn process(&mut self, queues: &mut [Queue], memory: &GuestMemory) -> QueueOutcome {
        let Some(requests) = queues.first_mut() else {
            return QueueOutcome::default();
        };
        queue::process(requests, memory, |chain| {
            let Ok(mut writer) = chain.writer(memory) else {
                return Some(0);
            };
            let mut bytes = vec![0; writer.available_bytes().min(BUFFER_LIMIT)];
            let filled =
                rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())
                    .unwrap_or(0);
            Some(match writer.write_all(&bytes[..filled]) {
                Ok(()) => u32::try_from(filled).unwrap_or(0),
                Err(_) => 0,
            })
        })
    }
}
