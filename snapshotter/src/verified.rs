//! Which disk layers were read whole and found good.

use std::{collections::HashMap, os::unix::fs::MetadataExt};

use parking_lot::Mutex;

use crate::{Layer, LayerError};

/// A file as it was when it was read: its device, inode, time of change and length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Seen {
    device: u64,
    inode: u64,
    changed: (i64, i64),
    len: u64,
}

/// Remembers which files were verified, so that a hundred forks of one snapshot read its disk once. A file that was
/// written since has another time of change and is read again.
#[derive(Debug, Default)]
pub(crate) struct Verified {
    seen: Mutex<HashMap<crate::Digest, Seen>>,
}

impl Verified {
    /// Layers remembered at most; then all are forgotten.
    const MAX: usize = 4096;

    pub(crate) fn check(&self, layer: &Layer) -> Result<(), LayerError> {
        let metadata = layer.file().metadata();
        let metadata = metadata.map_err(|source| LayerError::Io {
            path: layer.path().to_owned(),
            source,
        })?;
        // A modification time, as links come and go and change the other one.
        let changed = (metadata.mtime(), metadata.mtime_nsec());
        let now = Seen {
            device: metadata.dev(),
            inode: metadata.ino(),
            changed,
            len: metadata.len(),
        };
        if self.seen.lock().get(&layer.digest()) == Some(&now) {
            return Ok(());
        }
        layer.verify()?;
        let mut seen = self.seen.lock();
        if seen.len() >= Self::MAX {
            seen.clear();
        }
        seen.insert(layer.digest(), now);
        Ok(())
    }
}
