//! Memory and disks of a guest of the fake.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::fs::FileExt},
    sync::Arc,
};

use super::disk::{Block, FakeDisk};
use crate::{
    CaptureSpec, Captured, Disk, LoadError, LoadSpec, MachineFiles, MemorySource, NextLayers,
    PAGE_SIZE, PageRecord, page_digest,
};

/// Number of vCPUs and bytes of memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) vcpus: u8,
    pub(super) memory: u64,
}

/// Memory and disks of a guest.
#[derive(Debug)]
pub(super) struct GuestState {
    shape: Shape,
    /// The memfd that it was loaded from.
    source: Option<Arc<OwnedFd>>,
    /// Pages written since.
    changed: BTreeMap<u32, Block>,
    disks: Vec<FakeDisk>,
    console: File,
    /// The filesystem is frozen: writes to the disk fail.
    pub(super) frozen: bool,
}

impl GuestState {
    pub(super) fn boot(shape: Shape, disks: Vec<Disk>, console: File) -> io::Result<Self> {
        let mut guest = Self::new(shape, None, disks, console)?;
        guest.write(1, "booted")?;
        guest.console.write_all(b"booted\n")?;
        Ok(guest)
    }

    pub(super) fn load(shape: Shape, spec: LoadSpec) -> Result<Self, LoadError> {
        let mut image = String::new();
        let mut file = &spec.image;
        io::Seek::rewind(&mut file)
            .and_then(|()| file.take(4096).read_to_string(&mut image))
            .map_err(|error| LoadError::Image(error.to_string()))?;
        let refused = |error: io::Error| LoadError::Refused(error.to_string());
        let MemorySource::Cow(source) = spec.memory else {
            return Err(LoadError::Refused(
                "the fake supports copy-on-write memory only".to_owned(),
            ));
        };
        let stat = rustix::fs::fstat(&source).map_err(|errno| refused(errno.into()))?;
        if u64::try_from(stat.st_size).ok() != Some(shape.memory) {
            return Err(LoadError::Refused(format!(
                "the memory file has {} bytes",
                stat.st_size
            )));
        }
        let guest = Self::new(shape, Some(source), spec.disks, spec.console).map_err(refused)?;
        if image == guest.image() {
            Ok(guest)
        } else {
            Err(LoadError::Image(
                "it is not of a machine like this one".to_owned(),
            ))
        }
    }

    fn new(
        shape: Shape,
        source: Option<Arc<OwnedFd>>,
        disks: Vec<Disk>,
        console: File,
    ) -> io::Result<Self> {
        let disks = disks
            .into_iter()
            .map(FakeDisk::open)
            .collect::<io::Result<_>>()?;
        Ok(Self {
            shape,
            source,
            changed: BTreeMap::new(),
            disks,
            console,
            frozen: false,
        })
    }

    /// Writes text to the start of a page.
    pub(super) fn write(&mut self, page: u32, text: &str) -> io::Result<()> {
        if u64::from(page) >= self.shape.memory / PAGE_SIZE as u64 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.changed.insert(page, block_of(text)?);
        Ok(())
    }

    /// Reads the text at the start of a page.
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

    /// Writes text to the start of a block of the first disk.
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

    /// Reads the text at the start of a block of the first disk.
    pub(super) fn disk_read(&self, block: u32) -> io::Result<String> {
        let disk = self.disks.first().ok_or(io::ErrorKind::NotFound)?;
        Ok(text_of(&disk.read(block.into())?))
    }

    pub(super) fn disk_count(&self) -> usize {
        self.disks.len()
    }

    /// Returns the number of sealed layers of the first disk.
    pub(super) fn disk_layers(&self) -> io::Result<usize> {
        let disk = self.disks.first().ok_or(io::ErrorKind::NotFound)?;
        Ok(disk.layer_count())
    }

    /// Seals the top layer of each disk.
    pub(super) fn advance(&mut self, next: Vec<NextLayers>) -> io::Result<()> {
        let next = self.disks.iter().zip(next);
        let next = next
            .map(|(disk, next)| disk.open_next(next))
            .collect::<io::Result<Vec<_>>>()?;
        for (disk, next) in self.disks.iter_mut().zip(next) {
            disk.advance(next);
        }
        Ok(())
    }

    pub(super) fn capture(&self, mut spec: CaptureSpec) -> io::Result<Captured> {
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
        let image = self.image();
        files.image.write_all(image.as_bytes())?;
        let mut captured = Captured {
            image_len: image.len() as u64,
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

    /// The machine image: the shape of the machine, because the fake has no other state.
    fn image(&self) -> String {
        let disks: Vec<u64> = self.disks.iter().map(FakeDisk::blocks).collect();
        let Shape { vcpus, memory } = self.shape;
        format!("fake machine: {vcpus} vCPUs, {memory} bytes, disks {disks:?}\n")
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
