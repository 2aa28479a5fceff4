//! Addresses at which a guest finds the devices of its machine.

/// The I/O port on which a guest rings the doorbell with a 32-bit write. Linux guests never do.
pub const DOORBELL_PORT: u16 = 0x510;
/// The I/O port on which a guest rings the doorbell and halts the vCPU until the machine is paused and resumed.
pub const DOORBELL_WAIT_PORT: u16 = 0x514;
/// Guest-physical address of the first virtio-mmio device, `/dev/vda` if the machine has disks.
pub const VIRTIO_MMIO_BASE: u64 = 0xd000_0000;
/// Bytes of guest-physical address space for each virtio-mmio device.
pub const VIRTIO_MMIO_SIZE: u64 = 0x1000;
