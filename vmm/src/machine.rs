//! A machine: VM, vCPU threads and devices of one guest.
//!
//! KVM dictates the order of creation: memory slots first (one created after an interrupt controller waits for an RCU
//! grace period), then the interrupt controller, without a PIT, then vCPUs, then irqfds. All of that happens before the
//! machine has a guest, so that starting one only sets state. vCPU threads are created then as well.

mod command_line;
mod devices;
mod error;
mod interrupts;
mod vm;

use std::{fs::File, io, sync::Arc};

use kvm_bindings::{KVM_CLOCK_TSC_STABLE, kvm_clock_data};

use self::{
    command_line::kernel_command_line,
    devices::{check_compatible, transports},
    error::{incompatible, io_context, kvm_context},
};
pub(crate) use self::{devices::DeviceInputs, error::MachineError, vm::Vm};
use crate::{
    arch::{boot, cpuid, registers},
    bus::{Bus, Doorbell},
    image::MachineState,
    memory::PageCounts,
    serial::{SERIAL_IRQ, Serial},
    vcpu::{ExitHandler, ExitNotifier, VcpuState, VcpuThread},
    virtio::{Device, Disk, QueueOutcome, Transport},
};

/// A machine with its guest, initially stopped.
#[derive(Debug)]
pub(crate) struct Machine {
    vm: Vm,
    bus: Arc<Bus>,
    running: bool,
}

impl Machine {
    /// Boots a kernel in a VM.
    pub(crate) fn boot(
        vm: Vm,
        mut kernel: File,
        command_line: &str,
        devices: DeviceInputs,
    ) -> Result<Self, MachineError> {
        kvm_context("set CPUID", vm.set_cpuid())?;
        let line = kernel_command_line(command_line, &vm, devices.disks.len() + 2);
        let (memory, vcpus) = (vm.memory.len(), vm.vcpu_count());
        let entry = boot::load(vm.memory.guest(), memory, vcpus, &mut kernel, &line)?;
        for (id, vcpu) in vm.vcpus.iter().enumerate() {
            kvm_context(
                "set initial registers",
                registers::set_up(&vcpu.fd(), (id == 0).then_some(entry)),
            )?;
        }
        let interrupt = io_context("register an irqfd", vm.irqfd(SERIAL_IRQ))?;
        let serial = Serial::new(interrupt, devices.console);
        let transports = transports(&vm, devices.disks, devices.listener, None)?;
        Ok(Self::assemble(
            vm,
            serial,
            transports,
            devices.doorbell,
            devices.exit,
        ))
    }

    /// Loads a captured guest into a VM whose memory is in place.
    pub(crate) fn load(
        vm: Vm,
        state: &MachineState,
        devices: DeviceInputs,
    ) -> Result<Self, MachineError> {
        check_compatible(state, cpuid::processor(), &vm, &devices.disks)?;
        let chips = interrupts::restore(&vm.fd, &state.interrupts);
        kvm_context(
            "set interrupt controllers",
            chips.ok_or_else(|| incompatible("the set of interrupt controllers is invalid"))?,
        )?;
        // The guest's monotonic clock continues where it stopped; the guest agent sets the time of day.
        let clock = kvm_clock_data {
            clock: state.clock.clock,
            ..kvm_clock_data::default()
        };
        kvm_context("set kvm-clock", vm.fd.set_clock(&clock))?;
        for (id, (vcpu, state)) in vm.vcpus.iter().zip(&state.vcpus).enumerate() {
            state
                .restore(&vcpu.fd())
                .map_err(|source| MachineError::Vcpu { id, source })?;
        }
        let interrupt = io_context("register an irqfd", vm.irqfd(SERIAL_IRQ))?;
        let serial = Serial::restored(interrupt, devices.console, &state.serial)
            .map_err(|error| incompatible(&error.to_string()))?;
        let transports = transports(&vm, devices.disks, devices.listener, Some(&state.devices))?;
        let machine = Self::assemble(vm, serial, transports, devices.doorbell, devices.exit);
        for mut transport in machine.bus.devices() {
            transport.reassert_interrupt();
            transport.with(|device, queues, memory| match device {
                // Requests that waited for space when the machine was captured.
                Device::Block(block) => block.process(queues, memory),
                Device::Rng(_) => QueueOutcome::default(),
                Device::Vsock(vsock) => vsock.send_transport_reset(queues, memory),
            });
        }
        Ok(machine)
    }

    fn assemble(
        vm: Vm,
        serial: Serial,
        transports: Vec<Transport>,
        doorbell: Option<Doorbell>,
        exit: ExitNotifier,
    ) -> Self {
        let bus = Arc::new(Bus::new(serial, transports, doorbell));
        let exits = Arc::new(ExitHandler {
            bus: Arc::clone(&bus),
            memory: vm.memory.guest().clone(),
            exit,
        });
        for vcpu in &vm.vcpus {
            vcpu.attach(Arc::clone(&exits));
        }
        Self {
            vm,
            bus,
            running: false,
        }
    }

    /// Runs the vCPUs.
    pub(crate) fn resume(&mut self) -> Result<(), MachineError> {
        if self.running {
            return Ok(());
        }
        for vcpu in &self.vm.vcpus {
            match vcpu.fd().kvmclock_ctrl() {
                Ok(()) => {}
                // A guest without kvm-clock has no soft lockup watchdog that the pause could trigger.
                Err(error) if error.errno() == libc::EINVAL => {}
                Err(error) => {
                    return Err(MachineError::Kvm("notify kvm-clock of the pause", error));
                }
            }
        }
        self.running = true;
        self.vm.vcpus.iter().for_each(VcpuThread::start);
        Ok(())
    }

    /// Stops the vCPUs. Devices stop as well, because the monitor's loop polls their sockets only while the machine
    /// runs.
    pub(crate) fn pause(&mut self) -> Result<(), MachineError> {
        for vcpu in &self.vm.vcpus {
            io_context("stop vCPU", vcpu.stop())?;
        }
        self.vm.vcpus.iter().for_each(VcpuThread::wait_stopped);
        self.running = false;
        Ok(())
    }

    /// Reads the state of the stopped machine.
    pub(crate) fn state(&self) -> Result<MachineState, MachineError> {
        let mut vcpus = Vec::new();
        for (id, vcpu) in self.vm.vcpus.iter().enumerate() {
            let state = VcpuState::save(&vcpu.fd(), &self.vm.msr_indices);
            vcpus.push(state.map_err(|source| MachineError::Vcpu { id, source })?);
        }
        let mut clock = kvm_context("get kvm-clock", self.vm.fd.get_clock())?;
        clock.flags &= !KVM_CLOCK_TSC_STABLE;
        Ok(MachineState {
            processor: cpuid::processor(),
            memory: self.vm.memory.len(),
            vcpus,
            interrupts: kvm_context("get interrupt controllers", interrupts::save(&self.vm.fd))?,
            clock,
            serial: self.bus.serial().registers(),
            devices: self.bus.devices().map(|device| device.state()).collect(),
        })
    }

    /// Writes the pages that changed since the machine's memory source.
    pub(crate) fn capture_memory(
        &self,
        pages: &File,
        offset: u64,
        index: &File,
    ) -> io::Result<PageCounts> {
        self.vm.memory.capture(pages, offset, index)
    }

    /// Calls `act` for each disk, in order.
    pub(crate) fn for_each_disk(
        &self,
        mut act: impl FnMut(usize, &mut Disk) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut index = 0;
        for mut transport in self.bus.devices() {
            if let Device::Block(block) = transport.device_mut() {
                act(index, block.disk_mut())?;
                index += 1;
            }
        }
        Ok(())
    }

    /// Returns the number of disks.
    pub(crate) fn disk_count(&self) -> usize {
        self.bus
            .devices()
            .filter_map(|mut device| match device.device_mut() {
                Device::Block(_) => Some(()),
                Device::Rng(_) | Device::Vsock(_) => None,
            })
            .count()
    }

    /// Returns whether the vCPUs run.
    pub(crate) fn is_running(&self) -> bool {
        self.running
    }

    /// Returns the devices.
    pub(crate) fn bus(&self) -> &Arc<Bus> {
        &self.bus
    }
}
