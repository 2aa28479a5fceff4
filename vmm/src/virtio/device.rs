//! The virtio devices behind one interface.

use serde::{Deserialize, Serialize};
use virtio_queue::Queue;

use super::{
    block::Block,
    queue::QueueOutcome,
    rng::Rng,
    vsock::{GUEST_CID, Vsock},
};
use crate::memory::GuestMemory;

/// `VIRTIO_F_VERSION_1`.
const VERSION_1: u64 = 1 << 32;

/// A virtio device.
pub(crate) enum Device {
    Block(Block),
    Rng(Rng),
    Vsock(Vsock),
}

/// State of a device beside its transport and queues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum DeviceState {
    /// The size of the disk in bytes.
    Block { size: u64 },
    /// No state.
    Rng,
    /// `connections` is set if the guest had connections, which a restore resets.
    Vsock { connections: bool },
}

impl Device {
    /// Returns the device id (virtio 1.2 section 5).
    pub(super) fn id(&self) -> u32 {
        match self {
            Self::Block(_) => 2,
            Self::Rng(_) => 4,
            Self::Vsock(_) => 19,
        }
    }

    pub(super) fn features(&self) -> u64 {
        VERSION_1
            | match self {
                Self::Block(block) => block.features(),
                Self::Rng(_) | Self::Vsock(_) => 0,
            }
    }

    pub(super) fn queue_sizes(&self) -> &'static [u16] {
        match self {
            Self::Block(_) => &[128],
            Self::Rng(_) => &[16],
            Self::Vsock(_) => &[128, 128, 16],
        }
    }

    pub(super) fn read_config(&self, offset: u64, data: &mut [u8]) {
        let config = match self {
            Self::Block(block) => block.config(),
            Self::Rng(_) => Vec::new(),
            Self::Vsock(_) => GUEST_CID.to_le_bytes().to_vec(),
        };
        data.fill(0);
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (byte, value) in data.iter_mut().zip(config.iter().skip(from)) {
            *byte = *value;
        }
    }

    pub(super) fn notify(
        &mut self,
        index: usize,
        queues: &mut [Queue],
        memory: &GuestMemory,
    ) -> QueueOutcome {
        match self {
            Self::Block(block) => block.process(queues, memory),
            Self::Rng(rng) => rng.process(queues, memory),
            Self::Vsock(vsock) => vsock.notify(index, queues, memory),
        }
    }

    pub(super) fn reset(&mut self) {
        match self {
            Self::Block(block) => block.reset(),
            Self::Rng(_) => {}
            Self::Vsock(vsock) => vsock.reset(),
        }
    }

    pub(super) fn state(&self) -> DeviceState {
        match self {
            Self::Block(block) => DeviceState::Block {
                size: block.disk().size(),
            },
            Self::Rng(_) => DeviceState::Rng,
            Self::Vsock(vsock) => DeviceState::Vsock {
                connections: vsock.has_connections(),
            },
        }
    }
}
