//! Dispatch of port and MMIO accesses to devices.

use std::{
    ops::ControlFlow,
    sync::{Mutex, MutexGuard, PoisonError},
};

use vmm_api::platform::{DOORBELL_PORT, DOORBELL_WAIT_PORT, VIRTIO_MMIO_BASE, VIRTIO_MMIO_SIZE};

use crate::{serial::Serial, virtio::Transport};

/// Interrupt line of the first virtio device; the following lines belong to the others.
pub(crate) const FIRST_VIRTIO_IRQ: u32 = 5;

const SERIAL_PORTS: std::ops::RangeInclusive<u16> = 0x3f8..=0x3ff;
/// Keyboard controller, through which kernels reset the machine.
const KEYBOARD_CONTROLLER_PORT: u16 = 0x64;
const KEYBOARD_CONTROLLER_RESET: u8 = 0xfe;

/// Reason to stop a vCPU after a port write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopVcpu {
    /// The guest reset the machine.
    Reset,
    /// The guest waits for the host.
    Wait,
}

/// Forwards a value that the guest writes to a doorbell port.
pub(crate) type Doorbell = Box<dyn Fn(u32) + Send + Sync>;

/// The devices of a machine.
pub(crate) struct Bus {
    serial: Mutex<Serial>,
    devices: Vec<Mutex<Transport>>,
    doorbell: Option<Doorbell>,
}

impl Bus {
    pub(crate) fn new(serial: Serial, devices: Vec<Transport>, doorbell: Option<Doorbell>) -> Self {
        Self {
            serial: Mutex::new(serial),
            devices: devices.into_iter().map(Mutex::new).collect(),
            doorbell,
        }
    }

    /// Locks the serial console.
    pub(crate) fn serial(&self) -> MutexGuard<'_, Serial> {
        lock(&self.serial)
    }

    /// Locks the virtio devices one after the other, in the order of their addresses.
    pub(crate) fn devices(&self) -> impl Iterator<Item = MutexGuard<'_, Transport>> {
        self.devices.iter().map(lock)
    }

    /// Locks a virtio device.
    pub(crate) fn device(&self, index: usize) -> Option<MutexGuard<'_, Transport>> {
        self.devices.get(index).map(lock)
    }

    /// Handles an MMIO read.
    pub(crate) fn read(&self, at: u64, data: &mut [u8]) {
        match self.find(at) {
            Some((mut device, offset)) => device.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// Handles an MMIO write.
    pub(crate) fn write(&self, at: u64, data: &[u8]) {
        if let Some((mut device, offset)) = self.find(at) {
            device.write(offset, data);
        }
    }

    /// Handles a port read.
    pub(crate) fn port_in(&self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        if let (true, Some(byte)) = (SERIAL_PORTS.contains(&port), data.first_mut()) {
            *byte = self.serial().read(port - SERIAL_PORTS.start());
        } else if let (KEYBOARD_CONTROLLER_PORT, Some(byte)) = (port, data.first_mut()) {
            // The buffers are empty: ready for a command.
            *byte = 0;
        }
    }

    /// Handles a port write; breaks if the vCPU has to stop.
    pub(crate) fn port_out(&self, port: u16, data: &[u8]) -> ControlFlow<StopVcpu> {
        match (port, data) {
            (KEYBOARD_CONTROLLER_PORT, [KEYBOARD_CONTROLLER_RESET]) => {
                return ControlFlow::Break(StopVcpu::Reset);
            }
            (DOORBELL_PORT | DOORBELL_WAIT_PORT, data) => {
                let Some(doorbell) = &self.doorbell else {
                    return ControlFlow::Continue(());
                };
                if let Ok(value) = data.try_into() {
                    doorbell(u32::from_le_bytes(value));
                }
                if port == DOORBELL_WAIT_PORT {
                    return ControlFlow::Break(StopVcpu::Wait);
                }
            }
            // A string instruction writes several bytes at once.
            (port, bytes) if SERIAL_PORTS.contains(&port) => {
                let mut serial = self.serial();
                for byte in bytes {
                    serial.write(port - SERIAL_PORTS.start(), *byte);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn find(&self, at: u64) -> Option<(MutexGuard<'_, Transport>, u64)> {
        let offset = at.checked_sub(VIRTIO_MMIO_BASE)?;
        let device = self.device(usize::try_from(offset / VIRTIO_MMIO_SIZE).ok()?)?;
        Some((device, offset % VIRTIO_MMIO_SIZE))
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
