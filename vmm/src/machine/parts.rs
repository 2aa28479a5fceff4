//! A machine with its guest.

use std::{fs::File, io, os::unix::net::UnixListener, sync::Arc, time::Instant};

use kvm_bindings::{KVM_CLOCK_TSC_STABLE, kvm_clock_data};
use vmm_sys_util::eventfd::EventFd;

use super::{
    interrupts,
    vm::{Vm, VmError},
};
use crate::{
    arch::{boot, cpuid, registers},
    bus::{Bus, DEVICE_SIZE, DEVICES, FIRST_LINE},
    image::{ImageError, MachineState},
    memory::{Counts, Memory},
    serial::{LINE, Serial},
    vcpu::{Exits, Gone, StateError, VcpuState, VcpuThread},
    virtio::{
        Device, DeviceState, Disk, Rng, Transport, TransportState, block::Block, vsock::Vsock,
    },
};

/// A machine. It begins stopped.
#[derive(Debug)]
pub(crate) struct Machine {
    vm: Vm,
    bus: Arc<Bus>,
    vcpus: Vec<VcpuThread>,
    running: bool,
}

/// What a booted guest is given.
pub(crate) struct BootParts {
    pub(crate) kernel: File,
    pub(crate) command_line: String,
    pub(crate) devices: Devices,
}

/// What a loaded guest is given. Its memory is in place.
pub(crate) struct LoadParts {
    pub(crate) state: MachineState,
    pub(crate) devices: Devices,
}

/// What devices are made of.
pub(crate) struct Devices {
    pub(crate) disks: Vec<Disk>,
    pub(crate) listener: UnixListener,
    pub(crate) console: File,
    pub(crate) doorbell: Box<dyn Fn(u32) + Send + Sync>,
    pub(crate) gone: Gone,
}

/// A machine that did not do as it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MachineError {
    #[error("prepare virtual machine")]
    Vm(#[from] VmError),
    #[error("machine image is not usable")]
    Image(#[from] ImageError),
    #[error("machine image is not usable: {0}")]
    Misfit(String),
    #[error("start kernel")]
    Boot(#[from] boot::BootError),
    #[error("{0}")]
    Kvm(&'static str, #[source] kvm_ioctls::Error),
    #[error("vCPU {id}")]
    Vcpu {
        id: usize,
        #[source]
        source: StateError,
    },
    #[error("{0}")]
    Io(&'static str, #[source] io::Error),
    #[error("make a device's queues")]
    Queue(#[source] virtio_queue::Error),
}

fn did<T>(what: &'static str, result: Result<T, kvm_ioctls::Error>) -> Result<T, MachineError> {
    result.map_err(|error| MachineError::Kvm(what, error))
}

fn done<T>(what: &'static str, result: io::Result<T>) -> Result<T, MachineError> {
    result.map_err(|error| MachineError::Io(what, error))
}

impl Machine {
    /// Puts a kernel into a blank.
    pub(crate) fn boot(vm: Vm, parts: BootParts) -> Result<Self, MachineError> {
        let BootParts {
            mut kernel,
            command_line,
            devices,
        } = parts;
        did("set CPUID", vm.set_cpuid())?;
        let line = command_line_of(&command_line, &vm, devices.disks.len() + 2);
        let (memory, vcpus) = (vm.memory.len(), vm.vcpu_count());
        let entry = boot::load(vm.memory.guest(), memory, vcpus, &mut kernel, &line)?;
        for (id, vcpu) in vm.vcpus.iter().enumerate() {
            did(
                "set up registers",
                registers::set_up(vcpu, (id == 0).then_some(entry)),
            )?;
        }
        let interrupt = done("make an interrupt", vm.interrupt(LINE))?;
        let serial = Serial::new(interrupt, devices.console);
        let transports = transports(&vm, devices.disks, devices.listener, None)?;
        Self::assemble(vm, serial, transports, devices.doorbell, devices.gone)
    }

    /// Puts a guest out of a file into a blank whose memory is in place.
    pub(crate) fn load(vm: Vm, parts: LoadParts) -> Result<Self, MachineError> {
        let LoadParts { state, devices } = parts;
        check(&state, &vm, &devices.disks)?;
        let chips = interrupts::restore(&vm.fd, &state.interrupts);
        did(
            "set interrupt chips",
            chips.ok_or_else(|| misfit("its interrupt chips are not a machine's"))?,
        )?;
        // The guest's monotonic clock goes on where it stood; the guest agent sets the time of day.
        let clock = kvm_clock_data {
            clock: state.clock.clock,
            ..kvm_clock_data::default()
        };
        did("set clock", vm.fd.set_clock(&clock))?;
        for (id, (vcpu, state)) in vm.vcpus.iter().zip(&state.vcpus).enumerate() {
            state
                .restore(vcpu)
                .map_err(|source| MachineError::Vcpu { id, source })?;
        }
        let interrupt = done("make an interrupt", vm.interrupt(LINE))?;
        let serial = Serial::restored(interrupt, devices.console, &state.serial)
            .map_err(|error| misfit(&error.to_string()))?;
        let transports = transports(&vm, devices.disks, devices.listener, Some(&state.devices))?;
        let machine = Self::assemble(vm, serial, transports, devices.doorbell, devices.gone)?;
        for mut device in machine.bus.devices() {
            device.repeat_interrupt();
            device.with(|device, queues, memory| match device {
                Device::Vsock(vsock) => ((), vsock.begin_life(queues, memory)),
                Device::Block(_) | Device::Rng(_) => ((), crate::virtio::Served::default()),
            });
        }
        Ok(machine)
    }

    fn assemble(
        mut vm: Vm,
        serial: Serial,
        transports: Vec<Transport>,
        doorbell: Box<dyn Fn(u32) + Send + Sync>,
        gone: Gone,
    ) -> Result<Self, MachineError> {
        let bus = Arc::new(Bus::new(serial, transports, doorbell));
        let exits = Arc::new(Exits {
            bus: Arc::clone(&bus),
            memory: vm.memory.guest().clone(),
            gone,
        });
        let mut vcpus = Vec::new();
        for (id, fd) in (0..).zip(std::mem::take(&mut vm.vcpus)) {
            vcpus.push(done(
                "start vCPU thread",
                VcpuThread::spawn(id, fd, Arc::clone(&exits)),
            )?);
        }
        Ok(Self {
            vm,
            bus,
            vcpus,
            running: false,
        })
    }

    /// Lets the vCPUs run.
    pub(crate) fn resume(&mut self) -> Result<(), MachineError> {
        if self.running {
            return Ok(());
        }
        for vcpu in &self.vcpus {
            match vcpu.fd().kvmclock_ctrl() {
                Ok(()) => {}
                // A guest that has set up no such clock has no watchdog that the pause could frighten.
                Err(error) if error.errno() == libc::EINVAL => {}
                Err(error) => {
                    return Err(MachineError::Kvm(
                        "tell the guest's clock of the pause",
                        error,
                    ));
                }
            }
        }
        self.running = true;
        self.vcpus.iter().for_each(VcpuThread::start);
        Ok(())
    }

    /// Stops the vCPUs. Devices do nothing of themselves then: the monitor is busy with its next request.
    pub(crate) fn pause(&mut self) -> Result<(), MachineError> {
        for vcpu in &self.vcpus {
            done("stop vCPU", vcpu.stop())?;
        }
        self.vcpus.iter().for_each(VcpuThread::wait_stopped);
        self.running = false;
        Ok(())
    }

    /// Writes the stopped machine's state: its bytes.
    pub(crate) fn capture_state(&self, image: &File) -> Result<u64, MachineError> {
        let mut vcpus = Vec::new();
        for (id, vcpu) in self.vcpus.iter().enumerate() {
            let state = VcpuState::save(&vcpu.fd(), &self.vm.msr_indices);
            vcpus.push(state.map_err(|source| MachineError::Vcpu { id, source })?);
        }
        let mut clock = did("get clock", self.vm.fd.get_clock())?;
        clock.flags &= !KVM_CLOCK_TSC_STABLE;
        let state = MachineState {
            processor: cpuid::processor(),
            memory: self.vm.memory.len(),
            vcpus,
            interrupts: did("get interrupt chips", interrupts::save(&self.vm.fd))?,
            clock,
            serial: self.bus.serial().registers(),
            devices: self.bus.devices().map(|device| device.state()).collect(),
        };
        Ok(state.write(image)?)
    }

    /// Writes the pages that changed since the machine's memory source.
    pub(crate) fn capture_memory(
        &self,
        pages: &File,
        offset: u64,
        index: &File,
    ) -> io::Result<Counts> {
        self.memory().capture(pages, offset, index)
    }

    /// Does something to each disk, in order.
    pub(crate) fn with_disks(
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

    /// Whether the vCPUs run.
    pub(crate) fn is_running(&self) -> bool {
        self.running
    }

    /// Guest memory.
    pub(crate) fn memory(&self) -> &Memory {
        &self.vm.memory
    }

    /// The devices.
    pub(crate) fn bus(&self) -> &Arc<Bus> {
        &self.bus
    }
}

/// Disks first, so that the first is `/dev/vda`; then the socket device, then entropy.
fn transports(
    vm: &Vm,
    disks: Vec<Disk>,
    listener: UnixListener,
    states: Option<&[TransportState]>,
) -> Result<Vec<Transport>, MachineError> {
    let mut devices: Vec<Device> = disks
        .into_iter()
        .map(|disk| Device::Block(Block::new(disk)))
        .collect();
    devices.push(Device::Vsock(done(
        "take the listening socket",
        Vsock::new(listener),
    )?));
    devices.push(Device::Rng(Rng));
    let mut transports = Vec::new();
    for (index, (line, mut device)) in (FIRST_LINE..).zip(devices).enumerate() {
        let interrupt: EventFd = done("make an interrupt", vm.interrupt(line))?;
        let memory = vm.memory.guest().clone();
        transports.push(match states {
            None => Transport::new(device, memory, interrupt).map_err(MachineError::Queue)?,
            Some(states) => {
                let state = states
                    .get(index)
                    .ok_or_else(|| misfit("a device is missing"))?;
                if let (Device::Vsock(vsock), DeviceState::Vsock { connections: true }) =
                    (&mut device, &state.device)
                {
                    vsock.expect_reset();
                }
                Transport::restored(device, memory, interrupt, state).ok_or_else(|| {
                    misfit(&format!("device {index} cannot have been in such a state"))
                })?
            }
        });
    }
    Ok(transports)
}

/// Whether a state fits the blank and the disks it is to go on with.
fn check(state: &MachineState, vm: &Vm, disks: &[Disk]) -> Result<(), MachineError> {
    if state.processor != cpuid::processor() {
        return Err(misfit("it was taken on another kind of processor"));
    }
    if state.memory != vm.memory.len() || state.vcpus.len() != vm.vcpus.len() {
        return Err(misfit(&format!(
            "it has {} vCPUs and {} bytes of memory, and the blank {} and {}",
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
        Err(misfit("its devices or the sizes of its disks are others"))
    }
}

fn misfit(why: &str) -> MachineError {
    MachineError::Misfit(why.to_owned())
}

/// What a kernel must be told beside what its owner says.
fn command_line_of(given: &str, vm: &Vm, devices: usize) -> String {
    // The guest's clock is KVM's, which a snapshot can take along; the TSC is not everywhere virtualised. Resets go
    // through the keyboard controller, the only one of the ways there are that the monitor knows.
    let mut line = String::from("clocksource=kvm-clock reboot=k panic=-1");
    for (index, irq) in (FIRST_LINE..).enumerate().take(devices) {
        let at = DEVICES + index as u64 * DEVICE_SIZE;
        line.push_str(&format!(" virtio_mmio.device=4K@{at:#x}:{irq}"));
    }
    // The owner's words come last: they may end in arguments for init.
    for words in [vm.host.command_line(), given.trim()] {
        line.push(' ');
        line.push_str(words);
    }
    line
}

/// Nanoseconds since `begun`.
pub(crate) fn nanos(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
