//! Answering page faults.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};
use vmm_api::{MemoryRegion, PAGE_SIZE};

use super::{Damage, Shared, working_set::MAX_RECORDED};
use crate::sys::uffd::{self, WriteProtect};

/// Bytes of `struct uffd_msg`.
const MESSAGE: usize = 32;
const EVENT_PAGEFAULT: u8 = 0x12;
const FLAG_WRITE: u64 = 1;

/// The result of serving one batch of faults.
enum Go {
    On,
    /// The machine's address space is gone.
    Gone,
}

/// Answers faults until stopped, or until the machine is gone.
pub(super) fn serve(shared: &Shared, uffd: &OwnedFd, region: MemoryRegion, stop: &OwnedFd) {
    let mut messages = [0; MESSAGE * 16];
    loop {
        let mut fds = [
            PollFd::new(uffd, PollFlags::IN),
            PollFd::new(stop, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return (shared.on_damage)(Damage::Faults(errno.into())),
        }
        if !fds[1].revents().is_empty() {
            return;
        }
        let len = match rustix::io::read(uffd, &mut messages) {
            Ok(0) => return,
            Ok(len) => len,
            Err(Errno::AGAIN | Errno::INTR) => continue,
            Err(errno) => return (shared.on_damage)(Damage::Faults(errno.into())),
        };
        let (whole, _) = messages[..len.min(messages.len())].as_chunks::<MESSAGE>();
        for fault in whole.iter().filter_map(|message| faulted(message, region)) {
            match answer(shared, uffd.as_fd(), region, fault) {
                Ok(Go::On) => {}
                Ok(Go::Gone) => return,
                Err(damage) => (shared.on_damage)(damage),
            }
        }
    }
}

/// A page fault.
#[derive(Debug, Clone, Copy)]
struct Fault {
    page: u32,
    /// A write fault: the page is installed without write protection.
    write: bool,
}

/// Decodes any message; `None` unless it is a fault in the region.
fn faulted(message: &[u8; MESSAGE], region: MemoryRegion) -> Option<Fault> {
    if message[0] != EVENT_PAGEFAULT {
        return None;
    }
    let word = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&message[at..at + 8]);
        u64::from_ne_bytes(word)
    };
    let offset = word(16).checked_sub(region.base)?;
    (offset < region.len).then_some(())?;
    let page = u32::try_from(offset / PAGE_SIZE as u64).ok()?;
    Some(Fault {
        page,
        write: word(8) & FLAG_WRITE != 0,
    })
}

fn answer(
    shared: &Shared,
    uffd: BorrowedFd<'_>,
    region: MemoryRegion,
    fault: Fault,
) -> Result<Go, Damage> {
    let Fault { page, write } = fault;
    let mut bytes = [0; PAGE_SIZE];
    shared
        .stack
        .read(page, &mut bytes)
        .map_err(|source| Damage::Layer { page, source })?;
    let start = region
        .base
        .saturating_add(u64::from(page) * PAGE_SIZE as u64);
    // Before the page is installed: its waiter may query the demanded pages at once.
    let mut demanded = shared.demanded.lock();
    if demanded.len() < MAX_RECORDED {
        demanded.push(page);
    }
    drop(demanded);
    let protect = if write {
        WriteProtect::Off
    } else {
        WriteProtect::On
    };
    let errno = match uffd::copy(uffd, start, &bytes, protect) {
        Ok(()) => return Ok(Go::On),
        Err(stopped) => stopped.errno,
    };
    let result = match errno {
        Errno::SRCH => return Ok(Go::Gone),
        // Another fault on the same page was answered first.
        Errno::EXIST => uffd::wake(
            uffd,
            uffd::Range {
                start,
                len: PAGE_SIZE as u64,
            },
        ),
        errno => Err(errno),
    };
    match result {
        Ok(()) => Ok(Go::On),
        Err(Errno::SRCH) => Ok(Go::Gone),
        Err(errno) => Err(Damage::Install {
            page,
            source: errno.into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_message_is_a_page_of_the_region_or_nothing(message: [u8; MESSAGE], base: u64, pages in 0u64..1 << 20) {
            let region = MemoryRegion { base, len: pages * 4096 };
            if let Some(fault) = faulted(&message, region) {
                prop_assert!(u64::from(fault.page) < pages);
            }
        }
    }
}
