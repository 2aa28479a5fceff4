//! Requests that give a monitor its guest.

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

use vmm_api::wire::{Refusal, Reply, WireDisk, WireMemory};

use super::{Monitor, Phase, Refused, next};
use crate::{
    chain,
    image::MachineState,
    machine::{BootParts, Devices, LoadParts, Machine, MachineError, Vm, nanos},
    sys::kick,
    vcpu::Gone,
    virtio::Disk,
};

impl Monitor {
    pub(super) fn prepare(
        &mut self,
        vcpus: u8,
        memory: u64,
        fds: &mut impl Iterator<Item = OwnedFd>,
    ) -> Result<Reply, Refused> {
        let Phase::New = self.phase else {
            return Err(Refused::because("it is prepared already"));
        };
        let listener = UnixListener::from(next(fds)?);
        kick::install()
            .map_err(|error| Refused::because(&format!("install signal handler: {error}")))?;
        let vm =
            Vm::new(vcpus, memory).map_err(|error| Refused::from(MachineError::from(error)))?;
        tracing::info!(host = ?vm.host, vcpus, memory, "prepared");
        self.phase = Phase::Blank {
            vm: Box::new(vm),
            listener,
        };
        Ok(Reply::Done)
    }

    pub(super) fn boot(
        &mut self,
        command_line: String,
        disks: Vec<WireDisk>,
        fds: &mut impl Iterator<Item = OwnedFd>,
    ) -> Result<Reply, Refused> {
        let (vm, listener) = self.take_blank()?;
        let kernel = File::from(next(fds)?);
        let devices = self.devices(listener, disks, fds)?;
        let mut machine = Machine::boot(
            vm,
            BootParts {
                kernel,
                command_line,
                devices,
            },
        )?;
        machine.resume()?;
        self.phase = Phase::Machine(Box::new(machine));
        Ok(Reply::Done)
    }

    pub(super) fn load(
        &mut self,
        memory: WireMemory,
        disks: Vec<WireDisk>,
        fds: &mut impl Iterator<Item = OwnedFd>,
    ) -> Result<Reply, Refused> {
        let (mut vm, listener) = self.take_blank()?;
        let begun = Instant::now();
        let state = MachineState::read(&File::from(next(fds)?)).map_err(MachineError::from)?;
        let image = nanos(begun);
        let console = File::from(next(fds)?);

        let begun = Instant::now();
        match memory {
            WireMemory::Cow => vm
                .memory
                .map(&File::from(next(fds)?))
                .map_err(|error| memory_failed(&error))?,
            WireMemory::Paged => {
                let uffd = vm.memory.page().map_err(|error| memory_failed(&error))?;
                let reply = Reply::Pager {
                    base: vm.memory.address(),
                    len: vm.memory.len(),
                };
                self.host
                    .hand(&reply, uffd.as_fd())
                    .map_err(|error| memory_failed(&error))?;
            }
        }
        let memory = nanos(begun);

        let begun = Instant::now();
        let devices = self.devices_with(listener, console, disks, fds)?;
        let machine = Machine::load(vm, LoadParts { state, devices })?;
        self.phase = Phase::Machine(Box::new(machine));
        Ok(Reply::Loaded {
            image,
            memory,
            state: nanos(begun),
        })
    }

    fn take_blank(&mut self) -> Result<(Vm, UnixListener), Refused> {
        match std::mem::replace(&mut self.phase, Phase::Spent) {
            Phase::Blank { vm, listener } => Ok((*vm, listener)),
            other => {
                self.phase = other;
                Err(Refused::because("this monitor is not a blank"))
            }
        }
    }

    fn devices(
        &self,
        listener: UnixListener,
        disks: Vec<WireDisk>,
        fds: &mut impl Iterator<Item = OwnedFd>,
    ) -> Result<Devices, Refused> {
        let console = File::from(next(fds)?);
        self.devices_with(listener, console, disks, fds)
    }

    fn devices_with(
        &self,
        listener: UnixListener,
        console: File,
        disks: Vec<WireDisk>,
        fds: &mut impl Iterator<Item = OwnedFd>,
    ) -> Result<Devices, Refused> {
        let disks = disks
            .into_iter()
            .map(|disk| take_disk(disk, fds))
            .collect::<Result<_, _>>()?;
        let host = Arc::clone(&self.host);
        let doorbell = Box::new(move |value| {
            if let Err(error) = host.say(&Reply::Doorbell { value }) {
                tracing::warn!(%error, "pass on the doorbell");
            }
        });
        Ok(Devices {
            disks,
            listener,
            console,
            doorbell,
            gone: self.gone(),
        })
    }

    /// Ends the process with the guest. The host hears why.
    fn gone(&self) -> Gone {
        let host = Arc::clone(&self.host);
        Gone(Arc::new(move |trouble| {
            if let Some(why) = &trouble {
                tracing::error!(why, "the machine ended");
            }
            let failed = trouble.is_some();
            if let Err(error) = host.say(&Reply::Exited { trouble }) {
                tracing::debug!(%error, "nobody hears that the machine ended");
            }
            io::stderr().flush().unwrap_or_default();
            std::process::exit(i32::from(failed));
        }))
    }
}

fn take_disk(disk: WireDisk, fds: &mut impl Iterator<Item = OwnedFd>) -> Result<Disk, Refused> {
    let base = File::from(next(fds)?);
    let mut layers = Vec::new();
    for (bitmap_offset, blocks_offset) in disk.layers {
        layers.push((File::from(next(fds)?), bitmap_offset, blocks_offset));
    }
    let top = File::from(next(fds)?);
    Disk::new(disk.size, base, layers, top, disk.top)
        .map_err(|error| Refused::because(&chain(&error)))
}

fn memory_failed(error: &io::Error) -> Refused {
    Refused::because(&format!("take guest memory: {error}"))
}

impl From<MachineError> for Refused {
    fn from(error: MachineError) -> Self {
        let kind = match error {
            MachineError::Image(_) | MachineError::Misfit(_) => Refusal::Image,
            _ => Refusal::Other,
        };
        Self {
            kind,
            message: chain(&error),
        }
    }
}
