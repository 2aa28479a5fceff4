//! Failure to build a template.

use std::{io, path::PathBuf, time::Duration};

use snapshotter::OpenError;
use vmm_api::{BootError, Exit};

use crate::{
    blank_pool::BlankError, blocking::Interrupted, capacity::NoRoom, guest_init::GuestInitError,
    snapshot::SnapshotError,
};

/// Failure to build a template.
#[derive(Debug, thiserror::Error)]
pub(super) enum BuildError {
    #[error("failed to read {}", path.display())]
    Artefact {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    #[error("failed to get a blank")]
    Blank(#[source] BlankError),
    #[error("failed to create files of the template")]
    Files(#[source] io::Error),
    #[error("failed to store the root disk")]
    Base(#[source] OpenError),
    #[error("failed to boot the guest")]
    Boot(#[source] BootError),
    #[error("the guest ended before it was ready: {0}")]
    GuestEnded(Exit),
    #[error("the guest was not ready within {0:?}")]
    Timeout(Duration),
    #[error("failed to check whether the guest is ready")]
    HealthCheck(#[source] GuestInitError),
    #[error("failed to take the template's snapshot")]
    Snapshot(#[source] SnapshotError),
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}
