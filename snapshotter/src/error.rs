//! Failure to open a snapshot.

use std::{io, path::PathBuf};

use pool_api::SnapshotId;

use crate::{LayerError, ManifestError};

/// Failure to open a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file cannot be read.
    #[error("failed to read {}", path.display())]
    Io {
        /// The object.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The manifest is not usable.
    #[error("failed to read manifest {}", path.display())]
    Manifest {
        /// Its path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: ManifestError,
    },
    /// A file does not match the manifest.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// Its path.
        path: PathBuf,
        /// The defect.
        what: &'static str,
    },
    /// A layer is not usable.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The host has too little memory.
    #[error("failed to load memory of snapshot {id} into RAM")]
    Memory {
        /// The object.
        id: SnapshotId,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl From<io::Error> for OpenError {
    /// A failure to read a file's metadata by its descriptor.
    fn from(source: io::Error) -> Self {
        Self::Io {
            path: PathBuf::from("an open file"),
            source,
        }
    }
}

impl OpenError {
    /// Returns whether a file is missing or has other bytes than were written, rather than being unreadable now.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Self::Manifest { .. } | Self::Damaged { .. } => true,
            Self::Layer(error) => error.is_damage(),
            Self::Memory { .. } => false,
        }
    }
}
