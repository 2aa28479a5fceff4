//! System calls that are unsafe in rustix.

use std::io;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Makes the processes that the calling thread spawns from now on start in a new PID namespace. The first of them is its
/// process 1; a thread can do this once.
pub(crate) fn unshare_child_pids() -> io::Result<()> {
    // SAFETY: unshare_unsafe is unsafe for `UnshareFlags::FILES`, which is not among the flags.
    Ok(unsafe { unshare_unsafe(UnshareFlags::NEWPID) }?)
}
