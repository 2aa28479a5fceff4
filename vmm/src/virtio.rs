//! The virtio devices (OASIS virtio 1.2), each behind an MMIO transport.

pub(crate) mod block;
mod disk;
mod mmio;
mod queue;
mod rng;
pub(crate) mod vsock;

use serde::{Deserialize, Serialize};
use virtio_queue::Queue;

use self::{block::Block, vsock::Vsock};
pub(crate) use self::{
    disk::Disk,
    mmio::{Transport, TransportState},
    rng::Rng,
};
use crate::memory::GuestMemory;

/// `VIRTIO_F_VERSION_1`.
const VERSION_1: u64 = 1 << 32;

/// The devices there are.
pub(crate) enum Device {
    Block(Block),
    Rng(Rng),
    Vsock(Vsock),
}

/// What a device keeps beside its transport and queues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum DeviceState {
    /// The size of its disk in bytes.
    Block { size: u64 },
    /// Nothing.
    Rng,
    /// Whether the guest had connections, which are no more.
    Vsock { connections: bool },
}

/// What handling a queue did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Served {
    /// Buffers were given back: tell the guest.
    pub(crate) used: bool,
}

impl Device {
    /// Device id, virtio 1.2 section 5.
    fn id(&self) -> u32 {
        match self {
            Self::Block(_) => 2,
            Self::Rng(_) => 4,
            Self::Vsock(_) => 19,
        }
    }

    fn features(&self) -> u64 {
        VERSION_1
            | match self {
                Self::Block(block) => block.features(),
                Self::Rng(_) | Self::Vsock(_) => 0,
            }
    }

    fn queue_sizes(&self) -> &'static [u16] {
        match self {
            Self::Block(_) => &[128],
            Self::Rng(_) => &[16],
            Self::Vsock(_) => &[128, 128, 16],
        }
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let config = match self {
            Self::Block(block) => block.config(),
            Self::Rng(_) => Vec::new(),
            Self::Vsock(_) => vsock::GUEST_CID.to_le_bytes().to_vec(),
        };
        data.fill(0);
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (byte, value) in data.iter_mut().zip(config.iter().skip(from)) {
            *byte = *value;
        }
    }

    fn notify(&mut self, index: usize, queues: &mut [Queue], memory: &GuestMemory) -> Served {
        match self {
            Self::Block(block) => block.serve(queues, memory),
            Self::Rng(rng) => rng.serve(queues, memory),
            Self::Vsock(vsock) => vsock.notify(index, queues, memory),
        }
    }

    fn reset(&mut self) {
        if let Self::Vsock(vsock) = self {
            vsock.reset();
        }
    }

    fn state(&self) -> DeviceState {
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

#[cfg(test)]
mod test;
