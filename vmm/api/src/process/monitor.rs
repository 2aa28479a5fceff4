//! A monitor's process, before and after it has a guest.

use std::{
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::watch,
};

use super::link::{Link, is_no_space, unexpected};
use crate::{
    Blank, BootError, BootSpec, CaptureError, CaptureSpec, Captured, DialError, Disk, Exit,
    LoadError, LoadReport, LoadSpec, Machine, MachineError, MemoryRegion, MemorySource, Pager,
    TopLayer,
    wire::{Refusal, Reply, Request, WireDisk, WireMemory},
};

/// A monitor that holds no guest yet.
#[derive(Debug)]
pub struct Monitor {
    link: Link,
    socket: PathBuf,
}

/// A monitor with its guest.
#[derive(Debug)]
pub struct Process {
    monitor: Monitor,
    report: Option<LoadReport>,
}

// === impl Monitor ===

impl Monitor {
    pub(super) fn new(link: Link, socket: PathBuf) -> Self {
        Self { link, socket }
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// As [`Blank::boot`].
    pub async fn boot(self, spec: BootSpec) -> Result<Process, BootError> {
        let (disks, disk_fds) = on_wire(spec.disks);
        let mut fds = vec![OwnedFd::from(spec.kernel), OwnedFd::from(spec.console)];
        fds.extend(disk_fds);
        let request = Request::Boot {
            command_line: spec.command_line,
            disks,
        };
        match self
            .link
            .ask(&request, &fds.iter().collect::<Vec<_>>())
            .await
        {
            Ok(()) => Ok(Process {
                monitor: self,
                report: None,
            }),
            Err(MachineError::Refused(why)) => Err(BootError::Refused(why)),
            Err(lost) => Err(BootError::Lost(lost)),
        }
    }

    /// As [`Blank::load`].
    pub async fn load(self, spec: LoadSpec) -> Result<Process, LoadError> {
        let report = self.load_into(spec).await?;
        Ok(Process {
            monitor: self,
            report: Some(report),
        })
    }

    async fn load_into(&self, spec: LoadSpec) -> Result<LoadReport, LoadError> {
        let (disks, disk_fds) = on_wire(spec.disks);
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
        let mut talk = self
            .link
            .begin(&Request::Load { memory, disks }, &fds)
            .await
            .map_err(LoadError::Lost)?;
        let mut report = LoadReport::default();
        loop {
            let (reply, mut fds) = talk.answer().await.map_err(LoadError::Lost)?;
            match (reply, &pager) {
                (Reply::Pager { base, len }, Some(pager)) => {
                    let uffd = fds
                        .pop_front()
                        .ok_or(LoadError::Refused("no userfaultfd came".to_owned()))?;
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

/// Installing the working set copies memory: not on the runtime's own threads.
async fn attach(
    pager: Arc<dyn Pager>,
    uffd: OwnedFd,
    region: MemoryRegion,
) -> Result<Duration, LoadError> {
    let begun = Instant::now();
    tokio::task::spawn_blocking(move || pager.attach(uffd, region))
        .await
        .map_err(|error| LoadError::Pager(Box::new(error)))?
        .map_err(LoadError::Pager)?;
    Ok(begun.elapsed())
}

fn on_wire(disks: Vec<Disk>) -> (Vec<WireDisk>, Vec<OwnedFd>) {
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

#[async_trait]
impl Blank for Monitor {
    async fn boot(self: Box<Self>, spec: BootSpec) -> Result<Box<dyn Machine>, BootError> {
        Ok(Box::new((*self).boot(spec).await?))
    }

    async fn load(self: Box<Self>, spec: LoadSpec) -> Result<Box<dyn Machine>, LoadError> {
        Ok(Box::new((*self).load(spec).await?))
    }

    fn pid(&self) -> u32 {
        self.link.pid()
    }
}

// === impl Process ===

impl Process {
    /// The last value the guest wrote to the doorbell port, if any.
    pub fn doorbell(&self) -> watch::Receiver<Option<u32>> {
        self.monitor.link.doorbell()
    }

    async fn connect(&self, port: u32) -> io::Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.monitor.socket).await?;
        stream
            .write_all(format!("CONNECT {port}\n").as_bytes())
            .await?;
        let mut answer = Vec::new();
        loop {
            let byte = stream.read_u8().await?;
            if byte == b'\n' {
                break;
            }
            answer.push(byte);
            if answer.len() > 32 {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the monitor's answer has no end",
                ));
            }
        }
        if answer.starts_with(b"OK ") {
            Ok(stream)
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the monitor's answer is not OK",
            ))
        }
    }
}

#[async_trait]
impl Machine for Process {
    async fn resume(&self) -> Result<(), MachineError> {
        self.monitor.link.ask(&Request::Resume, &[]).await
    }

    async fn pause(&self) -> Result<(), MachineError> {
        self.monitor.link.ask(&Request::Pause, &[]).await
    }

    async fn capture(&self, spec: CaptureSpec) -> Result<Captured, CaptureError> {
        let disks = u32::try_from(spec.disk_bitmaps.len()).unwrap_or(u32::MAX);
        let request = Request::Capture {
            pages_offset: spec.machine.as_ref().map(|files| files.pages_offset),
            disks,
        };
        let mut fds: Vec<OwnedFd> = Vec::new();
        if let Some(files) = spec.machine {
            fds.extend([
                files.image.into(),
                files.pages.into(),
                files.page_index.into(),
            ]);
        }
        fds.extend(spec.disk_bitmaps.into_iter().map(OwnedFd::from));
        let mut talk = self
            .monitor
            .link
            .begin(&request, &fds.iter().collect::<Vec<_>>())
            .await
            .map_err(CaptureError::Lost)?;
        match talk.answer().await.map_err(CaptureError::Lost)?.0 {
            Reply::Captured {
                image_len,
                pages,
                zero_pages,
            } => Ok(Captured {
                image_len,
                pages,
                zero_pages,
            }),
            Reply::Refused { kind, .. } if is_no_space(kind) => Err(CaptureError::NoSpace),
            Reply::Refused { message, .. } => Err(CaptureError::Refused(message)),
            other => Err(CaptureError::Lost(unexpected(&other))),
        }
    }

    async fn advance(&self, tops: Vec<TopLayer>) -> Result<(), MachineError> {
        let blocks_offsets = tops.iter().map(|top| top.blocks_offset).collect();
        let fds: Vec<OwnedFd> = tops.into_iter().map(|top| top.file.into()).collect();
        self.monitor
            .link
            .ask(
                &Request::Advance { blocks_offsets },
                &fds.iter().collect::<Vec<_>>(),
            )
            .await
    }

    async fn dial(&self, port: u32) -> Result<UnixStream, DialError> {
        match self.connect(port).await {
            Ok(stream) => Ok(stream),
            // The monitor closes the stream without a word when the guest refuses.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                ) =>
            {
                Err(DialError::Closed(port))
            }
            Err(error) => Err(DialError::Io(error)),
        }
    }

    async fn kill(&self) {
        self.monitor.link.kill().await;
    }

    fn exit(&self) -> watch::Receiver<Option<Exit>> {
        self.monitor.link.exit()
    }

    fn load_report(&self) -> Option<LoadReport> {
        self.report
    }

    fn pid(&self) -> u32 {
        self.monitor.link.pid()
    }
}
