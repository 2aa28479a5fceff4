//! Attacks on the resources of the host.

use std::io;

use super::{Attack, Layer::Bound, Target, address, call};

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "take_memory",
        stopped_by: Bound,
        run: take_memory,
    },
    Attack {
        name: "take_descriptors",
        stopped_by: Bound,
        run: take_descriptors,
    },
    Attack {
        name: "flood_log",
        stopped_by: Bound,
        run: flood_log,
    },
    Attack {
        name: "flood_host_with_replies",
        stopped_by: Bound,
        run: flood_host,
    },
];

/// Touches 2 GiB.
fn take_memory(_: &Target) -> io::Result<()> {
    let mut taken = Vec::new();
    for _ in 0..2048 {
        taken.push(vec![1_u8; 1 << 20]);
    }
    std::hint::black_box(&taken);
    Ok(())
}

fn take_descriptors(_: &Target) -> io::Result<()> {
    let duplicate = usize::try_from(libc::F_DUPFD_CLOEXEC).unwrap_or(0);
    for _ in 0..4096 {
        call(libc::SYS_fcntl, &[0, duplicate, 0])?;
    }
    Ok(())
}

/// Writes a million lines to the log. The host reads all and logs few.
fn flood_log(_: &Target) -> io::Result<()> {
    let lines = "x\n".repeat(4096);
    for _ in 0..256 {
        call(libc::SYS_write, &[2, address(lines.as_str()), lines.len()])?;
    }
    Err(io::Error::other("the log takes every line"))
}

/// Sends the host replies that it did not ask for, each with a descriptor.
fn flood_host(_: &Target) -> io::Result<()> {
    for _ in 0..100_000 {
        // `Done` is variant 0.
        call(libc::SYS_sendto, &[0, address(&[0_u8; 1]), 1, 0x4000, 0, 0])?;
    }
    Ok(())
}
