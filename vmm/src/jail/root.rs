//! Root directory of the jail: an empty, read-only file system.

use rustix::{
    io::Errno,
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount},
    process::{chdir, pivot_root},
};

/// A directory of every host, on which the empty file system is mounted.
const MOUNT_POINT: &str = "/proc";

/// Replaces the root directory of this mount namespace. Nothing of the host's file systems stays reachable by name.
pub(super) fn empty() -> Result<(), Errno> {
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
    mount(
        "jail",
        MOUNT_POINT,
        "tmpfs",
        flags,
        c"size=4k,nr_inodes=1,mode=555",
    )?;
    chdir(MOUNT_POINT)?;
    // The old root is stacked on the new one, and then detached.
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")
}
