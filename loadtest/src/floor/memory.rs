//! Cost of page faults.

use std::{thread, time::Instant};

use anyhow::Context;
use rustix::fs::{MemfdFlags, memfd_create};

use crate::{
    histogram::Histogram,
    sys::{FaultHandler, Mapping},
};

const PAGES: usize = 4096;
const PAGE: usize = 4096;
/// Pages of one batch.
const BATCH: usize = 64;

pub(super) fn anonymous_fault() -> anyhow::Result<Histogram> {
    touch(&Mapping::anonymous(PAGES * PAGE)?)
}

pub(super) fn cow_fault() -> anyhow::Result<Histogram> {
    let memfd = memfd_create("floor", MemfdFlags::CLOEXEC)?;
    rustix::fs::ftruncate(&memfd, (PAGES * PAGE) as u64)?;
    Mapping::shared(&memfd, PAGES * PAGE)?.fill(7);
    touch(&Mapping::private(&memfd, PAGES * PAGE)?)
}

pub(super) fn uffd_fault() -> anyhow::Result<Histogram> {
    let mapping = Mapping::anonymous(PAGES * PAGE)?;
    let handler = FaultHandler::new(&mapping).context("create userfaultfd")?;
    thread::scope(|scope| {
        scope.spawn(|| handler.serve(PAGES));
        touch(&mapping)
    })
}

pub(super) fn uffd_copy() -> anyhow::Result<Histogram> {
    let mapping = Mapping::anonymous(PAGES * PAGE)?;
    let handler = FaultHandler::new(&mapping).context("create userfaultfd")?;
    let mut histogram = Histogram::new()?;
    for batch in 0..PAGES / BATCH {
        let started = Instant::now();
        handler.install(batch * BATCH * PAGE, BATCH * PAGE)?;
        histogram.add(started.elapsed() / u32::try_from(BATCH)?);
    }
    Ok(histogram)
}

/// Measures a write of one byte to each page.
fn touch(mapping: &Mapping) -> anyhow::Result<Histogram> {
    let mut histogram = Histogram::new()?;
    for page in 0..PAGES {
        let started = Instant::now();
        mapping.write(page * PAGE, 1);
        histogram.add(started.elapsed());
    }
    Ok(histogram)
}
