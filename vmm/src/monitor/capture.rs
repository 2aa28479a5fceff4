//! Requests that capture a machine and seal its disk layers.

use std::{
    fs::File,
    io,
    os::{fd::OwnedFd, unix::fs::FileExt},
};

use vmm_api::{
    Captured,
    wire::{Reply, WireLayers},
};

use super::{
    Monitor, Phase,
    request_error::{RequestError, next_fd},
    start::layers,
};
use crate::machine::{Machine, MachineError};

impl Monitor {
    pub(super) fn capture(
        &self,
        pages_offset: Option<u64>,
        disks: u32,
        fds: &mut impl Iterator<Item = OwnedFd>,
    ) -> Result<Reply, RequestError> {
        let machine = self.paused_machine()?;
        if usize::try_from(disks) != Ok(machine.disk_count()) {
            return Err(RequestError::new(
                "the number of bitmaps is not that of the disks",
            ));
        }
        let files = match pages_offset {
            Some(offset) => Some((
                File::from(next_fd(fds)?),
                File::from(next_fd(fds)?),
                File::from(next_fd(fds)?),
                offset,
            )),
            None => None,
        };
        let mut bitmaps = Vec::new();
        for _ in 0..disks {
            bitmaps.push(File::from(next_fd(fds)?));
        }
        let mut captured = Captured::default();
        if let Some((image, pages, index, offset)) = files {
            let state = machine.state()?.encode().map_err(MachineError::from)?;
            image
                .write_all_at(&state, 0)
                .map_err(|error| RequestError::write("machine image", &error))?;
            captured.image_len = state.len() as u64;
            let counts = machine
                .capture_memory(&pages, offset, &index)
                .map_err(|error| RequestError::write("pages", &error))?;
            (captured.pages, captured.zero_pages) = (counts.pages, counts.zero_pages);
        }
        machine
            .for_each_disk(|at, disk| {
                let bitmap = bitmaps.get(at).ok_or(io::ErrorKind::InvalidInput)?;
                bitmap.write_all_at(disk.top_bitmap(), 0)
            })
            .map_err(|error| RequestError::write("disk bitmaps", &error))?;
        Ok(Reply::Captured {
            image_len: captured.image_len,
            pages: captured.pages,
            zero_pages: captured.zero_pages,
        })
    }

    pub(super) fn advance(
        &self,
        disks: Vec<WireLayers>,
        fds: &mut impl Iterator<Item = OwnedFd>,
    ) -> Result<Reply, RequestError> {
        let machine = self.paused_machine()?;
        if disks.len() != machine.disk_count() {
            return Err(RequestError::new(
                "the number of top layers is not that of the disks",
            ));
        }
        let mut sealed = Vec::new();
        let mut tops = Vec::new();
        for disk in disks {
            sealed.push(
                disk.sealed
                    .map(|offsets| layers(offsets, fds))
                    .transpose()?,
            );
            tops.push((File::from(next_fd(fds)?), disk.top));
        }
        let mut sealed = sealed.into_iter();
        let mut opened = Vec::new();
        let failed = |error| RequestError::new(format!("failed to seal disk layers: {error}"));
        machine
            .for_each_disk(|_, disk| {
                let layers = sealed.next().flatten();
                let layers = layers.map(|layers| disk.open_sealed(layers)).transpose();
                opened.push(layers.map_err(io::Error::other)?);
                Ok(())
            })
            .map_err(failed)?;
        let mut next = tops.into_iter().zip(opened);
        machine
            .for_each_disk(|_, disk| {
                let ((file, offset), sealed) = next.next().ok_or(io::ErrorKind::InvalidInput)?;
                disk.advance(file, offset, sealed);
                Ok(())
            })
            .map_err(failed)?;
        Ok(Reply::Done)
    }

    fn paused_machine(&self) -> Result<&Machine, RequestError> {
        match &self.phase {
            Phase::Machine(machine) if !machine.is_running() => Ok(machine),
            Phase::Machine(_) => Err(RequestError::new("the machine is running; pause it first")),
            _ => Err(RequestError::no_guest()),
        }
    }
}
