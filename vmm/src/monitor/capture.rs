//! Requests that write a machine down.

use std::{
    fs::File,
    io,
    os::{fd::OwnedFd, unix::fs::FileExt},
};

use vmm_api::{
    Captured,
    wire::{Refusal, Reply},
};

use super::{Monitor, Phase, Refused, next};
use crate::machine::Machine;

impl Monitor {
    pub(super) fn capture(
        &mut self,
        pages_offset: Option<u64>,
        disks: u32,
        fds: &mut impl Iterator<Item = OwnedFd>,
    ) -> Result<Reply, Refused> {
        let machine = self.stopped()?;
        let files = match pages_offset {
            Some(offset) => Some((
                File::from(next(fds)?),
                File::from(next(fds)?),
                File::from(next(fds)?),
                offset,
            )),
            None => None,
        };
        let mut bitmaps = Vec::new();
        for _ in 0..disks {
            bitmaps.push(File::from(next(fds)?));
        }
        let mut captured = Captured::default();
        if let Some((image, pages, index, offset)) = files {
            captured.image_len = machine.capture_state(&image)?;
            let counts = machine
                .capture_memory(&pages, offset, &index)
                .map_err(|error| failed("pages", &error))?;
            (captured.pages, captured.zero_pages) = (counts.pages, counts.zero_pages);
        }
        machine
            .with_disks(|at, disk| {
                let bitmap = bitmaps.get(at).ok_or(io::ErrorKind::InvalidInput)?;
                bitmap.write_all_at(disk.top_bitmap(), 0)
            })
            .map_err(|error| failed("disk bitmaps", &error))?;
        Ok(Reply::Captured {
            image_len: captured.image_len,
            pages: captured.pages,
            zero_pages: captured.zero_pages,
        })
    }

    pub(super) fn advance(
        &mut self,
        blocks_offsets: &[u64],
        fds: &mut impl Iterator<Item = OwnedFd>,
    ) -> Result<Reply, Refused> {
        let machine = self.stopped()?;
        let mut tops = Vec::new();
        for &offset in blocks_offsets {
            tops.push(Some((File::from(next(fds)?), offset)));
        }
        let mut count = 0;
        let counted = machine.with_disks(|_, _| {
            count += 1;
            Ok(())
        });
        counted.map_err(|error| failed("disks", &error))?;
        if count != tops.len() {
            return Err(Refused::because("there are not as many new tops as disks"));
        }
        machine
            .with_disks(|at, disk| {
                let (file, offset) = tops
                    .get_mut(at)
                    .and_then(Option::take)
                    .ok_or(io::ErrorKind::InvalidInput)?;
                disk.advance(file, offset);
                Ok(())
            })
            .map_err(|error| failed("disks", &error))?;
        Ok(Reply::Done)
    }

    fn stopped(&self) -> Result<&Machine, Refused> {
        match &self.phase {
            Phase::Machine(machine) if !machine.is_running() => Ok(machine),
            Phase::Machine(_) => Err(Refused::because("the guest runs: pause it first")),
            _ => Err(Refused::because("there is no guest")),
        }
    }
}

fn failed(what: &str, error: &io::Error) -> Refused {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Refusal::NoSpace,
        _ => Refusal::Other,
    };
    Refused {
        kind,
        message: format!("write {what}: {error}"),
    }
}
