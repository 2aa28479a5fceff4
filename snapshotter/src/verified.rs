//! Cache of disk layers that were checked.

use std::{collections::HashMap, os::unix::fs::MetadataExt};

use parking_lot::Mutex;

use crate::{Layer, LayerError};

/// A file's device, inode, modification time and length at its check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct FileStamp {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    len: u64,
}

/// Remembers checked files, so that a hundred forks of one snapshot read its disk once. A file that was written since has
/// another modification time and is checked again.
#[derive(Debug, Default)]
pub(crate) struct Verified {
    stamps: Mutex<HashMap<crate::Digest, FileStamp>>,
}

impl Verified {
    /// Maximum entries; a full cache is cleared.
    const MAX: usize = 4096;

    pub(crate) fn check(&self, layer: &Layer) -> Result<(), LayerError> {
        let metadata = layer.file().metadata();
        let metadata = metadata.map_err(|source| LayerError::Io {
            path: layer.path().to_owned(),
            source,
        })?;
        // The modification time: links change the change time.
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        let stamp = FileStamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            modified,
            len: metadata.len(),
        };
        if self.stamps.lock().get(&layer.digest()) == Some(&stamp) {
            return Ok(());
        }
        layer.verify()?;
        let mut stamps = self.stamps.lock();
        if stamps.len() >= Self::MAX {
            stamps.clear();
        }
        stamps.insert(layer.digest(), stamp);
        Ok(())
    }
}
