//! Which device answers at which address.

use std::{
    ops::ControlFlow,
    sync::{Mutex, MutexGuard, PoisonError},
};

use vmm_api::wire::{DOORBELL_PORT, DOORBELL_WAIT_PORT};

use crate::{serial::Serial, virtio::Transport};

/// Guest address of the first virtio device; each takes [`DEVICE_SIZE`].
pub(crate) const DEVICES: u64 = 0xd000_0000;
/// Bytes of guest addresses that a device takes.
pub(crate) const DEVICE_SIZE: u64 = 0x1000;
/// Interrupt line of the first virtio device; the others follow.
pub(crate) const FIRST_LINE: u32 = 5;

const SERIAL_PORTS: std::ops::RangeInclusive<u16> = 0x3f8..=0x3ff;
/// The keyboard controller, by which kernels reset the machine.
const CONTROLLER_PORT: u16 = 0x64;
const CONTROLLER_RESET: u8 = 0xfe;

/// Why a vCPU must not go on by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Halt {
    /// The guest resets the machine.
    Reset,
    /// It waits for the host.
    Wait,
}

/// All devices of a machine. Fixed once the machine has begun.
pub(crate) struct Bus {
    serial: Mutex<Serial>,
    devices: Vec<Mutex<Transport>>,
    doorbell: Box<dyn Fn(u32) + Send + Sync>,
}

impl Bus {
    pub(crate) fn new(
        serial: Serial,
        devices: Vec<Transport>,
        doorbell: impl Fn(u32) + Send + Sync + 'static,
    ) -> Self {
        Self {
            serial: Mutex::new(serial),
            devices: devices.into_iter().map(Mutex::new).collect(),
            doorbell: Box::new(doorbell),
        }
    }

    /// The serial console.
    pub(crate) fn serial(&self) -> MutexGuard<'_, Serial> {
        lock(&self.serial)
    }

    /// The virtio devices, in the order of their addresses.
    pub(crate) fn devices(&self) -> impl Iterator<Item = MutexGuard<'_, Transport>> {
        self.devices.iter().map(lock)
    }

    /// A virtio device by its place.
    pub(crate) fn device(&self, index: usize) -> Option<MutexGuard<'_, Transport>> {
        self.devices.get(index).map(lock)
    }

    /// The guest reads device memory.
    pub(crate) fn read(&self, at: u64, data: &mut [u8]) {
        match self.find(at) {
            Some((mut device, offset)) => device.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// The guest writes device memory.
    pub(crate) fn write(&self, at: u64, data: &[u8]) {
        if let Some((mut device, offset)) = self.find(at) {
            device.write(offset, data);
        }
    }

    /// The guest reads a port.
    pub(crate) fn port_in(&self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        if let (true, Some(byte)) = (SERIAL_PORTS.contains(&port), data.first_mut()) {
            *byte = self.serial().read(port - SERIAL_PORTS.start());
        } else if let (CONTROLLER_PORT, Some(byte)) = (port, data.first_mut()) {
            // Nothing in its buffers: ready for a command.
            *byte = 0;
        }
    }

    /// The guest writes a port. It breaks when the vCPU must not go on by itself.
    pub(crate) fn port_out(&self, port: u16, data: &[u8]) -> ControlFlow<Halt> {
        match (port, data) {
            (CONTROLLER_PORT, [CONTROLLER_RESET]) => return ControlFlow::Break(Halt::Reset),
            (DOORBELL_PORT | DOORBELL_WAIT_PORT, data) => {
                if let Ok(value) = data.try_into() {
                    (self.doorbell)(u32::from_le_bytes(value));
                }
                if port == DOORBELL_WAIT_PORT {
                    return ControlFlow::Break(Halt::Wait);
                }
            }
            (port, [byte]) if SERIAL_PORTS.contains(&port) => {
                self.serial().write(port - SERIAL_PORTS.start(), *byte);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn find(&self, at: u64) -> Option<(MutexGuard<'_, Transport>, u64)> {
        let offset = at.checked_sub(DEVICES)?;
        let device = self.device(usize::try_from(offset / DEVICE_SIZE).ok()?)?;
        Some((device, offset % DEVICE_SIZE))
    }
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus")
            .field("devices", &self.devices.len())
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
