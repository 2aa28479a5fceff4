//! userfaultfd of guest memory.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use userfaultfd::{FeatureFlags, RegisterMode, Uffd, UffdBuilder};

use super::mmap::Reservation;

/// `UFFD_FEATURE_WP_ASYNC`: the kernel resolves write faults, and `PAGEMAP_SCAN` reports the written pages.
const WP_ASYNC: u64 = 1 << 15;

/// `UFFDIO_REGISTER` of `linux/userfaultfd.h`.
pub(crate) const REGISTER: u32 = 0xc020_aa00;

/// Creates a userfaultfd.
pub(crate) fn create() -> io::Result<Uffd> {
    UffdBuilder::new()
        .close_on_exec(true)
        .non_blocking(true)
        // KVM causes most faults in kernel mode.
        .user_mode_only(false)
        .require_features(
            FeatureFlags::PAGEFAULT_FLAG_WP | FeatureFlags::from_bits_retain(WP_ASYNC),
        )
        .create()
        .map_err(io::Error::other)
}

/// Registers the reservation for missing pages and asynchronous write protection. No page of it may have been touched.
pub(crate) fn register(uffd: &Uffd, memory: &Reservation) -> io::Result<OwnedFd> {
    let base = memory.address() as *mut libc::c_void;
    uffd.register_with_mode(
        base,
        memory.len(),
        RegisterMode::MISSING | RegisterMode::WRITE_PROTECT,
    )
    .map_err(io::Error::other)?;
    // `into_raw_fd` of userfaultfd 0.9.0 closes the descriptor that it returns.
    uffd.as_fd().try_clone_to_owned()
}
