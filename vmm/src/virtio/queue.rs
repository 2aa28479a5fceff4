//! A queue's state in a machine image, and the loop that serves a queue.

use serde::{Deserialize, Serialize};
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueState, QueueT};

use super::Served;
use crate::memory::GuestMemory;

/// [`QueueState`] in a form that can be written. Untrusted: [`Queue`] checks it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QueueImage {
    size: u16,
    ready: bool,
    next_avail: u16,
    next_used: u16,
    tables: [u64; 3],
}

impl QueueImage {
    pub(super) fn of(queue: &Queue) -> Self {
        let state = queue.state();
        Self {
            size: state.size,
            ready: state.ready,
            next_avail: state.next_avail,
            next_used: state.next_used,
            tables: [state.desc_table, state.avail_ring, state.used_ring],
        }
    }

    /// `None`: no queue of `max_size` can be in this state.
    pub(super) fn queue(&self, max_size: u16, memory: &GuestMemory) -> Option<Queue> {
        let [desc_table, avail_ring, used_ring] = self.tables;
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

/// A chain of buffers that a guest has made available.
pub(super) type Chain<'a> = DescriptorChain<&'a GuestMemory>;

/// Takes every chain the guest has made available and gives each back with the number of bytes that `handle` wrote.
/// At most as many as the queue has entries, so that a guest that keeps adding cannot hold its device for ever: it has
/// to notify again.
pub(super) fn serve(
    queue: &mut Queue,
    memory: &GuestMemory,
    mut handle: impl FnMut(Chain<'_>) -> u32,
) -> Served {
    let mut served = Served::default();
    if !usable(queue, memory) {
        return served;
    }
    for _ in 0..queue.size() {
        let Some(chain) = pop(queue, memory) else {
            break;
        };
        let head = chain.head_index();
        let written = handle(chain);
        served.used |= give_back(queue, memory, head, written);
    }
    served
}

/// Whether the driver has set the queue up, and in memory.
pub(super) fn usable(queue: &Queue, memory: &GuestMemory) -> bool {
    queue.ready() && queue.is_valid(memory)
}

/// The next chain the guest has made available.
pub(super) fn pop<'a>(queue: &mut Queue, memory: &'a GuestMemory) -> Option<Chain<'a>> {
    queue.iter(memory).ok()?.next()
}

/// Gives a chain back; `false` when the guest has put its ring where there is no memory.
pub(super) fn give_back(queue: &mut Queue, memory: &GuestMemory, head: u16, written: u32) -> bool {
    match queue.add_used(memory, head, written) {
        Ok(()) => true,
        Err(error) => {
            tracing::debug!(%error, "the guest's used ring cannot be written");
            false
        }
    }
}
