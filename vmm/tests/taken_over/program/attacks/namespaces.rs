//! Attacks on mounts, namespaces and the identity of the process.

use std::io;

use super::{
    Attack,
    Layer::{Filter, Jail},
    address, attempt, text,
};

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "mount_proc",
        stopped_by: Jail,
        run: |_| mount("proc", "proc"),
    },
    Attack {
        name: "mount_tmpfs",
        stopped_by: Jail,
        run: |_| mount("tmpfs", "tmpfs"),
    },
    Attack {
        name: "mount_host_disk",
        stopped_by: Jail,
        run: |_| mount("/dev/vda", "ext4"),
    },
    Attack {
        name: "remount_root_writable",
        stopped_by: Jail,
        run: remount,
    },
    Attack {
        name: "unmount_root",
        stopped_by: Jail,
        run: unmount,
    },
    Attack {
        name: "pivot_root",
        stopped_by: Jail,
        run: pivot,
    },
    Attack {
        name: "change_root",
        stopped_by: Jail,
        run: |_| path(libc::SYS_chroot),
    },
    Attack {
        name: "open_mount_by_new_call",
        stopped_by: Jail,
        run: open_file_system,
    },
    // Any user may create a user namespace where the host allows it.
    Attack {
        name: "create_user_namespace",
        stopped_by: Filter,
        run: |_| attempt(libc::SYS_unshare, &[flag(libc::CLONE_NEWUSER)]),
    },
    Attack {
        name: "create_mount_namespace",
        stopped_by: Jail,
        run: |_| attempt(libc::SYS_unshare, &[flag(libc::CLONE_NEWNS)]),
    },
    Attack {
        name: "enter_namespace_of_neighbour",
        stopped_by: Jail,
        run: enter_neighbour,
    },
    Attack {
        name: "become_root",
        stopped_by: Jail,
        run: |_| attempt(libc::SYS_setuid, &[0]),
    },
    Attack {
        name: "become_root_group",
        stopped_by: Jail,
        run: |_| attempt(libc::SYS_setgid, &[0]),
    },
    Attack {
        name: "become_another_monitor",
        stopped_by: Jail,
        run: |_| attempt(libc::SYS_setuid, &[1_900_000_001]),
    },
    Attack {
        name: "join_groups",
        stopped_by: Jail,
        run: |_| attempt(libc::SYS_setgroups, &[1, address(&[0_u32])]),
    },
    Attack {
        name: "gain_capabilities",
        stopped_by: Jail,
        run: gain_capabilities,
    },
    Attack {
        name: "raise_ambient_capability",
        stopped_by: Jail,
        run: |_| attempt(libc::SYS_prctl, &[47, 2, 21, 0, 0]),
    },
    Attack {
        name: "change_host_name",
        stopped_by: Jail,
        run: |_| attempt(libc::SYS_sethostname, &[address("owned"), 5]),
    },
];

fn flag(value: i32) -> usize {
    value.unsigned_abs() as usize
}

fn path(number: libc::c_long) -> io::Result<()> {
    let root = text("/");
    attempt(number, &[root.as_ptr() as usize])
}

fn mount(source: &str, kind: &str) -> io::Result<()> {
    let (source, root, kind) = (text(source), text("/"), text(kind));
    let arguments = [
        source.as_ptr() as usize,
        root.as_ptr() as usize,
        kind.as_ptr() as usize,
        0,
        0,
    ];
    attempt(libc::SYS_mount, &arguments)
}

fn remount(_: &super::Target) -> io::Result<()> {
    let root = text("/");
    let arguments = [
        0,
        root.as_ptr() as usize,
        0,
        usize::try_from(libc::MS_REMOUNT).unwrap_or(0),
        0,
    ];
    attempt(libc::SYS_mount, &arguments)
}

fn unmount(_: &super::Target) -> io::Result<()> {
    let root = text("/");
    attempt(
        libc::SYS_umount2,
        &[root.as_ptr() as usize, flag(libc::MNT_DETACH)],
    )
}

fn pivot(_: &super::Target) -> io::Result<()> {
    let here = text(".");
    attempt(
        libc::SYS_pivot_root,
        &[here.as_ptr() as usize, here.as_ptr() as usize],
    )
}

fn open_file_system(_: &super::Target) -> io::Result<()> {
    let kind = text("tmpfs");
    attempt(libc::SYS_fsopen, &[kind.as_ptr() as usize, 0])
}

/// The neighbour has another number in this PID namespace, or none.
fn enter_neighbour(target: &super::Target) -> io::Result<()> {
    let process = super::call(libc::SYS_pidfd_open, &[target.neighbour, 0])?;
    attempt(libc::SYS_setns, &[process, flag(libc::CLONE_NEWNS)])
}

fn gain_capabilities(_: &super::Target) -> io::Result<()> {
    let header: [u32; 2] = [0x2008_0522, 0];
    let all = [u32::MAX; 6];
    attempt(libc::SYS_capset, &[address(&header), address(&all)])
}
