//! In-memory files, and the files of a capture.

use std::{
    fs::File,
    os::{fd::OwnedFd, unix::fs::FileExt},
    sync::Arc,
};

use rustix::fs::{MemfdFlags, memfd_create};

use crate::{
    CaptureError, CaptureSpec, Captured, Disk, LoadSpec, Machine, MachineFiles, MemorySource,
    PAGE_SIZE, PageRecord, TopLayer,
};

/// Bytes of guest memory.
pub(super) const MEMORY: u64 = 16 << 20;
/// Blocks of the disks of the suite, not a multiple of 8.
pub(super) const DISK_BLOCKS: u64 = 20;
/// Offset of block 0 in their top layers.
pub(super) const TOP_OFFSET: u64 = 8192;

/// Creates an empty file in memory.
pub(super) fn empty() -> File {
    memfd_create("contract", MemfdFlags::CLOEXEC)
        .unwrap()
        .into()
}

/// Creates a file with this content.
pub(super) fn file(content: &[u8]) -> File {
    let file = empty();
    file.write_all_at(content, 0).unwrap();
    file
}

/// Reads all of a file.
pub(super) fn content(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Creates a disk of this number of blocks over an empty base, and returns its top layer as well.
pub(super) fn disk(blocks: u64) -> (Disk, File) {
    let top = empty();
    let disk = Disk {
        size: blocks * PAGE_SIZE as u64,
        base: empty(),
        layers: Vec::new(),
        top: top_layer(&top),
    };
    (disk, top)
}

pub(super) fn top_layer(file: &File) -> TopLayer {
    TopLayer {
        file: file.try_clone().unwrap(),
        blocks_offset: TOP_OFFSET,
    }
}

/// Reads a block of a top layer; all zeroes if the file is too short.
pub(super) fn block(top: &File, number: u64) -> Vec<u8> {
    let mut bytes = vec![0; PAGE_SIZE];
    let at = TOP_OFFSET + number * PAGE_SIZE as u64;
    if top.metadata().unwrap().len() >= at + PAGE_SIZE as u64 {
        top.read_exact_at(&mut bytes, at).unwrap();
    }
    bytes
}

/// Files of one capture.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) image: File,
    /// Guest memory: captured pages at their addresses, zeroes elsewhere.
    pub(super) memory: Arc<OwnedFd>,
    pub(super) index: File,
    pub(super) bitmaps: Vec<File>,
    pub(super) captured: Captured,
}

impl Snapshot {
    /// Captures state, memory and this number of disk bitmaps.
    pub(super) async fn take(machine: &dyn Machine, disks: usize) -> Result<Self, CaptureError> {
        let memory = empty();
        memory.set_len(MEMORY).unwrap();
        let (image, index) = (empty(), empty());
        let bitmaps: Vec<File> = (0..disks).map(|_| empty()).collect();
        let spec = CaptureSpec {
            machine: Some(MachineFiles {
                image: image.try_clone().unwrap(),
                pages: memory.try_clone().unwrap(),
                pages_offset: 0,
                page_index: index.try_clone().unwrap(),
            }),
            disk_bitmaps: bitmaps
                .iter()
                .map(|file| file.try_clone().unwrap())
                .collect(),
        };
        let captured = machine.capture(spec).await?;
        Ok(Self {
            image,
            memory: Arc::new(memory.into()),
            index,
            bitmaps,
            captured,
        })
    }

    /// Builds a spec that loads the snapshot as a copy-on-write fork.
    pub(super) fn load_spec(&self, disks: Vec<Disk>) -> LoadSpec {
        LoadSpec {
            image: self.image.try_clone().unwrap(),
            memory: MemorySource::Cow(Arc::clone(&self.memory)),
            disks,
            console: empty(),
        }
    }

    pub(super) fn records(&self) -> Vec<PageRecord> {
        let bytes = content(&self.index);
        let (records, rest) = bytes.as_chunks::<{ PageRecord::SIZE }>();
        assert!(rest.is_empty());
        records
            .iter()
            .map(|record| PageRecord::decode(record).unwrap())
            .collect()
    }

    /// Returns the numbers of the captured pages.
    pub(super) fn pages(&self) -> Vec<u64> {
        self.records()
            .iter()
            .map(|record| u64::from(record.number))
            .collect()
    }

    /// Reads a page of the captured memory.
    pub(super) fn page(&self, number: u64) -> Vec<u8> {
        let memory = File::from(self.memory.try_clone().unwrap());
        let mut bytes = vec![0; PAGE_SIZE];
        memory
            .read_exact_at(&mut bytes, number * PAGE_SIZE as u64)
            .unwrap();
        bytes
    }
}

/// Builds a spec that captures disk bitmaps only.
pub(super) fn bitmaps_only(bitmaps: &[File]) -> CaptureSpec {
    CaptureSpec {
        machine: None,
        disk_bitmaps: bitmaps
            .iter()
            .map(|file| file.try_clone().unwrap())
            .collect(),
    }
}

/// Returns whether the machine is paused; a capture succeeds only then.
pub(super) async fn is_paused(machine: &dyn Machine) -> bool {
    match machine.capture(bitmaps_only(&[])).await {
        Ok(_) => true,
        Err(CaptureError::Refused(_)) => false,
        Err(error) => panic!("{error:?}"),
    }
}
