//! Virtqueues: processing of available chains, and state in a machine image.

use serde::{Deserialize, Serialize};
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueState, QueueT};

use crate::memory::GuestMemory;

/// Outcome of processing queues.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct QueueOutcome {
    /// Buffers were returned: the guest gets an interrupt.
    pub(crate) used: bool,
}

/// Serialisable form of [`QueueState`]. Restoring validates it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QueueSnapshot {
    size: u16,
    ready: bool,
    next_avail: u16,
    next_used: u16,
    rings: [u64; 3],
}

impl QueueSnapshot {
    pub(super) fn save(queue: &Queue) -> Self {
        let state = queue.state();
        Self {
            size: state.size,
            ready: state.ready,
            next_avail: state.next_avail,
            next_used: state.next_used,
            rings: [state.desc_table, state.avail_ring, state.used_ring],
        }
    }

    /// Restores the queue; `None` if a queue of `max_size` cannot be in this state.
    pub(super) fn restore(&self, max_size: u16, memory: &GuestMemory) -> Option<Queue> {
        let [desc_table, avail_ring, used_ring] = self.rings;
        let queue = Queue::try_from(QueueState {
            max_size,
            next_avail: self.next_avail,
            next_used: self.next_used,
            event_idx_enabled: false,
            size: self.size,
            ready: self.ready,
            desc_table,
            avail_ring,
            used_ring,
        })
        .ok()?;
        (!self.ready || queue.is_valid(memory)).then_some(queue)
    }
}

/// A descriptor chain that the guest made available.
pub(super) type Chain<'a> = DescriptorChain<&'a GuestMemory>;

/// Handles each available chain and returns it with the number of bytes that `handle` wrote. A chain for which it returns
/// `None` stays available, as do those behind it. Handles at most as many chains as the queue has entries, so that a guest
/// that keeps adding chains cannot occupy its device: it has to notify again.
pub(super) fn process(
    queue: &mut Queue,
    memory: &GuestMemory,
    mut handle: impl FnMut(Chain<'_>) -> Option<u32>,
) -> QueueOutcome {
    let mut outcome = QueueOutcome::default();
    if !is_usable(queue, memory) {
        return outcome;
    }
    for _ in 0..queue.size() {
        let Some(chain) = pop(queue, memory) else {
            break;
        };
        let head = chain.head_index();
        let Some(written) = handle(chain) else {
            queue.set_next_avail(queue.next_avail().wrapping_sub(1));
            break;
        };
        outcome.used |= add_used(queue, memory, head, written);
    }
    outcome
}

/// Returns whether the driver has enabled the queue and its rings are in guest memory.
pub(super) fn is_usable(queue: &Queue, memory: &GuestMemory) -> bool {
    queue.ready() && queue.is_valid(memory)
}

/// Takes the next available chain.
pub(super) fn pop<'a>(queue: &mut Queue, memory: &'a GuestMemory) -> Option<Chain<'a>> {
    queue.iter(memory).ok()?.next()
}

/// Returns a chain to the guest; `false` if its used ring is outside guest memory.
pub(super) fn add_used(queue: &mut Queue, memory: &GuestMemory, head: u16, written: u32) -> bool {
    match queue.add_used(memory, head, written) {
        Ok(()) => true,
        Err(error) => {
            tracing::debug!(error = %error_chain::chain(&error), "failed to write used ring");
            false
        }
    }
}
