//! Attacks on the kernel of the host, and through calls that a monitor does not need.

use std::io;

use super::{
    Attack,
    Layer::{Filter, Jail},
    Target, address, attempt, call, text,
};

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "load_bpf_program",
        stopped_by: Filter,
        run: |_| attempt(libc::SYS_bpf, &[0, address(&[0_u32; 32]), 128]),
    },
    Attack {
        name: "open_performance_counter",
        stopped_by: Filter,
        run: performance_counter,
    },
    Attack {
        name: "set_up_io_uring",
        stopped_by: Filter,
        run: |_| attempt(libc::SYS_io_uring_setup, &[8, address(&*vec![0_u32; 64])]),
    },
    Attack {
        name: "serve_faults_of_the_kernel",
        stopped_by: Jail,
        run: |_| attempt(libc::SYS_userfaultfd, &[0]),
    },
    Attack {
        name: "add_key",
        stopped_by: Filter,
        run: add_key,
    },
    Attack {
        name: "read_keys_of_root",
        stopped_by: Filter,
        run: |_| attempt(libc::SYS_keyctl, &[0, usize::MAX - 3, 1]),
    },
    Attack {
        name: "load_module",
        stopped_by: Jail,
        run: |_| attempt(libc::SYS_finit_module, &[0, address(&[0_u8; 1]), 0]),
    },
    Attack {
        name: "load_kernel",
        stopped_by: Jail,
        run: |_| attempt(libc::SYS_kexec_load, &[0, 0, 0, 0]),
    },
    Attack {
        name: "disable_ctrl_alt_del",
        stopped_by: Jail,
        run: |_| attempt(libc::SYS_reboot, &[0xfee1_dead, 0x2812_1969, 0]),
    },
    Attack {
        name: "read_kernel_log",
        stopped_by: Filter,
        run: |_| attempt(libc::SYS_syslog, &[3, address(&*vec![0_u8; 64]), 64]),
    },
    Attack {
        name: "set_clock",
        stopped_by: Jail,
        run: |_| attempt(libc::SYS_clock_settime, &[0, address(&[0_u64; 2])]),
    },
    Attack {
        name: "access_io_ports",
        stopped_by: Jail,
        run: |_| attempt(libc::SYS_ioperm, &[0, 0x3ff, 1]),
    },
    Attack {
        name: "swap_to_file",
        stopped_by: Jail,
        run: |_| path(libc::SYS_swapon),
    },
    Attack {
        name: "write_process_accounting",
        stopped_by: Jail,
        run: |_| path(libc::SYS_acct),
    },
    Attack {
        name: "change_personality",
        stopped_by: Filter,
        run: |_| attempt(libc::SYS_personality, &[0x0004_0000]),
    },
    Attack {
        name: "change_memory_slots",
        stopped_by: Filter,
        run: change_memory_slots,
    },
];

fn path(number: libc::c_long) -> io::Result<()> {
    let path = text("/");
    attempt(number, &[path.as_ptr() as usize, 0])
}

/// A counter of this process in user mode.
fn performance_counter(_: &Target) -> io::Result<()> {
    let mut attributes = [0_u32; 32];
    // Type software, size.
    attributes[0] = 1;
    attributes[1] = 128;
    attempt(
        libc::SYS_perf_event_open,
        &[address(&attributes), 0, usize::MAX, usize::MAX, 0],
    )
}

fn add_key(_: &Target) -> io::Result<()> {
    let (kind, name) = (text("user"), text("key"));
    let process_keyring = usize::MAX - 1;
    let arguments = [
        kind.as_ptr() as usize,
        name.as_ptr() as usize,
        address("payload"),
        7,
        process_keyring,
    ];
    attempt(libc::SYS_add_key, &arguments)
}

/// Maps another part of the monitor's memory into the guest. Every descriptor is tried, because one is the VM.
fn change_memory_slots(_: &Target) -> io::Result<()> {
    const KVM_SET_USER_MEMORY_REGION: usize = 0x4020_ae46;
    let page = vec![0_u8; 8192];
    let aligned = (address(&page[..]) + 4095) & !4095;
    // Slot 7, no flags, guest address 1 TiB, 4096 bytes.
    let region = [7_usize, 1 << 40, 4096, aligned];
    for descriptor in 0..64 {
        if call(
            libc::SYS_ioctl,
            &[descriptor, KVM_SET_USER_MEMORY_REGION, address(&region)],
        )
        .is_ok()
        {
            return Ok(());
        }
    }
    Err(io::ErrorKind::PermissionDenied.into())
}
