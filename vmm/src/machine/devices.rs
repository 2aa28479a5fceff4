//! Devices of a machine: their inputs and their transports.

use std::{fs::File, io, os::unix::net::UnixListener};

use vmm_sys_util::eventfd::EventFd;

use super::{
    error::{MachineError, incompatible, io_context},
    vm::Vm,
};
use crate::{
    bus::{Doorbell, FIRST_VIRTIO_IRQ},
    image::MachineState,
    vcpu::ExitNotifier,
    virtio::{
        Device, DeviceState, Disk, Rng, Transport, TransportState, block::Block, vsock::Vsock,
    },
};

/// Inputs from which devices are created.
pub(crate) struct DeviceInputs {
    pub(crate) disks: Vec<Disk>,
    pub(crate) listener: UnixListener,
    pub(crate) console: File,
    pub(crate) doorbell: Option<Doorbell>,
    pub(crate) exit: ExitNotifier,
}

/// Creates the virtio devices: disks first, so that the first is `/dev/vda`, then vsock, then entropy.
pub(super) fn transports(
    vm: &Vm,
    disks: Vec<Disk>,
    listener: UnixListener,
    states: Option<&[TransportState]>,
) -> Result<Vec<Transport>, MachineError> {
    let blocks = disks
        .into_iter()
        .map(|disk| Block::new(disk).map(Device::Block));
    let mut devices = io_context("set up a disk", blocks.collect::<io::Result<Vec<_>>>())?;
    devices.push(Device::Vsock(io_context(
        "set up the stream socket",
        Vsock::new(listener),
    )?));
    devices.push(Device::Rng(Rng));
    let mut transports = Vec::new();
    for (index, (irq, mut device)) in (FIRST_VIRTIO_IRQ..).zip(devices).enumerate() {
        let interrupt: EventFd = io_context("register an irqfd", vm.irqfd(irq))?;
        let memory = vm.memory.guest().clone();
        transports.push(match states {
            None => Transport::new(device, memory, interrupt).map_err(MachineError::Queue)?,
            Some(states) => {
                let state = states
                    .get(index)
                    .ok_or_else(|| incompatible("a device is missing"))?;
                if let (Device::Vsock(vsock), DeviceState::Vsock { connections: true }) =
                    (&mut device, &state.device)
                {
                    vsock.require_transport_reset();
                }
                Transport::restored(device, memory, interrupt, state).ok_or_else(|| {
                    incompatible(&format!("the state of device {index} is invalid"))
                })?
            }
        });
    }
    Ok(transports)
}

/// Checks that a state fits the VM and the disks that it is loaded with.
pub(super) fn check_compatible(
    state: &MachineState,
    processor: [u32; 4],
    vm: &Vm,
    disks: &[Disk],
) -> Result<(), MachineError> {
    if state.processor != processor {
        return Err(incompatible(
            "the snapshot was captured on another processor model",
        ));
    }
    if state.memory != vm.memory.len() || state.vcpus.len() != vm.vcpus.len() {
        return Err(incompatible(&format!(
            "the snapshot has {} vCPUs and {} bytes of memory, the VM has {} and {}",
            state.vcpus.len(),
            state.memory,
            vm.vcpus.len(),
            vm.memory.len()
        )));
    }
    let mut expected: Vec<DeviceState> = disks
        .iter()
        .map(|disk| DeviceState::Block { size: disk.size() })
        .collect();
    expected.push(DeviceState::Vsock { connections: false });
    expected.push(DeviceState::Rng);
    let found = state
        .devices
        .iter()
        .map(|transport| match transport.device {
            DeviceState::Vsock { .. } => DeviceState::Vsock { connections: false },
            ref other => other.clone(),
        });
    if found.eq(expected) {
        Ok(())
    } else {
        Err(incompatible(
            "devices or disk sizes do not match the snapshot",
        ))
    }
}
