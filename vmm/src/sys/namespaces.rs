//! Namespaces of the process.

use rustix::{
    io::Errno,
    thread::{UnshareFlags, unshare_unsafe},
};

/// Moves the calling thread to network, IPC and UTS namespaces of its own. Call it while there is no other thread.
pub(crate) fn unshare_host() -> Result<(), Errno> {
    let flags = UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    // SAFETY: unshare_unsafe is unsafe for `UnshareFlags::FILES`, which is not among the flags.
    unsafe { unshare_unsafe(flags) }
}
