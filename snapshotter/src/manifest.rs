//! The manifest of a snapshot: the file that names all its parts.
//!
//! A snapshot's id is the BLAKE3 digest of its manifest, and the manifest holds the digests of all other parts, so every
//! altered part is detected. A layer is referenced by the snapshot that owns it, and its file name follows from its role;
//! no path of a layer is read from a file.

use std::path::{Path, PathBuf};

use pool_api::{Resources, SnapshotId, SnapshotScope, TemplateName};
use serde::{Deserialize, Serialize};
use vmm_api::PAGE_SIZE;

use crate::{Digest, MAX_PAGES};

const VERSION: u32 = 3;
/// The last version that named base images by path.
const PATHS: u32 = 2;
/// The oldest supported version.
const OLDEST: u32 = 1;
const MAX_LEN: usize = 1 << 20;
const MAX_LAYERS: usize = 256;
const MAX_DISKS: usize = 8;

/// The description of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of the format.
    pub version: u32,
    /// The template it descends from.
    pub template: TemplateName,
    /// The snapshot that its machine was loaded from.
    pub parent: Option<SnapshotId>,
    /// The time of the capture, in nanoseconds since 1970.
    pub created_at: u64,
    /// The resources of its machine.
    pub resources: Resources,
    /// The machine's state; `None` for a disk-only snapshot, which boots.
    pub machine: Option<FileRef>,
    /// Its memory; empty for a disk-only snapshot.
    pub memory: Chain,
    /// Its disks.
    pub disks: Vec<DiskManifest>,
}

/// A file in the snapshot's directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRef {
    /// Its length in bytes.
    pub len: u64,
    /// Its digest.
    pub digest: Digest,
}

/// A chain of layers, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// The number of oldest layers inherited by a fork. They are shared and folded last.
    pub inherited: usize,
    /// The layers.
    pub layers: Vec<LayerRef>,
}

/// A reference to a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerRef {
    /// The snapshot whose directory has the layer; `None` for this manifest's own, which is possible for the newest layer
    /// only.
    pub owner: Option<SnapshotId>,
    /// Its digest.
    pub digest: Digest,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskManifest {
    /// Its size in bytes.
    pub size: u64,
    /// The image below its layers.
    pub base: BaseImage,
    /// Its layers.
    pub chain: Chain,
}

/// The raw image below a disk's layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseImage {
    /// Its path, in manifests of versions 1 and 2 only: since then, images are in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Its length in bytes.
    pub len: u64,
    /// Its digest.
    pub digest: Digest,
}

/// Failure to encode or decode a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The bytes do not match the snapshot's id.
    #[error("manifest is damaged: its digest is not the snapshot's id")]
    Digest,
    /// The file is longer than 1 MiB.
    #[error("manifest is damaged: longer than 1 MiB")]
    TooLong,
    /// The bytes are not a manifest.
    #[error("failed to parse manifest")]
    Json(#[from] serde_json::Error),
    /// The content is contradictory.
    #[error("manifest is not usable: {0}")]
    Invalid(&'static str),
}

impl Manifest {
    /// The version of new manifests.
    pub const VERSION: u32 = VERSION;
    /// Maximum length in bytes.
    pub const MAX_LEN: usize = MAX_LEN;

    /// Encodes the manifest and computes the snapshot's id.
    pub fn encode(&self) -> Result<(SnapshotId, Vec<u8>), ManifestError> {
        self.check()?;
        let bytes = serde_json::to_vec_pretty(self)?;
        Ok((id_of(&bytes)?, bytes))
    }

    /// Decodes any bytes to the manifest of `id` or a reason.
    pub fn decode(bytes: &[u8], id: &SnapshotId) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_LEN {
            return Err(ManifestError::TooLong);
        }
        if id_of(bytes)? != *id {
            return Err(ManifestError::Digest);
        }
        Self::parse(bytes)
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self = serde_json::from_slice(bytes)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Returns the snapshot's scope.
    pub fn scope(&self) -> SnapshotScope {
        match self.machine {
            Some(_) => SnapshotScope::Full,
            None => SnapshotScope::DiskOnly,
        }
    }

    /// Returns the number of memory pages.
    pub fn pages(&self) -> u32 {
        blocks(self.resources.memory).unwrap_or(0)
    }

    /// Iterates over the other snapshots whose layers this one references.
    pub fn owners(&self) -> impl Iterator<Item = &SnapshotId> {
        let disks = self.disks.iter().flat_map(|disk| &disk.chain.layers);
        self.memory
            .layers
            .iter()
            .chain(disks)
            .filter_map(|layer| layer.owner.as_ref())
    }

    fn check(&self) -> Result<(), ManifestError> {
        let invalid = |what| Err(ManifestError::Invalid(what));
        if !(OLDEST..=VERSION).contains(&self.version) {
            return invalid("unknown version");
        }
        if self.machine.is_none() != self.memory.layers.is_empty() {
            return invalid("state without memory, or memory without state");
        }
        if self.resources.vcpus == 0 || blocks(self.resources.memory).is_none_or(|pages| pages == 0)
        {
            return invalid("impossible resources");
        }
        if self.disks.len() > MAX_DISKS {
            return invalid("too many disks");
        }
        for disk in &self.disks {
            let named_by_path = self.version <= PATHS;
            let path = disk.base.path.as_deref();
            if blocks(disk.size).is_none()
                || path.is_some_and(Path::is_relative)
                || path.is_some() != named_by_path
            {
                return invalid("impossible disk");
            }
        }
        let chains = self
            .disks
            .iter()
            .map(|disk| &disk.chain)
            .chain([&self.memory]);
        if chains.into_iter().any(|chain| !chain.is_possible()) {
            return invalid("impossible chain of layers");
        }
        Ok(())
    }
}

impl BaseImage {
    /// Describes an image of the store.
    pub fn stored(len: u64, digest: Digest) -> Self {
        Self {
            path: None,
            len,
            digest,
        }
    }
}

impl Chain {
    /// Returns the chain as other snapshots reference it: the own layer belongs to `owner`.
    #[must_use]
    pub fn owned_by(&self, owner: &SnapshotId) -> Self {
        let name = |layer: &LayerRef| LayerRef {
            owner: Some(layer.owner.clone().unwrap_or_else(|| owner.clone())),
            digest: layer.digest,
        };
        Self {
            inherited: self.inherited,
            layers: self.layers.iter().map(name).collect(),
        }
    }

    /// Returns the chain as a fork inherits it.
    #[must_use]
    pub fn inherited(mut self) -> Self {
        self.inherited = self.layers.len();
        self
    }

    fn is_possible(&self) -> bool {
        let older = self.layers.split_last().map_or(&[][..], |(_, older)| older);
        self.layers.len() <= MAX_LAYERS
            && self.inherited <= self.layers.len()
            && older.iter().all(|layer| layer.owner.is_some())
    }
}

/// Converts bytes to pages; `None` for a partial page or too many pages.
pub(crate) fn blocks(bytes: u64) -> Option<u32> {
    let size = PAGE_SIZE as u64;
    let pages = u32::try_from(bytes / size).ok()?;
    (bytes.is_multiple_of(size) && pages <= MAX_PAGES).then_some(pages)
}

fn id_of(bytes: &[u8]) -> Result<SnapshotId, ManifestError> {
    let text = Digest::of(bytes).to_string();
    text.parse()
        .map_err(|_| ManifestError::Invalid("its digest is not an id"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn manifest() -> Manifest {
        let digest = Digest::of(b"x");
        Manifest {
            version: VERSION,
            template: "base".parse().unwrap(),
            parent: None,
            created_at: 1,
            resources: Resources {
                vcpus: 1,
                memory: 2 << 20,
                disk: 4096,
            },
            machine: Some(FileRef { len: 3, digest }),
            memory: Chain {
                inherited: 0,
                layers: vec![LayerRef {
                    owner: None,
                    digest,
                }],
            },
            disks: vec![DiskManifest {
                size: 4096,
                base: BaseImage::stored(1, digest),
                chain: Chain::default(),
            }],
        }
    }

    #[test]
    fn manifest_round_trips_and_matches_its_id() {
        let (id, bytes) = manifest().encode().unwrap();
        assert_eq!(Manifest::decode(&bytes, &id).unwrap(), manifest());
        let other = manifest()
            .encode()
            .unwrap()
            .0
            .as_str()
            .replace(['0', '1', '2'], "3")
            .parse()
            .unwrap();
        assert!(matches!(
            Manifest::decode(&bytes, &other),
            Err(ManifestError::Digest)
        ));
    }

    #[test]
    fn contradictory_manifest_is_refused() {
        let own = LayerRef {
            owner: None,
            digest: Digest::of(b"x"),
        };
        let mut two_own = manifest();
        two_own.memory.layers.push(own);
        let mut relative = manifest();
        relative.version = PATHS;
        relative.disks[0].base.path = Some("../base".into());
        let mut by_path = manifest();
        by_path.disks[0].base.path = Some("/base".into());
        let mut huge = manifest();
        huge.resources.memory = 1 << 60;
        for bad in [two_own, relative, by_path, huge] {
            assert!(
                matches!(bad.encode(), Err(ManifestError::Invalid(_))),
                "{bad:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_manifest_or_are_refused(bytes: Vec<u8>) {
            prop_assert!(Manifest::parse(&bytes).is_err());
        }

        #[test]
        fn a_changed_manifest_is_not_taken_for_the_old_one(at: usize, byte: u8) {
            let (id, mut bytes) = manifest().encode().unwrap();
            let at = at % bytes.len();
            prop_assume!(bytes[at] != byte);
            bytes[at] = byte;
            prop_assert!(Manifest::decode(&bytes, &id).is_err());
            if let Ok(read) = Manifest::parse(&bytes) {
                prop_assert!(read.check().is_ok());
            }
        }
    }
}
