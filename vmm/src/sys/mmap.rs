//! Reserved range of the process's address space for guest memory.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    ptr::NonNull,
};

use vm_memory::MmapRegion;

/// A reserved address range. It stays mapped until the process exits, because vCPUs, devices and KVM memory slots hold
/// addresses in it.
#[derive(Debug)]
pub(crate) struct Reservation {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a `Reservation` is an address and a length. The range holds guest memory, which vCPUs share, and is accessed
// through volatile operations (vm-memory) or by the kernel only.
unsafe impl Send for Reservation {}
// SAFETY: as above; no method returns a reference into the range.
unsafe impl Sync for Reservation {}

impl Reservation {
    /// Maps `len` bytes of private anonymous memory, which takes no memory until it is touched.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: mmap without MAP_FIXED replaces no existing mapping; address and offset are zero.
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
        // A huge page zeroes 2 MiB at once and makes changes indistinguishable below that size.
        // SAFETY: madvise reads no memory; the range was mapped just now and NOHUGEPAGE changes no content.
        let rc = unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_NOHUGEPAGE) };
        // EINVAL: the kernel has no huge pages.
        if rc != 0 && io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL) {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { base, len })
    }

    /// Replaces the mapping with a private, copy-on-write mapping of a file from its start.
    pub(crate) fn map_private(&self, file: impl AsFd) -> io::Result<()> {
        let flags = libc::MAP_PRIVATE | libc::MAP_NORESERVE | libc::MAP_FIXED;
        let fd = file.as_fd().as_raw_fd();
        // SAFETY: MAP_FIXED replaces exactly the range that `self` owns; no Rust reference into it exists, and KVM
        // updates its memory slots through MMU notifiers.
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

    /// Returns the address of the first byte.
    pub(crate) fn address(&self) -> u64 {
        self.base.as_ptr() as u64
    }

    /// Returns the length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns a part of the range as a vm-memory region, which does not unmap it when dropped.
    pub(crate) fn region(&self, offset: usize, len: usize) -> io::Result<MmapRegion> {
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let start = self.base.as_ptr().wrapping_add(offset);
        // SAFETY: build_raw requires a mapping of `len` bytes at `start` that outlives the region: the range is part
        // of the reservation (checked above), which is never unmapped.
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
