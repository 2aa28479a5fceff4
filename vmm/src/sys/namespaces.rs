//! Namespaces of the process.

use rustix::{
    io::Errno,
    thread::{UnshareFlags, unshare_unsafe},
};

/// Moves the calling thread to mount, network, IPC, UTS and control group namespaces of its own. Call it while there is
/// no other thread.
pub(crate) fn unshare() -> Result<(), Errno> {
    let flags = UnshareFlags::NEWNS
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWCGROUP;
    // SAFETY: unshare_unsafe is unsafe for `UnshareFlags::FILES`, which is not among the flags.
    unsafe { unshare_unsafe(flags) }
}
