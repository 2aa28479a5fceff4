//! virtio devices (OASIS virtio 1.2), each behind an MMIO transport.

pub(crate) mod block;
mod device;
mod disk;
mod mmio;
mod queue;
mod rng;
mod space;
#[cfg(test)]
mod tests;
pub(crate) mod vsock;

pub(crate) use self::{
    device::{Device, DeviceState},
    disk::Disk,
    mmio::{Transport, TransportState},
    queue::QueueOutcome,
    rng::Rng,
};
