//! A userfaultfd over guest memory.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use userfaultfd::{FeatureFlags, RegisterMode, Uffd, UffdBuilder};

use super::mmap::Reservation;

/// Write faults on protected pages are resolved by the kernel itself, and `PAGEMAP_SCAN` tells which were written.
const WP_ASYNC: u64 = 1 << 15;

/// Registers all of the reservation for missing pages and asynchronous write protection. Its pages must not have been
/// touched.
pub(crate) fn register(memory: &Reservation) -> io::Result<OwnedFd> {
    let uffd: Uffd = UffdBuilder::new()
        .close_on_exec(true)
        .non_blocking(true)
        // Most faults are the kernel's own, on KVM's behalf.
        .user_mode_only(false)
        .require_features(
            FeatureFlags::PAGEFAULT_FLAG_WP | FeatureFlags::from_bits_retain(WP_ASYNC),
        )
        .create()
        .map_err(io::Error::other)?;
    let base = memory.address() as *mut libc::c_void;
    uffd.register_with_mode(
        base,
        memory.len(),
        RegisterMode::MISSING | RegisterMode::WRITE_PROTECT,
    )
    .map_err(io::Error::other)?;
    // Not `into_raw_fd`, which closes what it gives away (userfaultfd 0.9.0).
    uffd.as_fd().try_clone_to_owned()
}
