//! What templates are built from, and whether it changed.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use pool_api::Resources;
use serde::{Deserialize, Serialize};
use snapshotter::{BaseImage, Digest};

use super::BuildError;
use crate::Artefacts;

/// A file as it was when it was digested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    path: PathBuf,
    inode: u64,
    modified: (i64, i64),
    len: u64,
    digest: Digest,
}

/// What is on disk now.
pub(super) struct Found {
    /// Of all of it.
    pub(super) digest: Digest,
    pub(super) disk: BaseImage,
    pub(super) files: Vec<Seen>,
}

/// Looks at the artefacts, and digests those that are not as they were.
pub(super) fn find(artefacts: &Artefacts, known: &[Seen]) -> Result<Found, BuildError> {
    let kernel = see(&artefacts.kernel, known)?;
    let disk = see(&artefacts.disk, known)?;
    let command_line = Digest::of(artefacts.command_line.as_bytes());
    let digests = [kernel.digest, disk.digest, command_line];
    Ok(Found {
        digest: Digest::of(&digests.map(|digest| *digest.as_bytes()).concat()),
        disk: BaseImage {
            path: disk.path.clone(),
            len: disk.len,
            digest: disk.digest,
        },
        files: vec![kernel, disk],
    })
}

fn see(path: &Path, known: &[Seen]) -> Result<Seen, BuildError> {
    let try_see = || {
        let path = std::path::absolute(path)?;
        let metadata = fs::metadata(&path)?;
        let mut seen = Seen {
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            len: metadata.len(),
            digest: Digest::of(&[]),
            path,
        };
        let same = known.iter().find(|known| {
            let digest = known.digest;
            **known
                == Seen {
                    digest,
                    ..seen.clone()
                }
        });
        seen.digest = match same {
            Some(same) => same.digest,
            None => Digest::of_reader(File::open(&seen.path)?)?,
        };
        Ok(seen)
    };
    try_see().map_err(|source: io::Error| BuildError::Artefact {
        path: path.to_owned(),
        source,
    })
}

impl Found {
    /// The disk is as large as its image, in whole blocks, or as asked for.
    pub(super) fn resources(&self, wanted: &Resources) -> Resources {
        let page = vmm_api::PAGE_SIZE as u64;
        Resources {
            disk: wanted.disk.max(self.disk.len).next_multiple_of(page),
            ..*wanted
        }
    }
}
