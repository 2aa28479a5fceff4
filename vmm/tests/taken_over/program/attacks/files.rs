//! Attacks on files of the host.

use std::io;

use super::{Attack, HERE, Layer::Jail, address, attempt, call, text};

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "read_host_file",
        stopped_by: Jail,
        run: |_| open("/etc/passwd", libc::O_RDONLY),
    },
    Attack {
        name: "read_file_above_root",
        stopped_by: Jail,
        run: |_| open("../../../../etc/passwd", libc::O_RDONLY),
    },
    Attack {
        name: "read_own_proc",
        stopped_by: Jail,
        run: |_| open("/proc/self/maps", libc::O_RDONLY),
    },
    Attack {
        name: "read_root_of_process_1",
        stopped_by: Jail,
        run: |_| open("/proc/1/root/etc/passwd", libc::O_RDONLY),
    },
    Attack {
        name: "read_run_directory",
        stopped_by: Jail,
        run: |_| open("/run", libc::O_RDONLY | libc::O_DIRECTORY),
    },
    Attack {
        name: "open_kvm",
        stopped_by: Jail,
        run: |_| open("/dev/kvm", libc::O_RDWR),
    },
    Attack {
        name: "open_physical_memory",
        stopped_by: Jail,
        run: |_| open("/dev/mem", libc::O_RDWR),
    },
    Attack {
        name: "open_control_groups",
        stopped_by: Jail,
        run: |_| open("/sys/fs/cgroup", libc::O_RDONLY),
    },
    Attack {
        name: "create_file",
        stopped_by: Jail,
        run: |_| open("/file", libc::O_RDWR | libc::O_CREAT),
    },
    Attack {
        name: "create_directory",
        stopped_by: Jail,
        run: |_| path_call(libc::SYS_mkdir, "/directory", &[0o777]),
    },
    Attack {
        name: "create_device_node",
        stopped_by: Jail,
        run: create_device_node,
    },
    Attack {
        name: "create_symbolic_link",
        stopped_by: Jail,
        run: |_| pair(libc::SYS_symlink, "/etc/passwd", "/link"),
    },
    Attack {
        name: "create_hard_link",
        stopped_by: Jail,
        run: |_| pair(libc::SYS_link, "/", "/link"),
    },
    Attack {
        name: "change_mode_of_root",
        stopped_by: Jail,
        run: |_| path_call(libc::SYS_chmod, "/", &[0o777]),
    },
    Attack {
        name: "change_owner_of_root",
        stopped_by: Jail,
        run: |_| path_call(libc::SYS_chown, "/", &[0, 0]),
    },
    Attack {
        name: "open_by_file_handle",
        stopped_by: Jail,
        run: open_by_handle,
    },
    Attack {
        name: "use_inherited_directory",
        stopped_by: super::Layer::Bound,
        run: inherited_directory,
    },
];

fn open(path: &str, flags: i32) -> io::Result<()> {
    let path = text(path);
    let flags = flags.unsigned_abs() as usize;
    attempt(
        libc::SYS_openat,
        &[HERE, path.as_ptr() as usize, flags, 0o600],
    )
}

fn path_call(number: libc::c_long, path: &str, rest: &[usize]) -> io::Result<()> {
    let path = text(path);
    let mut arguments = vec![path.as_ptr() as usize];
    arguments.extend_from_slice(rest);
    attempt(number, &arguments)
}

fn pair(number: libc::c_long, from: &str, to: &str) -> io::Result<()> {
    let (from, to) = (text(from), text(to));
    attempt(number, &[from.as_ptr() as usize, to.as_ptr() as usize])
}

/// A node of `/dev/kvm`.
fn create_device_node(_: &super::Target) -> io::Result<()> {
    let mode = (libc::S_IFCHR | 0o666) as usize;
    let device = 10 << 8 | 232;
    path_call(libc::SYS_mknod, "/kvm", &[mode, device])
}

/// A handle of inode 2, the root of most file systems.
fn open_by_handle(_: &super::Target) -> io::Result<()> {
    let handle: [u32; 4] = [8, 1, 2, 0];
    let root = text("/");
    let flags = (libc::O_PATH | libc::O_DIRECTORY).unsigned_abs() as usize;
    let mount = call(libc::SYS_openat, &[HERE, root.as_ptr() as usize, flags])?;
    attempt(libc::SYS_open_by_handle_at, &[mount, address(&handle), 0])
}

/// Looks for a descriptor of a directory, with which files outside of the root could be opened.
fn inherited_directory(_: &super::Target) -> io::Result<()> {
    const EMPTY_PATH: usize = 0x1000;
    const TYPE_AND_MODE: usize = 3;
    let empty = text("");
    for descriptor in 0..4096 {
        let mut status = [0_u8; 256];
        let buffer = status.as_mut_ptr() as usize;
        let arguments = [
            descriptor,
            empty.as_ptr() as usize,
            EMPTY_PATH,
            TYPE_AND_MODE,
            buffer,
        ];
        if call(libc::SYS_statx, &arguments).is_err() {
            continue;
        }
        let mode = u32::from(u16::from_le_bytes([status[28], status[29]]));
        if mode & libc::S_IFMT == libc::S_IFDIR {
            return Ok(());
        }
    }
    Err(io::ErrorKind::NotFound.into())
}
