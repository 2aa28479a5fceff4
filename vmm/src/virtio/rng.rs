//! The entropy device: random bytes of the host, never the same twice.

use std::io::Write;

use virtio_queue::Queue;

use super::{Served, queue};
use crate::memory::GuestMemory;

/// Bytes given for one buffer.
const LIMIT: usize = 4096;

/// A source of entropy. It has no state that a snapshot could repeat.
#[derive(Debug, Default)]
pub(crate) struct Rng;

impl Rng {
    pub(super) fn serve(&mut self, queues: &mut [Queue], memory: &GuestMemory) -> Served {
        let Some(requests) = queues.first_mut() else {
            return Served::default();
        };
        queue::serve(requests, memory, |chain| {
            let Ok(mut writer) = chain.writer(memory) else {
                return 0;
            };
            let mut bytes = vec![0; writer.available_bytes().min(LIMIT)];
            let filled =
                rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())
                    .unwrap_or(0);
            match writer.write_all(&bytes[..filled]) {
                Ok(()) => u32::try_from(filled).unwrap_or(0),
                Err(_) => 0,
            }
        })
    }
}
