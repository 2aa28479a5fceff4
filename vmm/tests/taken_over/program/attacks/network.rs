//! Attacks over networks and between processes.

use std::io;

use super::{
    Attack,
    Layer::{Filter, Jail},
    Target, address, attempt, call,
};

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "connect_to_host_over_loopback",
        stopped_by: Jail,
        run: connect_tcp,
    },
    Attack {
        name: "connect_to_abstract_socket",
        stopped_by: Jail,
        run: connect_abstract,
    },
    Attack {
        name: "send_raw_packets",
        stopped_by: Jail,
        run: |_| attempt(libc::SYS_socket, &[2, 3, 255]),
    },
    Attack {
        name: "capture_packets",
        stopped_by: Jail,
        run: |_| attempt(libc::SYS_socket, &[17, 3, 0x300]),
    },
    Attack {
        name: "create_vsock",
        stopped_by: Filter,
        run: |_| attempt(libc::SYS_socket, &[40, 1, 0]),
    },
    Attack {
        name: "create_kernel_crypto_socket",
        stopped_by: Filter,
        run: |_| attempt(libc::SYS_socket, &[38, 5, 0]),
    },
    Attack {
        name: "create_netlink_socket",
        stopped_by: Filter,
        run: |_| attempt(libc::SYS_socket, &[16, 3, 0]),
    },
    Attack {
        name: "attach_shared_memory_of_host",
        stopped_by: Jail,
        run: |target| attempt(libc::SYS_shmget, &[target.segment, 1, 0]),
    },
];

fn connect_tcp(target: &Target) -> io::Result<()> {
    let socket = call(libc::SYS_socket, &[2, 1, 0])?;
    let mut name = [0_u8; 16];
    name[0] = 2;
    name[2..4].copy_from_slice(&target.port.to_be_bytes());
    name[4..8].copy_from_slice(&[127, 0, 0, 1]);
    attempt(libc::SYS_connect, &[socket, address(&name), name.len()])
}

fn connect_abstract(target: &Target) -> io::Result<()> {
    let socket = call(libc::SYS_socket, &[1, 1, 0])?;
    let mut name = vec![1, 0, 0];
    name.extend_from_slice(target.socket.as_bytes());
    attempt(libc::SYS_connect, &[socket, address(&name[..]), name.len()])
}
