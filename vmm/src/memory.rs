//! Guest memory: layout, source, and capture of changed pages.

use std::{
    fs::File,
    io,
    os::{fd::OwnedFd, unix::fs::FileExt},
};

use kvm_ioctls::VmFd;
use userfaultfd::Uffd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, GuestRegionMmap};
use vmm_api::{PAGE_SIZE, PageRecord, page_digest};

use crate::sys::{
    kvm,
    mmap::Reservation,
    pagemap::{self, Changed, Run},
    uffd,
};

/// Start of the MMIO hole in guest-physical address space, which ends at [`HOLE_END`].
pub(crate) const HOLE_START: u64 = 0xc000_0000;
/// End of the MMIO hole; memory that does not fit below the hole continues here.
pub(crate) const HOLE_END: u64 = 1 << 32;
/// Granularity of guest memory: 2 MiB.
const GRANULE: u64 = 2 << 20;
/// Maximum guest memory: 1 TiB, whose page numbers fit in 32 bits.
const LIMIT: u64 = 1 << 40;

/// Guest memory as vm-memory accesses it.
pub(crate) type GuestMemory = GuestMemoryMmap<()>;

/// The memory of one guest.
#[derive(Debug)]
pub(crate) struct Memory {
    reservation: Reservation,
    guest: GuestMemory,
    pagemap: File,
    userfaultfd: io::Result<Uffd>,
    source: Source,
}

/// Source of the memory's content.
#[derive(Debug)]
enum Source {
    /// Private memory: zeroes for a booted guest, or a copy-on-write mapping of a memfd.
    Private,
    /// A pager. The memory's userfaultfd stays open until the process exits, because closing the last descriptor would
    /// resume a faulting vCPU with a page of zeroes.
    Paged,
}

/// Numbers of captured pages.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PageCounts {
    pub(crate) pages: u64,
    pub(crate) zero_pages: u64,
}

impl Memory {
    /// Reserves `len` bytes and adds them to the VM as memory slots. Call it before creating an interrupt controller or
    /// irqfd: a memory slot created after those waits several milliseconds for a grace period.
    pub(crate) fn new(
        vm: &VmFd,
        len: u64,
        pagemap: File,
        userfaultfd: io::Result<Uffd>,
    ) -> io::Result<Self> {
        if len == 0 || !len.is_multiple_of(GRANULE) || len > LIMIT {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("guest memory of {len} bytes is not a multiple of 2 MiB up to 1 TiB"),
            ));
        }
        let size = usize::try_from(len).map_err(io::Error::other)?;
        let reservation = Reservation::new(size)?;
        let low = len.min(HOLE_START);
        let mut parts = vec![(0, 0, low)];
        if len > low {
            parts.push((HOLE_END, low, len - low));
        }
        let mut regions = Vec::new();
        for (slot, (guest, offset, len)) in (0_u32..).zip(parts) {
            let (offset, len) = (usize::try_from(offset), usize::try_from(len));
            let (Ok(offset), Ok(len)) = (offset, len) else {
                return Err(io::ErrorKind::InvalidInput.into());
            };
            kvm::add_memory(vm, slot, guest, &reservation, offset, len)?;
            let region =
                GuestRegionMmap::new(reservation.region(offset, len)?, GuestAddress(guest))
                    .ok_or(io::ErrorKind::InvalidInput)?;
            regions.push(region);
        }
        let guest = GuestMemory::from_regions(regions).map_err(io::Error::other)?;
        Ok(Self {
            reservation,
            guest,
            pagemap,
            userfaultfd,
            source: Source::Private,
        })
    }

    /// Returns the memory as devices access it.
    pub(crate) fn guest(&self) -> &GuestMemory {
        &self.guest
    }

    /// Returns the size in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.reservation.len() as u64
    }

    /// Returns the address of the memory in this process.
    pub(crate) fn address(&self) -> u64 {
        self.reservation.address()
    }

    /// Maps a memfd that holds all of guest memory, copy-on-write.
    pub(crate) fn map_copy_on_write(&mut self, memfd: &File) -> io::Result<()> {
        let len = memfd.metadata()?.len();
        if len != self.len() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("the memory file has {len} bytes, the guest {}", self.len()),
            ));
        }
        self.reservation.map_private(memfd)
    }

    /// Registers the memory with a userfaultfd and returns a descriptor for the pager.
    pub(crate) fn register_userfaultfd(&mut self) -> io::Result<OwnedFd> {
        let uffd = match &self.userfaultfd {
            Ok(uffd) => uffd,
            Err(error) => return Err(io::Error::new(error.kind(), error.to_string())),
        };
        let duplicate = uffd::register(uffd, &self.reservation)?;
        self.source = Source::Paged;
        Ok(duplicate)
    }

    /// Writes the pages that changed since the source to `pages` at `pages_offset`, and a record of each to `index`.
    /// The vCPUs and devices must be stopped.
    pub(crate) fn capture(
        &self,
        pages: &File,
        pages_offset: u64,
        index: &File,
    ) -> io::Result<PageCounts> {
        let changed = match self.source {
            Source::Private => Changed::Anonymous,
            Source::Paged => Changed::Written,
        };
        let (start, end) = (self.address(), self.address() + self.len());
        let mut writer = PageWriter {
            pages,
            pages_offset,
            records: Vec::new(),
            counts: PageCounts::default(),
        };
        let mut buffer = vec![0_u8; BATCH * PAGE_SIZE];
        for run in pagemap::scan(&self.pagemap, start, end, changed)? {
            self.capture_run(run, &mut writer, &mut buffer)?;
        }
        index.write_all_at(&writer.records, 0)?;
        Ok(writer.counts)
    }

    fn capture_run(
        &self,
        run: Run,
        writer: &mut PageWriter<'_>,
        buffer: &mut [u8],
    ) -> io::Result<()> {
        let page = PAGE_SIZE as u64;
        let (Some(start), Some(end)) = (
            run.start.checked_sub(self.address()),
            run.end.checked_sub(self.address()),
        ) else {
            return Err(io::Error::other(
                "the page map scan returned a page outside guest memory",
            ));
        };
        let mut number = start / page;
        while number < end / page {
            // vm-memory does not read a slice across the hole.
            let end = if number * page < HOLE_START {
                (end / page).min(HOLE_START / page)
            } else {
                end / page
            };
            let count = (end - number).min(BATCH as u64);
            let bytes = usize::try_from(count * page).map_err(io::Error::other)?;
            let batch = buffer.get_mut(..bytes).ok_or(io::ErrorKind::InvalidInput)?;
            self.guest
                .read_slice(batch, guest_address(number * page))
                .map_err(io::Error::other)?;
            writer.write(number, batch)?;
            number += count;
        }
        Ok(())
    }
}

/// Number of pages in one read and write.
const BATCH: usize = 64;

/// Converts an offset in guest memory to a guest-physical address.
fn guest_address(offset: u64) -> GuestAddress {
    GuestAddress(if offset < HOLE_START {
        offset
    } else {
        offset - HOLE_START + HOLE_END
    })
}

struct PageWriter<'a> {
    pages: &'a File,
    pages_offset: u64,
    records: Vec<u8>,
    counts: PageCounts,
}

impl PageWriter<'_> {
    /// Writes a run of pages from page `first`, except those that are all zeroes.
    fn write(&mut self, first: u64, bytes: &[u8]) -> io::Result<()> {
        let mut pending = 0..0;
        for (number, page) in (first..).zip(bytes.chunks_exact(PAGE_SIZE)) {
            let at = usize::try_from(number - first).map_err(io::Error::other)? * PAGE_SIZE;
            let zero = is_zero(page);
            let digest = page_digest(page);
            let record = PageRecord {
                number: u32::try_from(number).map_err(io::Error::other)?,
                zero,
                digest,
            };
            self.records.extend_from_slice(&record.encode());
            self.counts.pages += 1;
            if zero {
                self.counts.zero_pages += 1;
                self.flush(first, bytes, &pending)?;
                pending = at + PAGE_SIZE..at + PAGE_SIZE;
            } else {
                pending.end = at + PAGE_SIZE;
            }
        }
        self.flush(first, bytes, &pending)
    }

    fn flush(&self, first: u64, bytes: &[u8], pending: &std::ops::Range<usize>) -> io::Result<()> {
        match bytes.get(pending.clone()) {
            Some([]) | None => Ok(()),
            Some(run) => {
                let at = self.pages_offset + first * PAGE_SIZE as u64 + pending.start as u64;
                self.pages.write_all_at(run, at)
            }
        }
    }
}

fn is_zero(page: &[u8]) -> bool {
    // The compiler vectorises a comparison by words.
    page.chunks_exact(8).all(|word| word == [0; 8])
}
