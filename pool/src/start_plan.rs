//! The legal ways to make a machine from a snapshot.

use pool_api::{SnapshotScope, Start};
use snapshotter::MemoryMode;

/// How a machine is made. A fork gets a new identity; the others keep the sandbox's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartPlan {
    /// A new sandbox, from this scope of a snapshot.
    Fork { scope: SnapshotScope },
    /// The same sandbox, with its memory.
    Restore,
    /// The same sandbox, booted from its disk. A snapshot with memory writes its page cache back first.
    Boot { snapshot_scope: SnapshotScope },
}

impl StartPlan {
    /// Returns the part of the snapshot that the machine is made from.
    pub(crate) fn scope(self) -> SnapshotScope {
        match self {
            Self::Fork { scope } => scope,
            Self::Restore => SnapshotScope::Full,
            Self::Boot { .. } => SnapshotScope::DiskOnly,
        }
    }

    /// Returns how guest memory arrives, given the configured mode.
    pub(crate) fn memory_mode(self, configured: MemoryMode) -> MemoryMode {
        match (configured, self) {
            (MemoryMode::Auto, Self::Fork { .. }) => MemoryMode::Cow,
            (mode, _) => mode,
        }
    }

    /// Returns the kind of start for reports.
    pub(crate) fn start(self) -> Start {
        match self {
            Self::Fork {
                scope: SnapshotScope::Full,
            } => Start::Fork,
            Self::Restore => Start::Restore,
            Self::Fork {
                scope: SnapshotScope::DiskOnly,
            }
            | Self::Boot { .. } => Start::Boot,
        }
    }

    /// Returns whether the machine is a new sandbox, whose layers so far belong to its origin.
    pub(crate) fn is_fork(self) -> bool {
        matches!(self, Self::Fork { .. })
    }
}
