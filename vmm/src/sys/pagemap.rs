//! Changed pages of a range, through `PAGEMAP_SCAN` (Linux 6.7 and later).

use std::{fs::File, io, os::fd::AsRawFd};

const PAGE_IS_WRITTEN: u64 = 1 << 1;
const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
const PAGE_IS_PFNZERO: u64 = 1 << 5;

/// `struct pm_scan_arg` of `linux/fs.h`.
#[repr(C)]
#[derive(Debug, Default)]
struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region` of `linux/fs.h`: a run of pages, by address.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) start: u64,
    pub(crate) end: u64,
    categories: u64,
}

/// `PAGEMAP_SCAN` of `linux/fs.h`.
pub(crate) const SCAN: u32 = 0xc060_6610;
const _: () = assert!(size_of::<ScanArg>() == 0x60);
const _: () = assert!(size_of::<Run>() == 24);

/// Criterion of a changed page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Changed {
    /// Anonymous pages: in a private file mapping and in anonymous memory those that were written.
    Anonymous,
    /// Pages written since they were installed write-protected through a userfaultfd.
    Written,
}

/// Opens the page map of this process.
pub(crate) fn open() -> io::Result<File> {
    File::open("/proc/self/pagemap")
}

/// Returns the runs of changed pages in `[start, end)`, in ascending order.
pub(crate) fn scan(pagemap: &File, start: u64, end: u64, changed: Changed) -> io::Result<Vec<Run>> {
    let (inverted, mask) = match changed {
        Changed::Anonymous => (
            PAGE_IS_FILE | PAGE_IS_PFNZERO,
            PAGE_IS_FILE | PAGE_IS_PFNZERO,
        ),
        Changed::Written => (PAGE_IS_PFNZERO, PAGE_IS_PFNZERO | PAGE_IS_WRITTEN),
    };
    let mut runs = Vec::new();
    let mut batch = vec![Run::default(); 1024];
    let mut from = start;
    while from < end {
        let mut arg = ScanArg {
            size: size_of::<ScanArg>() as u64,
            start: from,
            end,
            vec: batch.as_mut_ptr() as u64,
            vec_len: batch.len() as u64,
            category_inverted: inverted,
            category_mask: mask,
            category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
            ..ScanArg::default()
        };
        // SAFETY: PAGEMAP_SCAN reads and writes `arg` and writes at most `vec_len` regions at `vec`, both of which
        // outlive the call. It reads page tables of this process only and, without PM_SCAN_WP_MATCHING, changes none.
        let found =
            unsafe { libc::ioctl(pagemap.as_raw_fd(), libc::c_ulong::from(SCAN), &raw mut arg) };
        let Ok(found) = usize::try_from(found) else {
            return Err(io::Error::last_os_error());
        };
        let found = batch.get(..found).ok_or(io::ErrorKind::InvalidData)?;
        runs.extend_from_slice(found);
        // If a run fills the batch exactly, `walk_end` can be the start of that run (Linux 6.18).
        let reached = arg.walk_end.max(found.last().map_or(0, |run| run.end));
        if reached <= from {
            return Err(io::Error::other("the page map scan made no progress"));
        }
        from = reached;
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, GuestRegionMmap};

    use super::*;
    use crate::sys::mmap::Reservation;

    const PAGE: u64 = 4096;

    /// Writes every other page, so that there are more runs than one call returns.
    #[test]
    fn page_runs_beyond_a_batch_are_found_once() {
        let pages = 8192_u64;
        let memory = Reservation::new(usize::try_from(pages * PAGE).unwrap()).unwrap();
        let region = memory.region(0, memory.len()).unwrap();
        let guest = GuestMemoryMmap::<()>::from_regions(vec![
            GuestRegionMmap::new(region, GuestAddress(0)).unwrap(),
        ])
        .unwrap();
        for page in (0..pages).step_by(2) {
            guest.write_obj(1_u8, GuestAddress(page * PAGE)).unwrap();
        }
        let start = memory.address();
        let runs = scan(
            &open().unwrap(),
            start,
            start + pages * PAGE,
            Changed::Anonymous,
        )
        .unwrap();
        let found: Vec<u64> = runs
            .iter()
            .flat_map(|run| (run.start - start) / PAGE..(run.end - start) / PAGE)
            .collect();
        assert_eq!(found, (0..pages).step_by(2).collect::<Vec<_>>());
    }
}
