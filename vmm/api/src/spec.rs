//! Inputs and results of the operations on blanks and machines.

use std::{fmt, fs::File, os::fd::OwnedFd, path::PathBuf, sync::Arc};

/// Shape of a VM to create ahead of its guest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BlankSpec {
    /// Virtual CPUs, 1 to 32.
    pub vcpus: u8,
    /// Guest memory in bytes, a multiple of 2 MiB up to 1 TiB.
    pub memory: u64,
    /// An existing directory that only this monitor uses, for its stream socket.
    pub run_dir: PathBuf,
}

/// A kernel to boot.
#[derive(Debug)]
pub struct BootSpec {
    /// An uncompressed ELF kernel for x86-64.
    pub kernel: File,
    /// Its command line. The monitor prepends the parameters that its devices and this host need.
    pub command_line: String,
    /// Its disks, `/dev/vda` first.
    pub disks: Vec<Disk>,
    /// The file to which the serial console appends.
    pub console: File,
}

/// A captured guest to load.
#[derive(Debug)]
pub struct LoadSpec {
    /// The file that [`MachineFiles::image`] named, read as untrusted input.
    pub image: File,
    /// The source of guest memory.
    pub memory: MemorySource,
    /// Its disks, of the same number and sizes as when it was captured.
    pub disks: Vec<Disk>,
    /// The file to which the serial console appends.
    pub console: File,
}

/// The source of guest memory.
#[derive(Debug, Clone)]
pub enum MemorySource {
    /// A private mapping of a memfd that holds all of guest memory; the kernel copies a page on its first write.
    Cow(Arc<OwnedFd>),
    /// A pager that serves page faults through a userfaultfd.
    Paged(Arc<dyn Pager>),
}

/// Serves the page faults of one machine.
///
/// The trait inverts a dependency: the snapshotter owns the pages and depends on this crate, which hands it the
/// userfaultfd. The contract suite implements it with a pager that fails.
pub trait Pager: fmt::Debug + Send + Sync {
    /// Takes over the faults of `region`, all of whose pages are missing. The region is registered for missing pages
    /// and for asynchronous write protection: a page installed write-protected counts as unchanged until the guest
    /// writes it. Installs the recorded working set, if any, before it returns, then serves faults until the machine
    /// ends.
    fn attach(
        &self,
        uffd: OwnedFd,
        region: MemoryRegion,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

/// Guest memory in the address space of the monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryRegion {
    /// Address of its first byte.
    pub base: u64,
    /// Length in bytes.
    pub len: u64,
}

/// A disk: read-only layers over a base image, under a writable top layer. The unit is a block of 4096 bytes.
#[derive(Debug)]
pub struct Disk {
    /// Size in bytes, a multiple of 4096.
    pub size: u64,
    /// The raw base image; blocks beyond its end read as zeroes.
    pub base: File,
    /// Sealed layers, oldest first.
    pub layers: Vec<DiskLayer>,
    /// The layer that the guest writes.
    pub top: TopLayer,
}

/// A sealed layer of a disk. The caller has verified it.
#[derive(Debug)]
pub struct DiskLayer {
    /// The layer's file.
    pub file: File,
    /// Offset of the bitmap in the file: one bit for each block, least significant first, set if the layer has the
    /// block.
    pub bitmap_offset: u64,
    /// Offset of block 0; block `n` is at `n * 4096` from there.
    pub blocks_offset: u64,
}

/// The writable layer of a disk: initially an empty sparse file.
#[derive(Debug)]
pub struct TopLayer {
    /// The file, open for reading and writing.
    pub file: File,
    /// Offset of block 0; block `n` is at `n * 4096` from there.
    pub blocks_offset: u64,
}

/// The layers with which a disk of a paused machine continues.
#[derive(Debug)]
pub struct NextLayers {
    /// The layer that the guest writes from now on.
    pub top: TopLayer,
    /// The sealed layers below it, oldest first, in place of all present ones, whose content they have. `None`: the
    /// present layers, with the present top layer as the newest.
    pub sealed: Option<Vec<DiskLayer>>,
}

/// Files that a capture writes.
#[derive(Debug)]
pub struct CaptureSpec {
    /// Files for state and memory; `None` to write the disk bitmaps only.
    pub machine: Option<MachineFiles>,
    /// For each disk an empty file for the bitmap of its top layer: one bit for each block, in whole bytes.
    pub disk_bitmaps: Vec<File>,
}

/// Files for the state and memory of a machine.
#[derive(Debug)]
pub struct MachineFiles {
    /// An empty file for the machine's state.
    pub image: File,
    /// A file for the changed pages: page `n` at `pages_offset + n * 4096`, without pages that are all zeroes.
    pub pages: File,
    /// Offset of page 0 in `pages`.
    pub pages_offset: u64,
    /// An empty file for one [`crate::PageRecord`] for each changed page, in ascending order.
    pub page_index: File,
}

/// Sizes of a capture; all zero if only disk bitmaps were written. The owner of the files syncs them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Captured {
    /// Bytes of machine state.
    pub image_len: u64,
    /// Changed pages, including those that are all zeroes.
    pub pages: u64,
    /// Changed pages that are all zeroes.
    pub zero_pages: u64,
}
