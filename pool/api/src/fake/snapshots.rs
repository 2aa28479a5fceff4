//! Snapshots that outlive sandboxes.

use std::collections::{BTreeMap, BTreeSet};

use super::{Fake, lock};
use crate::{Keep, SandboxId, SnapshotId, Start};

/// Every snapshot that was ever taken, and which of them are kept.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    last: u64,
    taken: BTreeMap<SnapshotId, (SandboxId, Keep)>,
    kept: BTreeSet<SnapshotId>,
}

impl Snapshots {
    /// A name no snapshot had before.
    pub(super) fn next_id(&mut self) -> Option<SnapshotId> {
        self.last += 1;
        format!("{:064x}", self.last).parse().ok()
    }

    /// Notes a new snapshot of a sandbox.
    pub(super) fn take(&mut self, of: &SandboxId, keep: Keep) -> Option<SnapshotId> {
        let id = self.next_id()?;
        self.taken.insert(id.clone(), (of.clone(), keep));
        Some(id)
    }

    pub(super) fn keep(&mut self, id: SnapshotId) {
        self.kept.insert(id);
    }

    pub(super) fn give_up(&mut self, id: &SnapshotId) {
        self.kept.remove(id);
    }

    pub(super) fn kept(&self) -> Vec<SnapshotId> {
        self.kept.iter().cloned().collect()
    }

    pub(super) fn is_kept(&self, id: &SnapshotId) -> bool {
        self.kept.contains(id)
    }

    /// Whether a kept snapshot is one of this sandbox.
    pub(super) fn is_of(&self, id: &SnapshotId, sandbox: &SandboxId) -> bool {
        self.is_kept(id) && self.taken.get(id).is_some_and(|(of, _)| of == sandbox)
    }

    /// How a machine starts from a snapshot.
    pub(super) fn start(&self, id: &SnapshotId) -> Start {
        match self.taken.get(id) {
            Some((_, Keep::Filesystem)) => Start::Boot,
            _ => Start::Fork,
        }
    }
}

impl Fake {
    /// While true snapshots cannot be taken.
    pub fn set_snapshot_fails(&self, fails: bool) {
        lock(&self.0.script).snapshot_fails = fails;
    }

    /// While true snapshots cannot be given up.
    pub fn set_give_up_fails(&self, fails: bool) {
        lock(&self.0.script).give_up_fails = fails;
    }
}
