//! The files that templates are built from, and whether they changed.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use pool_api::Resources;
use serde::{Deserialize, Serialize};
use snapshotter::Digest;

use super::error::BuildError;
use crate::Artefacts;

/// A file's metadata and digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fingerprint {
    path: PathBuf,
    inode: u64,
    modified: (i64, i64),
    len: u64,
    digest: Digest,
}

/// The root disk's image.
pub(super) struct DiskImage {
    pub(super) path: PathBuf,
    pub(super) len: u64,
    pub(super) digest: Digest,
}

/// The artefacts as they are on disk.
pub(super) struct ResolvedArtefacts {
    /// The digest of all of them.
    pub(super) digest: Digest,
    pub(super) disk: DiskImage,
    pub(super) files: Vec<Fingerprint>,
}

/// Fingerprints the artefacts. Files that match a known fingerprint are not digested again.
pub(super) fn resolve(
    artefacts: &Artefacts,
    known: &[Fingerprint],
) -> Result<ResolvedArtefacts, BuildError> {
    let kernel = fingerprint(&artefacts.kernel, known)?;
    let disk = fingerprint(&artefacts.disk, known)?;
    let command_line = Digest::of(artefacts.command_line.as_bytes());
    let digests = [kernel.digest, disk.digest, command_line];
    Ok(ResolvedArtefacts {
        digest: Digest::of(&digests.map(|digest| *digest.as_bytes()).concat()),
        disk: DiskImage {
            path: disk.path.clone(),
            len: disk.len,
            digest: disk.digest,
        },
        files: vec![kernel, disk],
    })
}

fn fingerprint(path: &Path, known: &[Fingerprint]) -> Result<Fingerprint, BuildError> {
    let try_fingerprint = || {
        let path = std::path::absolute(path)?;
        let metadata = fs::metadata(&path)?;
        let mut fingerprint = Fingerprint {
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            len: metadata.len(),
            digest: Digest::of(&[]),
            path,
        };
        let unchanged = known.iter().find(|known| {
            let digest = known.digest;
            **known
                == Fingerprint {
                    digest,
                    ..fingerprint.clone()
                }
        });
        fingerprint.digest = match unchanged {
            Some(known) => known.digest,
            None => Digest::of_reader(File::open(&fingerprint.path)?)?,
        };
        Ok(fingerprint)
    };
    try_fingerprint().map_err(|source: io::Error| BuildError::Artefact {
        path: path.to_owned(),
        source,
    })
}

impl ResolvedArtefacts {
    /// Returns the resources of the template: the disk has the size of its image, in whole blocks, or the wanted size if
    /// that is larger.
    pub(super) fn resources(&self, wanted: &Resources) -> Resources {
        let block = vmm_api::PAGE_SIZE as u64;
        Resources {
            disk: wanted.disk.max(self.disk.len).next_multiple_of(block),
            ..*wanted
        }
    }
}
