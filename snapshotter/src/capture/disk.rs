//! The newest layer of a disk.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::fd::AsRawFd,
    path::Path,
};

use rustix::fs::{AtFlags, CWD, linkat};

use super::{
    CommitError, DiskSource, Staging,
    fold::{self, fold, fold_from, layers},
    io as failed_io, seal,
};
use crate::{Bitmap, Chain, LayerRef, Layout, Store, Tables, manifest::blocks};

const WHAT: &str = "disk layer";

impl Staging {
    /// Seals a disk's top layer as the snapshot's newest layer, folded with older ones if the chain is long.
    pub(super) fn seal_disk(
        &self,
        store: &Store,
        number: usize,
        disk: &DiskSource,
    ) -> Result<Chain, CommitError> {
        let blocks = blocks(disk.size).ok_or(CommitError::Invalid("impossible disk size"))?;
        let layout = Layout::new(blocks);
        let written = self.read_bitmap(number, blocks)?;
        if written.count() == 0 {
            return Ok(disk.chain.clone());
        }
        let name = format!("disk{number}");
        let path = self.dir.path().join(&name);
        let from = fold_from(&disk.chain);
        let (unfolded, folded) = disk.chain.layers.split_at(from);
        let top = &*disk.top;
        top.set_len(layout.len()).map_err(failed_io(WHAT))?;
        let mut tables = Tables::of_blocks(top, &layout, &written).map_err(seal)?;
        let digest = if folded.is_empty() {
            link(top, &path).map_err(failed_io(WHAT))?;
            let digest = tables.seal(top, &layout).map_err(seal)?;
            store
                .verified
                .insert(digest, top)
                .map_err(failed_io(WHAT))?;
            digest
        } else {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path)
                .map_err(failed_io(WHAT))?;
            file.set_len(layout.len()).map_err(failed_io(WHAT))?;
            fold::copy(top, &file, &layout, &tables).map_err(failed_io(WHAT))?;
            fold(
                &file,
                &layout,
                &mut tables,
                &layers(store, folded, &name, blocks)?,
            )?;
            let digest = tables.seal(&file, &layout).map_err(seal)?;
            store
                .verified
                .insert(digest, &file)
                .map_err(failed_io(WHAT))?;
            digest
        };
        let own = LayerRef {
            owner: None,
            digest,
        };
        Ok(Chain {
            inherited: disk.chain.inherited.min(from),
            layers: unfolded.iter().cloned().chain([own]).collect(),
        })
    }

    /// Reads and removes the bitmap of the blocks that a disk's top layer has.
    fn read_bitmap(&self, number: usize, blocks: u32) -> Result<Bitmap, CommitError> {
        let invalid = CommitError::Invalid("disk bitmap of another length");
        let path = self.dir.path().join(format!("bitmap{number}"));
        if fs::metadata(&path).map_err(failed_io(WHAT))?.len() != Bitmap::len_for(blocks) as u64 {
            return Err(invalid);
        }
        let bytes = fs::read(&path).map_err(failed_io(WHAT))?;
        fs::remove_file(&path).map_err(failed_io(WHAT))?;
        Bitmap::from_bytes(blocks, bytes).ok_or(invalid)
    }
}

/// Links an open file to a path. The file's own name may belong to another file by now.
fn link(file: &File, path: &Path) -> io::Result<()> {
    let by_descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(CWD, by_descriptor, CWD, path, AtFlags::SYMLINK_FOLLOW)?;
    Ok(())
}
