//! Monitor process without a guest.

use std::{
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tokio::sync::watch;

use super::{
    link::{Link, unexpected},
    machine::KvmMachine,
};
use crate::{
    Blank, BootError, BootSpec, Disk, LoadError, LoadReport, LoadSpec, Machine, MachineError,
    MemoryRegion, MemorySource, Pager,
    wire::{Refusal, Reply, Request, WireDisk, WireMemory},
};

/// A monitor process without a guest.
#[derive(Debug)]
pub struct KvmBlank {
    link: Link,
    stream_socket: PathBuf,
}

impl KvmBlank {
    pub(super) fn new(link: Link, stream_socket: PathBuf) -> Self {
        Self {
            link,
            stream_socket,
        }
    }

    /// Watches the last value that the guest writes to the doorbell port ([`crate::platform`]).
    pub fn doorbell(&self) -> watch::Receiver<Option<u32>> {
        self.link.doorbell()
    }

    async fn load_guest(&self, spec: LoadSpec) -> Result<LoadReport, LoadError> {
        let (disks, disk_fds) = wire_disks(spec.disks);
        let own = [OwnedFd::from(spec.image), OwnedFd::from(spec.console)];
        let mut fds: Vec<&OwnedFd> = own.iter().collect();
        let (memory, pager) = match &spec.memory {
            MemorySource::Cow(memfd) => {
                fds.push(memfd);
                (WireMemory::Cow, None)
            }
            MemorySource::Paged(pager) => (WireMemory::Paged, Some(Arc::clone(pager))),
        };
        fds.extend(&disk_fds);
        let mut pending = self
            .link
            .send(&Request::Load { memory, disks }, &fds)
            .await
            .map_err(LoadError::Lost)?;
        let mut report = LoadReport::default();
        loop {
            let (reply, mut fds) = pending.next().await.map_err(LoadError::Lost)?;
            match (reply, &pager) {
                (Reply::Pager { base, len }, Some(pager)) => {
                    let uffd = fds.pop_front().ok_or_else(|| {
                        LoadError::Refused("the monitor attached no userfaultfd".to_owned())
                    })?;
                    report.prefetch =
                        attach(Arc::clone(pager), uffd, MemoryRegion { base, len }).await?;
                }
                (
                    Reply::Loaded {
                        image,
                        memory,
                        state,
                    },
                    _,
                ) => {
                    report.image = Duration::from_nanos(image);
                    report.memory = Duration::from_nanos(memory);
                    report.state = Duration::from_nanos(state);
                    return Ok(report);
                }
                (
                    Reply::Refused {
                        kind: Refusal::Image,
                        message,
                    },
                    _,
                ) => return Err(LoadError::Image(message)),
                (Reply::Refused { message, .. }, _) => return Err(LoadError::Refused(message)),
                (other, _) => return Err(LoadError::Lost(unexpected(&other))),
            }
        }
    }
}

#[async_trait]
impl Blank for KvmBlank {
    async fn boot(self: Box<Self>, spec: BootSpec) -> Result<Box<dyn Machine>, BootError> {
        let (disks, disk_fds) = wire_disks(spec.disks);
        let mut fds = vec![OwnedFd::from(spec.kernel), OwnedFd::from(spec.console)];
        fds.extend(disk_fds);
        let request = Request::Boot {
            command_line: spec.command_line,
            disks,
        };
        match self
            .link
            .call(&request, &fds.iter().collect::<Vec<_>>())
            .await
        {
            Ok(()) => Ok(Box::new(KvmMachine::new(
                self.link,
                self.stream_socket,
                None,
            ))),
            Err(MachineError::Refused(error)) => Err(BootError::Refused(error)),
            Err(lost) => Err(BootError::Lost(lost)),
        }
    }

    async fn load(self: Box<Self>, spec: LoadSpec) -> Result<Box<dyn Machine>, LoadError> {
        let report = self.load_guest(spec).await?;
        Ok(Box::new(KvmMachine::new(
            self.link,
            self.stream_socket,
            Some(report),
        )))
    }

    fn pid(&self) -> u32 {
        self.link.pid()
    }

    fn is_alive(&self) -> bool {
        self.link.exit().borrow().is_none()
    }
}

/// Attaches the pager off the runtime's threads, because it copies the working set.
async fn attach(
    pager: Arc<dyn Pager>,
    uffd: OwnedFd,
    region: MemoryRegion,
) -> Result<Duration, LoadError> {
    let started = Instant::now();
    tokio::task::spawn_blocking(move || pager.attach(uffd, region))
        .await
        .map_err(|error| LoadError::Pager(Box::new(error)))?
        .map_err(LoadError::Pager)?;
    Ok(started.elapsed())
}

fn wire_disks(disks: Vec<Disk>) -> (Vec<WireDisk>, Vec<OwnedFd>) {
    let mut fds = Vec::new();
    let mut wire = Vec::new();
    for disk in disks {
        fds.push(OwnedFd::from(disk.base));
        let mut layers = Vec::new();
        for layer in disk.layers {
            layers.push((layer.bitmap_offset, layer.blocks_offset));
            fds.push(OwnedFd::from(layer.file));
        }
        fds.push(OwnedFd::from(disk.top.file));
        wire.push(WireDisk {
            size: disk.size,
            layers,
            top: disk.top.blocks_offset,
        });
    }
    (wire, fds)
}
