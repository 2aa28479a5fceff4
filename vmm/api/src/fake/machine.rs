//! A machine that is a few values and tasks.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::fs::FileExt},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::{net::UnixStream, sync::watch};

use super::{
    Fault, Shared, died,
    disk::{Block, FakeDisk},
    guest, released,
};
use crate::{
    CaptureError, CaptureSpec, Captured, DialError, Disk, Exit, LoadError, LoadReport, LoadSpec,
    Machine, MachineError, MachineFiles, MemorySource, PAGE_SIZE, PageRecord, TopLayer,
    page_digest,
};

const STATE: &[u8] = b"fake machine 1";

/// What a machine is made of.
#[derive(Debug)]
pub(super) struct Guest {
    pages: u32,
    /// What it was loaded from.
    source: Option<Arc<OwnedFd>>,
    /// The pages it wrote since.
    changed: BTreeMap<u32, Block>,
    disks: Vec<FakeDisk>,
    console: File,
    pub(super) frozen: bool,
}

/// The part that its streams know.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) shared: Arc<Shared>,
    pub(super) guest: Mutex<Guest>,
    running: watch::Sender<bool>,
    exit: watch::Sender<Option<Exit>>,
}

/// A machine.
#[derive(Debug)]
pub(super) struct FakeMachine {
    inner: Arc<Inner>,
    loaded: bool,
}

// === impl Guest ===

impl Guest {
    pub(super) fn boot(memory: u64, disks: Vec<Disk>, console: File) -> io::Result<Self> {
        let mut guest = Self::new(memory, None, disks, console)?;
        guest.write(1, "booted")?;
        guest.console.write_all(b"booted\n")?;
        Ok(guest)
    }

    pub(super) fn load(memory: u64, spec: LoadSpec) -> Result<Self, LoadError> {
        let mut state = Vec::new();
        let read = (&spec.image).take(1024).read_to_end(&mut state);
        read.map_err(|error| LoadError::Image(error.to_string()))?;
        if state != STATE {
            return Err(LoadError::Image("not a fake machine".to_owned()));
        }
        let MemorySource::Cow(source) = spec.memory else {
            return Err(LoadError::Refused(
                "the fake takes its memory as cow only".to_owned(),
            ));
        };
        let refused = |error: io::Error| LoadError::Refused(error.to_string());
        Self::new(memory, Some(source), spec.disks, spec.console).map_err(refused)
    }

    fn new(
        memory: u64,
        source: Option<Arc<OwnedFd>>,
        disks: Vec<Disk>,
        console: File,
    ) -> io::Result<Self> {
        let pages = u32::try_from(memory / PAGE_SIZE as u64).map_err(io::Error::other)?;
        let disks = disks
            .into_iter()
            .map(FakeDisk::open)
            .collect::<io::Result<_>>()?;
        Ok(Self {
            pages,
            source,
            changed: BTreeMap::new(),
            disks,
            console,
            frozen: false,
        })
    }

    pub(super) fn write(&mut self, page: u32, text: &str) -> io::Result<()> {
        if page >= self.pages {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.changed.insert(page, block_of(text)?);
        Ok(())
    }

    pub(super) fn read(&self, page: u32) -> io::Result<String> {
        if let Some(bytes) = self.changed.get(&page) {
            return Ok(text_of(bytes));
        }
        let mut bytes = [0; PAGE_SIZE];
        if let Some(source) = &self.source {
            File::from(source.try_clone()?)
                .read_exact_at(&mut bytes, u64::from(page) * PAGE_SIZE as u64)?;
        }
        Ok(text_of(&bytes))
    }

    pub(super) fn disk_write(&mut self, block: u32, text: &str) -> io::Result<()> {
        if self.frozen {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let bytes = block_of(text)?;
        self.disks
            .first_mut()
            .ok_or(io::ErrorKind::NotFound)?
            .write(block.into(), &bytes)
    }

    pub(super) fn disk_read(&self, block: u32) -> io::Result<String> {
        let disk = self.disks.first().ok_or(io::ErrorKind::NotFound)?;
        Ok(text_of(&disk.read(block.into())?))
    }

    fn capture(&self, mut spec: CaptureSpec) -> io::Result<Captured> {
        let captured = match &mut spec.machine {
            Some(files) => self.capture_machine(files)?,
            None => Captured::default(),
        };
        for (disk, bitmap) in self.disks.iter().zip(&mut spec.disk_bitmaps) {
            bitmap.write_all(disk.written())?;
        }
        Ok(captured)
    }

    fn capture_machine(&self, files: &mut MachineFiles) -> io::Result<Captured> {
        files.image.write_all(STATE)?;
        let mut captured = Captured {
            image_len: STATE.len() as u64,
            ..Captured::default()
        };
        for (page, bytes) in &self.changed {
            let zero = bytes.iter().all(|byte| *byte == 0);
            let record = PageRecord {
                number: *page,
                zero,
                digest: page_digest(bytes),
            };
            files.page_index.write_all(&record.encode())?;
            captured.pages += 1;
            if zero {
                captured.zero_pages += 1;
            } else {
                files.pages.write_all_at(
                    bytes,
                    files.pages_offset + u64::from(*page) * PAGE_SIZE as u64,
                )?;
            }
        }
        Ok(captured)
    }
}

fn block_of(text: &str) -> io::Result<Block> {
    let mut block = [0; PAGE_SIZE];
    block
        .get_mut(..text.len())
        .ok_or(io::ErrorKind::InvalidInput)?
        .copy_from_slice(text.as_bytes());
    Ok(block)
}

fn text_of(block: &Block) -> String {
    let len = block
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(block.len());
    String::from_utf8_lossy(&block[..len]).into_owned()
}

// === impl Inner ===

impl Inner {
    /// Returns when the vCPUs run.
    pub(super) async fn runs(&self) {
        // The sender is ours, so it lives.
        let _ = self.running.subscribe().wait_for(|running| *running).await;
    }

    /// The machine ends.
    pub(super) fn end(&self, exit: Exit) {
        self.exit.send_if_modified(|now| {
            let first = now.is_none();
            if first {
                *now = Some(exit);
                self.shared.live.fetch_sub(1, Ordering::SeqCst);
            }
            first
        });
    }

    fn check(&self) -> Result<(), MachineError> {
        match self.exit.borrow().clone() {
            Some(exit) => Err(MachineError::Gone(exit)),
            None => Ok(()),
        }
    }

    async fn ended(&self) {
        // The sender is ours, so it lives.
        let _ = self.exit.subscribe().wait_for(Option::is_some).await;
    }
}

// === impl FakeMachine ===

impl FakeMachine {
    pub(super) fn start(guest: Guest, booted: bool, shared: Arc<Shared>) -> Self {
        shared.live.fetch_add(1, Ordering::SeqCst);
        let mut crash = shared.crash.subscribe();
        let inner = Arc::new(Inner {
            shared,
            guest: Mutex::new(guest),
            running: watch::Sender::new(booted),
            exit: watch::Sender::new(None),
        });
        let watched = Arc::clone(&inner);
        tokio::spawn(async move {
            tokio::select! {
                changed = crash.changed() => if changed.is_ok() { watched.end(died()) },
                () = watched.ended() => {}
            }
        });
        Self {
            inner,
            loaded: !booted,
        }
    }
}

#[async_trait]
impl Machine for FakeMachine {
    async fn resume(&self) -> Result<(), MachineError> {
        self.inner.check()?;
        if self.inner.shared.fails(Fault::Resume) {
            return Err(MachineError::Refused("told to fail".to_owned()));
        }
        self.inner.running.send_replace(true);
        Ok(())
    }

    async fn pause(&self) -> Result<(), MachineError> {
        self.inner.check()?;
        self.inner.running.send_replace(false);
        Ok(())
    }

    async fn capture(&self, spec: CaptureSpec) -> Result<Captured, CaptureError> {
        self.inner.shared.captures.send_modify(|begun| *begun += 1);
        tokio::select! {
            () = released(&self.inner.shared.held) => {}
            () = self.inner.ended() => {}
        }
        self.inner.check().map_err(CaptureError::Lost)?;
        if *self.inner.running.borrow() {
            return Err(CaptureError::Refused("the machine runs".to_owned()));
        }
        assert!(
            !self.inner.shared.fails(Fault::CapturePanic),
            "scripted panic"
        );
        if self.inner.shared.fails(Fault::Space) {
            return Err(CaptureError::NoSpace);
        }
        if self.inner.shared.fails(Fault::Capture) {
            return Err(CaptureError::Refused("told to fail".to_owned()));
        }
        let captured = self.inner.guest.lock().capture(spec);
        captured.map_err(|error| CaptureError::Refused(error.to_string()))
    }

    async fn advance(&self, tops: Vec<TopLayer>) -> Result<(), MachineError> {
        self.inner.check()?;
        let mut guest = self.inner.guest.lock();
        if self.inner.shared.fails(Fault::Advance) || tops.len() != guest.disks.len() {
            return Err(MachineError::Refused("told to fail".to_owned()));
        }
        guest
            .disks
            .iter_mut()
            .zip(tops)
            .for_each(|(disk, top)| disk.advance(top));
        Ok(())
    }

    async fn dial(&self, port: u32) -> Result<UnixStream, DialError> {
        if self.inner.check().is_err()
            || !matches!(
                port,
                guest::HOST_PORT | guest::AGENT_PORT | guest::RELAY_PORT
            )
        {
            return Err(DialError::Closed(port));
        }
        let (host, stream) = UnixStream::pair().map_err(DialError::Io)?;
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            let ended = Arc::clone(&inner);
            tokio::select! {
                () = guest::serve(inner, port, stream) => {}
                () = ended.ended() => {}
            }
        });
        Ok(host)
    }

    async fn kill(&self) {
        self.inner.end(Exit::Killed);
    }

    fn exit(&self) -> watch::Receiver<Option<Exit>> {
        self.inner.exit.subscribe()
    }

    fn load_report(&self) -> Option<LoadReport> {
        let tick = Duration::from_micros(1);
        let report = LoadReport {
            image: tick,
            memory: tick,
            prefetch: Duration::ZERO,
            state: tick,
        };
        self.loaded.then_some(report)
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }
}

impl Drop for FakeMachine {
    fn drop(&mut self) {
        self.inner.end(Exit::Killed);
    }
}
