//! MMIO transport (virtio 1.2 section 4.2) with the modern register layout.

use serde::{Deserialize, Serialize};
use virtio_queue::{Queue, QueueT};
use vmm_sys_util::eventfd::EventFd;

use super::{
    device::{Device, DeviceState},
    queue::{QueueOutcome, QueueSnapshot},
};
use crate::memory::GuestMemory;

const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
const VENDOR: u32 = 0x7061_6e43;
const CONFIG: u64 = 0x100;
const DRIVER_OK: u32 = 4;
const USED_BUFFERS: u32 = 1;

/// A device, its registers and its queues.
pub(crate) struct Transport {
    registers: Registers,
    queues: Vec<Queue>,
    device: Device,
    memory: GuestMemory,
    interrupt: EventFd,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Registers {
    status: u32,
    interrupt_status: u32,
    device_features_select: u32,
    driver_features: u64,
    driver_features_select: u32,
    queue_select: u32,
}

/// State of a device and its transport in a machine image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TransportState {
    registers: Registers,
    queues: Vec<QueueSnapshot>,
    pub(crate) device: DeviceState,
}

impl Transport {
    pub(crate) fn new(
        device: Device,
        memory: GuestMemory,
        interrupt: EventFd,
    ) -> Result<Self, virtio_queue::Error> {
        let queues = new_queues(&device)?;
        Ok(Self {
            registers: Registers::default(),
            queues,
            device,
            memory,
            interrupt,
        })
    }

    /// Restores a device; `None` if a device of this kind cannot be in this state.
    pub(crate) fn restored(
        device: Device,
        memory: GuestMemory,
        interrupt: EventFd,
        state: &TransportState,
    ) -> Option<Self> {
        let sizes = device.queue_sizes();
        if state.queues.len() != sizes.len()
            || state.registers.driver_features & !device.features() != 0
        {
            return None;
        }
        let queues = sizes
            .iter()
            .zip(&state.queues)
            .map(|(&size, snapshot)| snapshot.restore(size, &memory));
        let queues = queues.collect::<Option<Vec<_>>>()?;
        Some(Self {
            registers: state.registers,
            queues,
            device,
            memory,
            interrupt,
        })
    }

    pub(crate) fn state(&self) -> TransportState {
        TransportState {
            registers: self.registers,
            queues: self.queues.iter().map(QueueSnapshot::save).collect(),
            device: self.device.state(),
        }
    }

    /// Returns the device.
    pub(crate) fn device_mut(&mut self) -> &mut Device {
        &mut self.device
    }

    /// Calls `act` with the device and its queues, and interrupts the guest if it used buffers.
    pub(crate) fn with(
        &mut self,
        act: impl FnOnce(&mut Device, &mut [Queue], &GuestMemory) -> QueueOutcome,
    ) {
        let outcome = act(&mut self.device, &mut self.queues, &self.memory);
        self.interrupt_if_used(outcome);
    }

    /// Returns whether the driver has set `DRIVER_OK`.
    pub(crate) fn is_driver_ready(&self) -> bool {
        self.registers.status & DRIVER_OK != 0
    }

    /// Raises the interrupt again if the guest has not acknowledged it, because the snapshot may have lost the edge.
    pub(crate) fn reassert_interrupt(&self) {
        if self.registers.interrupt_status != 0 {
            self.trigger_irqfd();
        }
    }

    pub(crate) fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let Some(offset) = offset.checked_sub(CONFIG) {
            return self.device.read_config(offset, data);
        }
        let value = self.register(offset).to_le_bytes();
        data.fill(0);
        if data.len() == value.len() {
            data.copy_from_slice(&value);
        }
    }

    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        // The configuration of all devices is read-only, and registers are 32 bits wide.
        if let (true, Ok(value)) = (offset < CONFIG, data.try_into()) {
            self.set_register(offset, u32::from_le_bytes(value));
        }
    }

    fn register(&self, offset: u64) -> u32 {
        let queue = self.queue();
        match offset {
            0x00 => MAGIC,
            0x04 => VERSION,
            0x08 => self.device.id(),
            0x0c => VENDOR,
            0x10 => select_half(
                self.device.features(),
                self.registers.device_features_select,
            ),
            0x34 => queue.map_or(0, |queue| u32::from(queue.max_size())),
            0x44 => queue.map_or(0, |queue| u32::from(queue.ready())),
            0x60 => self.registers.interrupt_status,
            0x70 => self.registers.status,
            _ => 0,
        }
    }

    fn set_register(&mut self, offset: u64, value: u32) {
        let low = Some(value);
        match offset {
            0x14 => self.registers.device_features_select = value,
            0x20 => self.accept_features(value),
            0x24 => self.registers.driver_features_select = value,
            0x30 => self.registers.queue_select = value,
            0x50 => self.notify(value),
            0x64 => self.registers.interrupt_status &= !value,
            0x70 => self.set_status(value),
            _ if self.is_driver_ready() => {}
            0x38 => self.with_queue(|queue| queue.set_size(u16::try_from(value).unwrap_or(0))),
            0x44 => self.with_queue(|queue| queue.set_ready(value == 1)),
            0x80 => self.with_queue(|queue| queue.set_desc_table_address(low, None)),
            0x84 => self.with_queue(|queue| queue.set_desc_table_address(None, low)),
            0x90 => self.with_queue(|queue| queue.set_avail_ring_address(low, None)),
            0x94 => self.with_queue(|queue| queue.set_avail_ring_address(None, low)),
            0xa0 => self.with_queue(|queue| queue.set_used_ring_address(low, None)),
            0xa4 => self.with_queue(|queue| queue.set_used_ring_address(None, low)),
            _ => {}
        }
    }

    fn accept_features(&mut self, value: u32) {
        let shift = match self.registers.driver_features_select {
            0 => 0,
            1 => 32,
            _ => return,
        };
        let other_half = self.registers.driver_features & !(0xffff_ffff << shift);
        self.registers.driver_features =
            (other_half | u64::from(value) << shift) & self.device.features();
    }

    fn set_status(&mut self, value: u32) {
        if value == 0 {
            self.registers = Registers::default();
            self.device.reset();
            for queue in &mut self.queues {
                queue.reset();
            }
        } else {
            self.registers.status = value;
        }
    }

    fn notify(&mut self, index: u32) {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        if self.is_driver_ready() && index < self.queues.len() {
            let outcome = self.device.notify(index, &mut self.queues, &self.memory);
            self.interrupt_if_used(outcome);
        }
    }

    fn interrupt_if_used(&mut self, outcome: QueueOutcome) {
        if outcome.used {
            self.registers.interrupt_status |= USED_BUFFERS;
            self.trigger_irqfd();
        }
    }

    fn trigger_irqfd(&self) {
        // KVM drains the event descriptor, so its counter does not overflow.
        if let Err(error) = self.interrupt.write(1) {
            tracing::error!(error = %error_chain::chain(&error), "failed to raise interrupt");
        }
    }

    fn queue(&self) -> Option<&Queue> {
        self.queues
            .get(usize::try_from(self.registers.queue_select).ok()?)
    }

    fn with_queue(&mut self, act: impl FnOnce(&mut Queue)) {
        let selected = usize::try_from(self.registers.queue_select).unwrap_or(usize::MAX);
        if let Some(queue) = self.queues.get_mut(selected) {
            act(queue);
        }
    }
}

fn new_queues(device: &Device) -> Result<Vec<Queue>, virtio_queue::Error> {
    device
        .queue_sizes()
        .iter()
        .map(|&size| Queue::new(size))
        .collect()
}

fn select_half(features: u64, select: u32) -> u32 {
    let shifted = match select {
        0 => features,
        1 => features >> 32,
        _ => 0,
    };
    u32::try_from(shifted & 0xffff_ffff).unwrap_or(0)
}
