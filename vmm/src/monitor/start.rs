//! Requests that create the VM and start its guest.

use std::{
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixListener,
    },
    sync::Arc,
    time::Instant,
};

use error_chain::chain;
use vmm_api::wire::{Jail, Reply, WireDisk, WireMemory};

use super::{
    Monitor, Phase,
    request_error::{RequestError, next_fd},
    space::SpaceRetries,
};
use crate::{
    bus::Doorbell,
    host::Host,
    image::MachineState,
    jail::{self, JailError, filter::Filters},
    machine::{DeviceInputs, Machine, MachineError, Vm},
    sys::kick,
    vcpu::ExitNotifier,
    virtio::Disk,
};

/// The VM to create, and its jail.
#[derive(Debug, Clone, Copy)]
pub(super) struct PrepareSpec {
    pub(super) vcpus: u8,
    pub(super) memory: u64,
    pub(super) doorbell: bool,
    pub(super) jail: Option<Jail>,
}

impl Monitor {
    pub(super) fn prepare(
        &mut self,
        spec: PrepareSpec,
        fds: &mut impl Iterator<Item = OwnedFd>,
    ) -> Result<Reply, RequestError> {
        let Phase::New = self.phase else {
            return Err(RequestError::new("the VM exists already"));
        };
        let listener = UnixListener::from(next_fd(fds)?);
        kick::install().map_err(|error| {
            RequestError::new(format!("failed to install signal handler: {error}"))
        })?;
        let host = Host::open().map_err(|error| RequestError::new(chain(&error)))?;
        if let Some(jail) = spec.jail {
            jail::enter(jail, fds.collect()).map_err(|error| jail_error(&error))?;
        }
        let filters = self.filters(spec)?;
        let threads = filters.as_ref().map(|filters| &filters.vcpu);
        let vm = Vm::new(host, spec.vcpus, spec.memory, threads)
            .map_err(|error| RequestError::from(MachineError::from(error)))?;
        if let Some(filters) = filters {
            let applied = filters.monitor.apply();
            applied.map_err(|error| RequestError::new(chain(&error)))?;
        }
        tracing::info!(host_cpu = ?vm.host_cpu, spec.vcpus, spec.memory, "VM created");
        self.has_doorbell = spec.doorbell;
        self.phase = Phase::Blank {
            vm: Box::new(vm),
            listener,
        };
        Ok(Reply::Done)
    }

    /// Compiles the filters of a jailed monitor.
    fn filters(&self, spec: PrepareSpec) -> Result<Option<Filters>, RequestError> {
        #[cfg(feature = "testing")]
        if self.takeover.is_some_and(|takeover| !takeover.filtered) {
            return Ok(None);
        }
        let filters = spec.jail.map(|_| Filters::new()).transpose();
        filters.map_err(|error| RequestError::new(chain(&error)))
    }

    pub(super) fn boot(
        &mut self,
        command_line: &str,
        disks: Vec<WireDisk>,
        fds: &mut impl Iterator<Item = OwnedFd>,
    ) -> Result<Reply, RequestError> {
        #[cfg(feature = "testing")]
        if let Some(takeover) = self.takeover {
            return Err(RequestError::new((takeover.attack)(command_line)));
        }
        let (vm, listener) = self.take_blank()?;
        let kernel = File::from(next_fd(fds)?);
        let console = File::from(next_fd(fds)?);
        let devices = self.device_inputs(listener, console, disks, fds)?;
        let mut machine = Machine::boot(vm, kernel, command_line, devices)?;
        machine.resume()?;
        self.space = space_retries(&machine)?;
        self.phase = Phase::Machine(Box::new(machine));
        Ok(Reply::Done)
    }

    pub(super) fn load(
        &mut self,
        memory: WireMemory,
        disks: Vec<WireDisk>,
        fds: &mut impl Iterator<Item = OwnedFd>,
    ) -> Result<Reply, RequestError> {
        let (mut vm, listener) = self.take_blank()?;
        let started = Instant::now();
        let state = MachineState::read(&File::from(next_fd(fds)?)).map_err(MachineError::from)?;
        let image = elapsed_nanos(started);
        let console = File::from(next_fd(fds)?);

        let started = Instant::now();
        match memory {
            WireMemory::Cow => vm
                .memory
                .map_copy_on_write(&File::from(next_fd(fds)?))
                .map_err(|error| memory_error(&error))?,
            WireMemory::Paged => {
                let uffd = vm
                    .memory
                    .register_userfaultfd()
                    .map_err(|error| memory_error(&error))?;
                let reply = Reply::Pager {
                    base: vm.memory.address(),
                    len: vm.memory.len(),
                };
                self.host
                    .send_with_fd(&reply, uffd.as_fd())
                    .map_err(|error| memory_error(&error))?;
            }
        }
        let memory = elapsed_nanos(started);

        let started = Instant::now();
        let devices = self.device_inputs(listener, console, disks, fds)?;
        let machine = Machine::load(vm, &state, devices)?;
        self.space = space_retries(&machine)?;
        self.phase = Phase::Machine(Box::new(machine));
        Ok(Reply::Loaded {
            image,
            memory,
            state: elapsed_nanos(started),
        })
    }

    fn take_blank(&mut self) -> Result<(Vm, UnixListener), RequestError> {
        match std::mem::replace(&mut self.phase, Phase::Failed) {
            Phase::Blank { vm, listener } => Ok((*vm, listener)),
            other => {
                self.phase = other;
                Err(RequestError::new("the monitor is not a blank"))
            }
        }
    }

    fn device_inputs(
        &self,
        listener: UnixListener,
        console: File,
        disks: Vec<WireDisk>,
        fds: &mut impl Iterator<Item = OwnedFd>,
    ) -> Result<DeviceInputs, RequestError> {
        let disks = disks
            .into_iter()
            .map(|disk| open_disk(disk, fds))
            .collect::<Result<_, _>>()?;
        let host = Arc::clone(&self.host);
        let forward = move |value| {
            if let Err(error) = host.send(&Reply::Doorbell { value }) {
                tracing::warn!(error = %chain(&error), "failed to forward doorbell");
            }
        };
        let doorbell = self.has_doorbell.then(|| Box::new(forward) as Doorbell);
        Ok(DeviceInputs {
            disks,
            listener,
            console,
            doorbell,
            exit: self.exit_notifier(),
        })
    }

    /// Builds the callback that reports the end of the machine to the host and exits the process.
    fn exit_notifier(&self) -> ExitNotifier {
        let host = Arc::clone(&self.host);
        ExitNotifier(Arc::new(move |error| {
            if let Some(error) = &error {
                tracing::error!(error, "machine failed");
            }
            let failed = error.is_some();
            if let Err(error) = host.send_exit(error) {
                tracing::debug!(error = %chain(&error), "failed to report machine exit");
            }
            io::stderr().flush().unwrap_or_default();
            std::process::exit(i32::from(failed));
        }))
    }
}

fn open_disk(
    disk: WireDisk,
    fds: &mut impl Iterator<Item = OwnedFd>,
) -> Result<Disk, RequestError> {
    let base = File::from(next_fd(fds)?);
    let layers = layers(disk.layers, fds)?;
    let top = File::from(next_fd(fds)?);
    Disk::new(disk.size, base, layers, top, disk.top)
        .map_err(|error| RequestError::new(chain(&error)))
}

fn jail_error(error: &JailError) -> RequestError {
    RequestError::new(format!("failed to enter the jail: {}", chain(error)))
}

/// Takes the files of sealed layers with these offsets of bitmap and blocks.
pub(super) fn layers(
    offsets: Vec<(u64, u64)>,
    fds: &mut impl Iterator<Item = OwnedFd>,
) -> Result<Vec<(File, u64, u64)>, RequestError> {
    offsets
        .into_iter()
        .map(|(bitmap, blocks)| Ok((File::from(next_fd(fds)?), bitmap, blocks)))
        .collect()
}

fn space_retries(machine: &Machine) -> Result<SpaceRetries, RequestError> {
    SpaceRetries::new(machine.bus())
        .map_err(|error| RequestError::new(format!("failed to watch disks: {error}")))
}

fn memory_error(error: &io::Error) -> RequestError {
    RequestError::new(format!("failed to map guest memory: {}", chain(error)))
}

/// Nanoseconds since `started`.
fn elapsed_nanos(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
