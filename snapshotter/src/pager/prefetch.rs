//! Installing the working set before the machine runs.
//!
//! Pages that the last epoch changed are installed as changed: they are likely to be written again, and a fault at each
//! first write costs far more than finding the unchanged ones at the next capture.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use vmm_api::{MemoryRegion, PAGE_SIZE};

use super::{Damage, Shared};
use crate::sys::uffd::{self, WriteProtect};

/// Maximum pages of one request.
const MAX_RUN: usize = 256;

/// Installs pages in runs of adjacent ones. Present pages stay.
pub(super) fn install(
    shared: &Shared,
    uffd: BorrowedFd<'_>,
    region: MemoryRegion,
    pages: &[u32],
) -> Result<(), Damage> {
    let mut buffer = Vec::with_capacity(MAX_RUN * PAGE_SIZE);
    let newest = shared.stack.layers().last();
    let changed = |page: u32| newest.is_some_and(|layer| layer.has(page));
    let (written, read): (Vec<u32>, Vec<u32>) = pages.iter().partition(|page| changed(**page));
    let written = runs(written)
        .into_iter()
        .map(|run| (run, WriteProtect::Off));
    let read = runs(read).into_iter().map(|run| (run, WriteProtect::On));
    for ((first, count), as_what) in written.chain(read) {
        buffer.clear();
        for page in first..first.saturating_add(count) {
            let mut bytes = [0; PAGE_SIZE];
            shared
                .stack
                .read(page, &mut bytes)
                .map_err(|source| Damage::Layer { page, source })?;
            buffer.extend_from_slice(&bytes);
        }
        install_run(uffd, region, first, &buffer, as_what)?;
    }
    Ok(())
}

fn install_run(
    uffd: BorrowedFd<'_>,
    region: MemoryRegion,
    first: u32,
    run: &[u8],
    protect: WriteProtect,
) -> Result<(), Damage> {
    let start = region
        .base
        .saturating_add(u64::from(first) * PAGE_SIZE as u64);
    let mut done = 0;
    while let Some(rest) = run.get(done..).filter(|rest| !rest.is_empty()) {
        match uffd::copy(uffd, start.saturating_add(done as u64), rest, protect) {
            Ok(()) => return Ok(()),
            Err(stopped) if stopped.errno == Errno::EXIST => done += stopped.done + PAGE_SIZE,
            Err(stopped) => {
                let page = first
                    .saturating_add(u32::try_from((done + stopped.done) / PAGE_SIZE).unwrap_or(0));
                return Err(Damage::Install {
                    page,
                    source: stopped.errno.into(),
                });
            }
        }
    }
    Ok(())
}

/// Groups adjacent pages into runs: first page and length.
fn runs(mut pages: Vec<u32>) -> Vec<(u32, u32)> {
    pages.sort_unstable();
    pages.dedup();
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for page in pages {
        match runs.last_mut() {
            Some((first, count)) if page - *first == *count && (*count as usize) < MAX_RUN => {
                *count += 1;
            }
            _ => runs.push((page, 1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjacent_pages_form_one_run() {
        assert_eq!(runs(vec![9, 3, 1, 2, 3, 10]), [(1, 3), (9, 2)]);
        let many: Vec<u32> = (0..300).collect();
        assert_eq!(runs(many), [(0, 256), (256, 44)]);
    }
}
