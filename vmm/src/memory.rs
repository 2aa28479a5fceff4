//! Guest memory: where it lies, how it arrives, and which of it changed.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
};

use kvm_ioctls::VmFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, GuestRegionMmap};
use vmm_api::{PAGE_SIZE, PageRecord, page_digest};

use crate::sys::{
    kvm,
    mmap::Reservation,
    pagemap::{self, Changed, Run},
    uffd,
};

/// Guest addresses from here to [`HOLE_END`] are devices', not memory.
pub(crate) const HOLE_START: u64 = 0xc000_0000;
/// Memory that does not fit below the hole goes on here.
pub(crate) const HOLE_END: u64 = 1 << 32;
/// Bytes that memory comes in: 2 MiB.
const GRANULE: u64 = 2 << 20;
/// Bytes of the largest guest, so that page numbers fit 32 bits with room to spare: 1 TiB.
const LIMIT: u64 = 1 << 40;

/// What vm-memory sees of guest memory.
pub(crate) type GuestMemory = GuestMemoryMmap<()>;

/// The memory of one guest.
#[derive(Debug)]
pub(crate) struct Memory {
    reservation: Reservation,
    guest: GuestMemory,
    pagemap: File,
    source: Source,
}

/// How it arrived.
#[derive(Debug)]
enum Source {
    /// Zeroes that the guest wrote to.
    Anonymous,
    /// A private map of a memfd.
    Cow,
    /// A pager. The duplicate stays open as long as the guest does: closing the last one would let a waiting vCPU go on
    /// with a page of zeroes.
    Paged { _uffd: OwnedFd },
}

/// What a capture of memory wrote.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PageCounts {
    pub(crate) pages: u64,
    pub(crate) zero_pages: u64,
}

impl Memory {
    /// Reserves `len` bytes and gives them to the VM. Before any interrupt chip or event descriptor: a memory slot made
    /// after those waits for a grace period of several milliseconds.
    pub(crate) fn new(vm: &VmFd, len: u64) -> io::Result<Self> {
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
            pagemap: pagemap::open()?,
            source: Source::Anonymous,
        })
    }

    /// What devices access.
    pub(crate) fn guest(&self) -> &GuestMemory {
        &self.guest
    }

    /// Bytes.
    pub(crate) fn len(&self) -> u64 {
        self.reservation.len() as u64
    }

    /// Where it lies in this process.
    pub(crate) fn address(&self) -> u64 {
        self.reservation.address()
    }

    /// Fills it from a memfd, copy on write.
    pub(crate) fn map_copy_on_write(&mut self, memfd: &File) -> io::Result<()> {
        let len = memfd.metadata()?.len();
        if len != self.len() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "the memory file has {len} bytes where the guest has {}",
                    self.len()
                ),
            ));
        }
        self.reservation.map_private(memfd)?;
        self.source = Source::Cow;
        Ok(())
    }

    /// Leaves it to a pager, whose descriptor is returned.
    pub(crate) fn register_userfaultfd(&mut self) -> io::Result<OwnedFd> {
        let uffd = uffd::register(&self.reservation)?;
        let duplicate = uffd.as_fd().try_clone_to_owned()?;
        self.source = Source::Paged { _uffd: uffd };
        Ok(duplicate)
    }

    /// Writes the pages that changed since the source to `pages` at `pages_offset`, and a record of each to `index`.
    /// The vCPUs and devices are stopped.
    pub(crate) fn capture(
        &self,
        pages: &File,
        pages_offset: u64,
        index: &File,
    ) -> io::Result<PageCounts> {
        let changed = match self.source {
            Source::Anonymous | Source::Cow => Changed::Anonymous,
            Source::Paged { .. } => Changed::Written,
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
        let (Some(from), Some(to)) = (
            run.start.checked_sub(self.address()),
            run.end.checked_sub(self.address()),
        ) else {
            return Err(io::Error::other("the page map scan left guest memory"));
        };
        let mut number = from / page;
        while number < to / page {
            // vm-memory reads no slice across the hole.
            let end = if number * page < HOLE_START {
                (to / page).min(HOLE_START / page)
            } else {
                to / page
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

/// Pages read and written at a time.
const BATCH: usize = 64;

/// Where the byte at `offset` of memory lies in the guest's address space.
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
    /// Writes a run of pages from page `first`, leaving out those that are zero.
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
    // Compared in words, which the compiler round_robin into vectors.
    page.chunks_exact(8).all(|word| word == [0; 8])
}
