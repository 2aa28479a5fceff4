//! Monitor process with a guest.

use std::{io, os::fd::OwnedFd, path::PathBuf};

use async_trait::async_trait;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::watch,
};

use super::link::{Link, unexpected};
use crate::{
    CaptureError, CaptureSpec, Captured, DialError, DiskLayer, Exit, LoadReport, Machine,
    MachineError, NextLayers,
    wire::{Refusal, Reply, Request, WireLayers},
};

/// Maximum length of the monitor's response to `CONNECT`.
const CONNECT_RESPONSE_LIMIT: usize = 32;

/// A monitor process with a guest.
#[derive(Debug)]
pub(super) struct KvmMachine {
    link: Link,
    stream_socket: PathBuf,
    load_report: Option<LoadReport>,
}

impl KvmMachine {
    pub(super) fn new(link: Link, stream_socket: PathBuf, load_report: Option<LoadReport>) -> Self {
        Self {
            link,
            stream_socket,
            load_report,
        }
    }

    async fn connect(&self, port: u32) -> io::Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.stream_socket).await?;
        stream
            .write_all(format!("CONNECT {port}\n").as_bytes())
            .await?;
        let mut response = Vec::new();
        loop {
            let byte = stream.read_u8().await?;
            if byte == b'\n' {
                break;
            }
            response.push(byte);
            if response.len() > CONNECT_RESPONSE_LIMIT {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the monitor's response to CONNECT is too long",
                ));
            }
        }
        if response.starts_with(b"OK ") {
            Ok(stream)
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the monitor's response to CONNECT is not OK",
            ))
        }
    }
}

#[async_trait]
impl Machine for KvmMachine {
    async fn resume(&self) -> Result<(), MachineError> {
        self.link.call(&Request::Resume, &[]).await
    }

    async fn pause(&self) -> Result<(), MachineError> {
        self.link.call(&Request::Pause, &[]).await
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
        let mut pending = self
            .link
            .send(&request, &fds.iter().collect::<Vec<_>>())
            .await
            .map_err(CaptureError::Lost)?;
        match pending.next().await.map_err(CaptureError::Lost)?.0 {
            Reply::Captured {
                image_len,
                pages,
                zero_pages,
            } => Ok(Captured {
                image_len,
                pages,
                zero_pages,
            }),
            Reply::Refused {
                kind: Refusal::NoSpace,
                ..
            } => Err(CaptureError::NoSpace),
            Reply::Refused { message, .. } => Err(CaptureError::Refused(message)),
            other => Err(CaptureError::Lost(unexpected(&other))),
        }
    }

    async fn advance(&self, next: Vec<NextLayers>) -> Result<(), MachineError> {
        let mut disks = Vec::new();
        let mut fds: Vec<OwnedFd> = Vec::new();
        for NextLayers { top, sealed } in next {
            let offsets = |layers: &Vec<DiskLayer>| {
                let offsets = layers.iter();
                offsets
                    .map(|layer| (layer.bitmap_offset, layer.blocks_offset))
                    .collect()
            };
            disks.push(WireLayers {
                sealed: sealed.as_ref().map(offsets),
                top: top.blocks_offset,
            });
            fds.extend(sealed.into_iter().flatten().map(|layer| layer.file.into()));
            fds.push(top.file.into());
        }
        self.link
            .call(&Request::Advance { disks }, &fds.iter().collect::<Vec<_>>())
            .await
    }

    async fn dial(&self, port: u32) -> Result<UnixStream, DialError> {
        match self.connect(port).await {
            Ok(stream) => Ok(stream),
            // The monitor closes the stream without a response if the guest refuses the connection, and so does the
            // end of its process.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                ) && self.link.exit().borrow().is_none() =>
            {
                Err(DialError::Closed(port))
            }
            Err(error) => Err(DialError::Io(error)),
        }
    }

    async fn kill(&self) {
        self.link.kill().await;
    }

    fn exit(&self) -> watch::Receiver<Option<Exit>> {
        self.link.exit()
    }

    fn load_report(&self) -> Option<LoadReport> {
        self.load_report
    }

    fn pid(&self) -> u32 {
        self.link.pid()
    }
}
