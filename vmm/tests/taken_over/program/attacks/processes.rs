//! Attacks on other processes.

use std::io;

use super::{
    Attack,
    Layer::{Filter, Jail},
    Target, address, attempt, call, text,
};

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "kill_neighbour",
        stopped_by: Jail,
        run: |target| attempt(libc::SYS_kill, &[target.neighbour, 9]),
    },
    Attack {
        name: "signal_gateway",
        stopped_by: Jail,
        run: signal_parent,
    },
    Attack {
        name: "open_neighbour",
        stopped_by: Jail,
        run: |target| attempt(libc::SYS_pidfd_open, &[target.neighbour, 0]),
    },
    Attack {
        name: "trace_neighbour",
        stopped_by: Jail,
        run: |target| attempt(libc::SYS_ptrace, &[16, target.neighbour, 0, 0]),
    },
    Attack {
        name: "read_memory_of_neighbour",
        stopped_by: Jail,
        run: |target| memory_of(libc::SYS_process_vm_readv, target),
    },
    Attack {
        name: "write_memory_of_neighbour",
        stopped_by: Jail,
        run: |target| memory_of(libc::SYS_process_vm_writev, target),
    },
    Attack {
        name: "limit_neighbour",
        stopped_by: Jail,
        run: |target| {
            attempt(
                libc::SYS_prlimit64,
                &[target.neighbour, 7, address(&[0_u64; 2]), 0],
            )
        },
    },
    Attack {
        name: "execute_program",
        stopped_by: Jail,
        run: execute,
    },
    Attack {
        name: "start_processes",
        stopped_by: Jail,
        run: start_processes,
    },
    Attack {
        name: "become_real_time",
        stopped_by: Jail,
        run: |_| attempt(libc::SYS_sched_setscheduler, &[0, 1, address(&50_u32)]),
    },
    Attack {
        name: "raise_priority",
        stopped_by: Jail,
        run: |_| attempt(libc::SYS_setpriority, &[0, 0, usize::MAX - 19]),
    },
    Attack {
        name: "make_memory_executable",
        stopped_by: Filter,
        run: executable_memory,
    },
];

/// The parent is outside of the PID namespace.
fn signal_parent(_: &Target) -> io::Result<()> {
    let parent = call(libc::SYS_getppid, &[])?;
    if parent == 0 {
        return Err(io::ErrorKind::NotFound.into());
    }
    attempt(libc::SYS_kill, &[parent, 0])
}

fn memory_of(number: libc::c_long, target: &Target) -> io::Result<()> {
    let buffer = [0_u8; 8];
    let local = [address(&buffer), buffer.len()];
    let remote = [0x1000_usize, buffer.len()];
    attempt(
        number,
        &[target.neighbour, address(&local), 1, address(&remote), 1, 0],
    )
}

fn execute(_: &Target) -> io::Result<()> {
    let shell = text("/bin/sh");
    attempt(libc::SYS_execve, &[shell.as_ptr() as usize, 0, 0])
}

/// Starts processes without end. One is possible: KVM itself needs a thread.
fn start_processes(_: &Target) -> io::Result<()> {
    for count in 0..64 {
        match call(libc::SYS_fork, &[]) {
            Ok(0) => loop {
                call(libc::SYS_pause, &[])?;
            },
            Ok(_) => {}
            Err(error) if count <= 1 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(())
}

fn executable_memory(_: &Target) -> io::Result<()> {
    let protection = (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC).unsigned_abs() as usize;
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS).unsigned_abs() as usize;
    attempt(libc::SYS_mmap, &[0, 4096, protection, flags, usize::MAX, 0])
}
