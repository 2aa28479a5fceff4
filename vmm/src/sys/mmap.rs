//! A range of this process's address space that guest memory is mapped into.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    ptr::NonNull,
};

use vm_memory::MmapRegion;

/// Reserved address space. It stays mapped for the life of the process, because vCPUs, devices and the kernel's memory
/// slots hold addresses into it.
#[derive(Debug)]
pub(crate) struct Reservation {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a `Reservation` is an address and a length. What lies there is guest memory, shared with vCPUs by nature and
// accessed through volatile operations (vm-memory) or by the kernel only.
unsafe impl Send for Reservation {}
// SAFETY: as above; no method gives a reference into the range.
unsafe impl Sync for Reservation {}

impl Reservation {
    /// Maps `len` bytes of private anonymous memory that costs nothing until it is touched.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: mmap without MAP_FIXED takes no existing mapping away; address and offset are null.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                -1,
                0,
            )
        };
        let base = mapped(base)?;
        // Huge pages would be zeroed 2 MiB at a time and blur what changed.
        // SAFETY: madvise reads no memory; the range was mapped just now and NOHUGEPAGE changes no content.
        let rc = unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_NOHUGEPAGE) };
        // EINVAL: a kernel without huge pages.
        if rc != 0 && io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL) {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { base, len })
    }

    /// Replaces what is mapped by a private, copy-on-write map of a file from its beginning.
    pub(crate) fn map_private(&self, file: impl AsFd) -> io::Result<()> {
        let flags = libc::MAP_PRIVATE | libc::MAP_NORESERVE | libc::MAP_FIXED;
        let fd = file.as_fd().as_raw_fd();
        // SAFETY: MAP_FIXED replaces exactly the range that `self` owns; nothing holds a Rust reference into it, and
        // the memory slots over it follow by the kernel's notifiers.
        let base = unsafe {
            libc::mmap(
                self.base.as_ptr().cast(),
                self.len,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                fd,
                0,
            )
        };
        mapped(base).map(drop)
    }

    /// Address of the first byte.
    pub(crate) fn address(&self) -> u64 {
        self.base.as_ptr() as u64
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// A part of the range as a region that vm-memory can access. It does not unmap anything when dropped.
    pub(crate) fn region(&self, offset: usize, len: usize) -> io::Result<MmapRegion> {
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let start = self.base.as_ptr().wrapping_add(offset);
        // SAFETY: build_raw wants a mapping of `len` bytes at `start` that outlives the region: the range is part of
        // the reservation (checked above), which is never unmapped.
        unsafe {
            MmapRegion::build_raw(
                start,
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE,
            )
        }
        .map_err(io::Error::other)
    }
}

fn mapped(base: *mut libc::c_void) -> io::Result<NonNull<u8>> {
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(base.cast()).ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}
