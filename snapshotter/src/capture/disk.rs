//! The newest layer of a disk.

use std::fs::{self, OpenOptions};

use super::{
    CommitError, DiskSource, Staging,
    fold::{self, fold, fold_from, layers},
    io, seal,
};
use crate::{Bitmap, Chain, LayerRef, Layout, Store, Tables, manifest::blocks};

impl Staging {
    /// Seals a disk's top layer as the snapshot's newest layer, folded with older ones if the chain is long.
    pub(super) fn seal_disk(
        &self,
        store: &Store,
        number: usize,
        disk: &DiskSource,
    ) -> Result<Chain, CommitError> {
        const WHAT: &str = "disk layer";
        let blocks = blocks(disk.size).ok_or(CommitError::Invalid("impossible disk size"))?;
        let layout = Layout::new(blocks);
        let bitmap_path = self.dir.path().join(format!("bitmap{number}"));
        if fs::metadata(&bitmap_path).map_err(io(WHAT))?.len() != Bitmap::len_for(blocks) as u64 {
            return Err(CommitError::Invalid("disk bitmap of another length"));
        }
        let bytes = fs::read(&bitmap_path).map_err(io(WHAT))?;
        fs::remove_file(&bitmap_path).map_err(io(WHAT))?;
        let written = Bitmap::from_bytes(blocks, bytes)
            .ok_or(CommitError::Invalid("disk bitmap of another length"))?;
        if written.count() == 0 {
            return Ok(disk.chain.clone());
        }
        let name = format!("disk{number}");
        let path = self.dir.path().join(&name);
        let from = fold_from(&disk.chain);
        let (unfolded, folded) = disk.chain.layers.split_at(from);
        let top = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&disk.top)
            .map_err(io(WHAT))?;
        top.set_len(layout.len()).map_err(io(WHAT))?;
        let mut tables = Tables::of_blocks(&top, &layout, &written).map_err(seal)?;
        let digest = if folded.is_empty() {
            fs::hard_link(&disk.top, &path).map_err(io(WHAT))?;
            tables.seal(&top, &layout).map_err(seal)?
        } else {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path)
                .map_err(io(WHAT))?;
            file.set_len(layout.len()).map_err(io(WHAT))?;
            fold::copy(&top, &file, &layout, &tables).map_err(io(WHAT))?;
            fold(
                &file,
                &layout,
                &mut tables,
                &layers(store, folded, &name, blocks)?,
            )?;
            tables.seal(&file, &layout).map_err(seal)?
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
}
