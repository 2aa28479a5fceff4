//! What a monitor is given.

use std::{fmt, fs::File, os::fd::OwnedFd, path::PathBuf, sync::Arc};

/// A monitor to be made ahead of its guest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BlankSpec {
    /// Virtual CPUs, at least 1.
    pub vcpus: u8,
    /// Guest memory in bytes, a multiple of 2 MiB.
    pub memory: u64,
    /// An existing directory of the monitor's own, for its socket.
    pub run_dir: PathBuf,
}

/// A guest to be started from a kernel.
#[derive(Debug)]
pub struct BootSpec {
    /// An uncompressed ELF kernel for x86-64.
    pub kernel: File,
    /// Its command line; the monitor adds what its devices and this host need.
    pub command_line: String,
    /// Its disks, `/dev/vda` first.
    pub disks: Vec<Disk>,
    /// Where the serial console is appended.
    pub console: File,
}

/// A guest to be taken out of a file.
#[derive(Debug)]
pub struct LoadSpec {
    /// What [`CaptureSpec::image`] was; read as untrusted input.
    pub image: File,
    /// Where its memory comes from.
    pub memory: MemorySource,
    /// Its disks, as many and as large as when it was captured.
    pub disks: Vec<Disk>,
    /// Where the serial console is appended.
    pub console: File,
}

/// How memory arrives.
#[derive(Debug, Clone)]
pub enum MemorySource {
    /// A private map of a resident memfd that holds all of guest memory; the kernel copies a page on its first write.
    Cow(Arc<OwnedFd>),
    /// Page by page, by a pager behind a userfaultfd.
    Paged(Arc<dyn Pager>),
}

/// Serves the page faults of one machine.
pub trait Pager: fmt::Debug + Send + Sync {
    /// Takes over the faults of `region`, whose pages are all missing. The region is registered for missing pages and,
    /// asynchronously, for write protection: a page installed write-protected counts as unchanged until the guest writes
    /// it. Installs the recorded working set, if there is one, before it returns; then serves until the machine is gone.
    fn attach(
        &self,
        uffd: OwnedFd,
        region: MemoryRegion,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

/// Guest memory as it lies in the monitor's address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryRegion {
    /// Address of its first byte there.
    pub base: u64,
    /// Its length in bytes.
    pub len: u64,
}

/// A disk: layers over a base, under a writable top. All count in blocks of 4096 bytes.
#[derive(Debug)]
pub struct Disk {
    /// Size in bytes, a multiple of 4096.
    pub size: u64,
    /// The raw image below everything; shorter than `size` reads as zeroes beyond its end.
    pub base: File,
    /// What changed since, oldest first. Never written.
    pub layers: Vec<DiskLayer>,
    /// What the guest writes.
    pub top: TopLayer,
}

/// A sealed layer of a disk, checked by whoever hands it over.
#[derive(Debug)]
pub struct DiskLayer {
    /// The layer's file.
    pub file: File,
    /// Where its bitmap lies in the file: one bit a block, least significant first, a set bit meaning that the layer
    /// has the block.
    pub bitmap_offset: u64,
    /// Where block 0 would lie; block `n` lies `n * 4096` further.
    pub blocks_offset: u64,
}

/// The writable layer of a disk: an empty sparse file to begin with.
#[derive(Debug)]
pub struct TopLayer {
    /// The file, open for reading and writing.
    pub file: File,
    /// Where block 0 would lie; block `n` lies `n * 4096` further.
    pub blocks_offset: u64,
}

/// Where a capture goes.
#[derive(Debug)]
pub struct CaptureSpec {
    /// Takes state and memory. `None`: only the disks are written down.
    pub machine: Option<MachineFiles>,
    /// For each disk, takes the bitmap of its top layer, as long as the disk has blocks, in whole bytes. Empty files.
    pub disk_bitmaps: Vec<File>,
}

/// What takes a machine's state and memory.
#[derive(Debug)]
pub struct MachineFiles {
    /// Takes the machine's state, whole. An empty file.
    pub image: File,
    /// Takes the pages that changed since the memory source; page `n` at `pages_offset + n * 4096`, zero pages left out.
    pub pages: File,
    /// Where page 0 would lie in `pages`.
    pub pages_offset: u64,
    /// Takes one [`crate::PageRecord`] for each changed page, ascending. An empty file.
    pub page_index: File,
}

/// What a capture wrote; all zero when only the disks were. Nothing is synced: that is for whoever owns the files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Captured {
    /// Bytes of machine state.
    pub image_len: u64,
    /// Changed pages, zero pages among them.
    pub pages: u64,
    /// Changed pages that hold zeroes only.
    pub zero_pages: u64,
}
