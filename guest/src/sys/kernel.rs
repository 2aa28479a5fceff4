//! The running kernel: clock, host name and entropy pool.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::{
    libc,
    sys::time::TimeSpec,
    time::{ClockId, clock_settime},
    unistd::sethostname,
};

use crate::kernel::Kernel;

/// `_IOW('R', 3, int[2])` of `linux/random.h`.
const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
/// `_IO('R', 7)` of `linux/random.h`.
const RNDRESEEDCRNG: libc::c_ulong = 0x5207;
const CAPACITY: usize = guest_api::Entropy::MAX_LEN;

/// `struct rand_pool_info` of `linux/random.h`, with the largest buffer that is added at once.
#[repr(C)]
struct RandPoolInfo {
    entropy_count: libc::c_int,
    buf_size: libc::c_int,
    buf: [u8; CAPACITY],
}

const _: () = assert!(size_of::<RandPoolInfo>() == 8 + CAPACITY);

/// The running kernel.
#[derive(Debug, Clone, Copy)]
pub struct LinuxKernel;

impl Kernel for LinuxKernel {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn set_clock(&self, to: SystemTime) -> io::Result<()> {
        let since: Duration = to.duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
        clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from_duration(since))?;
        Ok(())
    }

    fn add_entropy(&self, bytes: &[u8]) -> io::Result<()> {
        let device = File::open("/dev/urandom")?;
        let mut info = RandPoolInfo {
            entropy_count: 0,
            buf_size: 0,
            buf: [0; CAPACITY],
        };
        let buffer = info
            .buf
            .get_mut(..bytes.len())
            .ok_or(io::ErrorKind::InvalidInput)?;
        buffer.copy_from_slice(bytes);
        info.buf_size = libc::c_int::try_from(bytes.len()).map_err(io::Error::other)?;
        info.entropy_count = info.buf_size.saturating_mul(8);
        // SAFETY: RNDADDENTROPY reads a rand_pool_info followed by `buf_size` bytes. `info` is one, and `buf_size` is at
        // most the length of `buf`, because the slice above is in bounds.
        let rc = unsafe { libc::ioctl(device.as_raw_fd(), RNDADDENTROPY, &raw const info) };
        nix::errno::Errno::result(rc)?;
        // SAFETY: RNDRESEEDCRNG takes no argument.
        let rc = unsafe { libc::ioctl(device.as_raw_fd(), RNDRESEEDCRNG) };
        nix::errno::Errno::result(rc)?;
        Ok(())
    }

    fn set_hostname(&self, name: &str) -> io::Result<()> {
        Ok(sethostname(name)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_can_add_entropy() {
        let added = LinuxKernel.add_entropy(&[0x5a; 64]);
        if nix::unistd::Uid::effective().is_root() {
            added.unwrap();
        } else {
            assert_eq!(added.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        }
    }

    #[test]
    fn oversized_entropy_is_refused() {
        let error = LinuxKernel.add_entropy(&[0; CAPACITY + 1]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
