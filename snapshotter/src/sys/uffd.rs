//! Requests to a userfaultfd that the `userfaultfd` crate does not know: it copies without write protection.

use std::os::fd::BorrowedFd;

use rustix::{
    io::Errno,
    ioctl::{Opcode, Setter, Updater, ioctl, opcode},
};

const UFFDIO: u8 = 0xAA;
const COPY_MODE_WP: u64 = 1 << 1;

/// `struct uffdio_range`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range {
    pub(crate) start: u64,
    pub(crate) len: u64,
}

/// `struct uffdio_copy`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Copy {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    copy: i64,
}

const COPY: Opcode = opcode::read_write::<Copy>(UFFDIO, 0x03);
const WAKE: Opcode = opcode::read::<Range>(UFFDIO, 0x02);

const _: () = assert!(size_of::<Copy>() == 40 && size_of::<Range>() == 16);
const _: () = assert!(COPY == 0xc028_aa03 && WAKE == 0x8010_aa02);

/// A copy that stopped early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stopped {
    /// Bytes installed.
    pub(crate) done: usize,
    /// The error.
    pub(crate) errno: Errno,
}

/// Write protection of an installed page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteProtect {
    /// The guest's first write faults, so an unwritten page counts as unchanged.
    On,
    /// The page counts as changed.
    Off,
}

/// Installs `bytes` at `dst` and wakes the threads that wait for them.
pub(crate) fn copy(
    uffd: BorrowedFd<'_>,
    dst: u64,
    bytes: &[u8],
    protect: WriteProtect,
) -> Result<(), Stopped> {
    let mode = match protect {
        WriteProtect::On => COPY_MODE_WP,
        WriteProtect::Off => 0,
    };
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        let mut copy = Copy {
            dst: dst.saturating_add(done as u64),
            src: rest.as_ptr() as u64,
            len: rest.len() as u64,
            mode,
            copy: 0,
        };
        // SAFETY: UFFDIO_COPY reads and writes a `struct uffdio_copy`, which `Copy` is (asserted above).
        let request = unsafe { Updater::<COPY, Copy>::new(&mut copy) };
        // SAFETY: it reads `len` bytes at `src`, which `rest` borrows for the call, and fills only missing pages of a
        // range registered on this descriptor; any other `dst` is refused.
        let result = unsafe { ioctl(uffd, request) };
        let installed = usize::try_from(copy.copy).unwrap_or(0);
        done = done.saturating_add(installed);
        match result {
            Ok(()) => {}
            // The address space was changing; the rest is tried again.
            Err(Errno::AGAIN) => {}
            Err(errno) => return Err(Stopped { done, errno }),
        }
    }
    Ok(())
}

/// Wakes the threads that wait for a page of the range.
pub(crate) fn wake(uffd: BorrowedFd<'_>, range: Range) -> Result<(), Errno> {
    // SAFETY: UFFDIO_WAKE reads a `struct uffdio_range`, which `Range` is (asserted above).
    let request = unsafe { Setter::<WAKE, Range>::new(range) };
    // SAFETY: waking changes no memory; a thread woken without a page faults again.
    unsafe { ioctl(uffd, request) }
}

/// Userfaultfd for tests.
#[cfg(test)]
pub(crate) mod testing {
    use std::{
        os::fd::{AsFd, OwnedFd},
        ptr, slice,
    };

    use rustix::mm::{MapFlags, ProtFlags, UserfaultfdFlags, mmap_anonymous, munmap, userfaultfd};

    use super::{Opcode, Range, UFFDIO, Updater, ioctl, opcode};

    const FEATURE_WP_ASYNC: u64 = 1 << 15;
    const FEATURE_WP_UNPOPULATED: u64 = 1 << 13;
    const REGISTER_MISSING: u64 = 1;
    const REGISTER_WP: u64 = 2;

    #[repr(C)]
    struct Api {
        api: u64,
        features: u64,
        ioctls: u64,
    }

    #[repr(C)]
    struct Register {
        range: Range,
        mode: u64,
        ioctls: u64,
    }

    const API: Opcode = opcode::read_write::<Api>(UFFDIO, 0x3f);
    const REGISTER: Opcode = opcode::read_write::<Register>(UFFDIO, 0x00);
    const _: () = assert!(size_of::<Api>() == 24 && size_of::<Register>() == 32);

    /// Memory with no page present.
    pub(crate) struct Missing {
        base: *mut u8,
        len: usize,
    }

    // SAFETY: it is a number of bytes at an address; each access is volatile and of one byte.
    unsafe impl Send for Missing {}
    // SAFETY: as above.
    unsafe impl Sync for Missing {}

    impl Missing {
        pub(crate) fn map(len: usize) -> (Self, OwnedFd) {
            // SAFETY: a new mapping at an address that the kernel chooses.
            let base = unsafe {
                mmap_anonymous(
                    ptr::null_mut(),
                    len,
                    ProtFlags::READ | ProtFlags::WRITE,
                    MapFlags::PRIVATE,
                )
            };
            let base = base.unwrap().cast::<u8>();
            // SAFETY: it makes a descriptor and nothing else.
            let uffd = unsafe { userfaultfd(UserfaultfdFlags::CLOEXEC) }.unwrap();
            let features = FEATURE_WP_ASYNC | FEATURE_WP_UNPOPULATED;
            let mut api = Api {
                api: UFFDIO.into(),
                features,
                ioctls: 0,
            };
            // SAFETY: UFFDIO_API reads and writes a `struct uffdio_api`.
            let request = unsafe { Updater::<API, Api>::new(&mut api) };
            // SAFETY: it changes the descriptor only.
            unsafe { ioctl(uffd.as_fd(), request) }.unwrap();
            let range = Range {
                start: base as u64,
                len: len as u64,
            };
            let mut register = Register {
                range,
                mode: REGISTER_MISSING | REGISTER_WP,
                ioctls: 0,
            };
            // SAFETY: UFFDIO_REGISTER reads and writes a `struct uffdio_register`.
            let request = unsafe { Updater::<REGISTER, Register>::new(&mut register) };
            // SAFETY: the range is a mapping of ours that no code relies on yet.
            unsafe { ioctl(uffd.as_fd(), request) }.unwrap();
            (Self { base, len }, uffd)
        }

        pub(crate) fn address(&self) -> u64 {
            self.base as u64
        }

        pub(crate) fn read(&self, at: usize) -> u8 {
            assert!(at < self.len);
            // SAFETY: within the mapping.
            let byte = unsafe { self.base.add(at) };
            // SAFETY: mapped and readable.
            unsafe { byte.read_volatile() }
        }

        pub(crate) fn write(&self, at: usize, value: u8) {
            assert!(at < self.len);
            // SAFETY: within the mapping.
            let byte = unsafe { self.base.add(at) };
            // SAFETY: mapped and writable.
            unsafe { byte.write_volatile(value) }
        }

        pub(crate) fn page(&self, page: usize) -> &[u8] {
            assert!((page + 1) * 4096 <= self.len);
            // SAFETY: within the mapping.
            let first = unsafe { self.base.add(page * 4096) };
            // SAFETY: mapped and readable, without a concurrent writer.
            unsafe { slice::from_raw_parts(first, 4096) }
        }
    }

    impl Drop for Missing {
        fn drop(&mut self) {
            // SAFETY: ours, and no reference to it exists.
            unsafe { munmap(self.base.cast(), self.len) }.unwrap();
        }
    }
}
