//! Page faults.

use std::{thread, time::Instant};

use anyhow::Context;
use rustix::fs::{MemfdFlags, memfd_create};

use crate::{
    record::Record,
    sys::{Mapping, Pager},
};

const PAGES: usize = 4096;
const PAGE: usize = 4096;
/// Pages of a run in batches.
const RUN: usize = 64;

pub(super) fn anonymous_fault() -> anyhow::Result<Record> {
    touch(&Mapping::anonymous(PAGES * PAGE)?)
}

pub(super) fn cow_fault() -> anyhow::Result<Record> {
    let memfd = memfd_create("floor", MemfdFlags::CLOEXEC)?;
    rustix::fs::ftruncate(&memfd, (PAGES * PAGE) as u64)?;
    Mapping::shared(&memfd, PAGES * PAGE)?.fill(7);
    touch(&Mapping::private(&memfd, PAGES * PAGE)?)
}

pub(super) fn uffd_fault() -> anyhow::Result<Record> {
    let mapping = Mapping::anonymous(PAGES * PAGE)?;
    let pager = Pager::new(&mapping).context("make a userfaultfd")?;
    thread::scope(|scope| {
        scope.spawn(|| pager.serve(PAGES));
        touch(&mapping)
    })
}

pub(super) fn uffd_copy() -> anyhow::Result<Record> {
    let mapping = Mapping::anonymous(PAGES * PAGE)?;
    let pager = Pager::new(&mapping).context("make a userfaultfd")?;
    let mut record = Record::new()?;
    for run in 0..PAGES / RUN {
        let begun = Instant::now();
        pager.install(run * RUN * PAGE, RUN * PAGE)?;
        record.add(begun.elapsed() / u32::try_from(RUN)?);
    }
    Ok(record)
}

/// Writes one byte of each page.
fn touch(mapping: &Mapping) -> anyhow::Result<Record> {
    let mut record = Record::new()?;
    for page in 0..PAGES {
        let begun = Instant::now();
        mapping.write(page * PAGE, 1);
        record.add(begun.elapsed());
    }
    Ok(record)
}
