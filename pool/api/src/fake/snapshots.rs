//! The snapshots of a fake host.

use std::collections::{BTreeMap, BTreeSet};

use crate::{SandboxId, SnapshotId, SnapshotScope, Start, TakenSnapshot};

/// Every snapshot that was taken, and the retained ones.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    last: u64,
    taken: BTreeMap<SnapshotId, (SandboxId, SnapshotScope)>,
    retained: BTreeSet<SnapshotId>,
}

impl Snapshots {
    /// Generates an unused id.
    pub(super) fn next_id(&mut self) -> Option<SnapshotId> {
        self.last += 1;
        format!("{:064x}", self.last).parse().ok()
    }

    /// Records a new snapshot of a sandbox.
    pub(super) fn take(&mut self, of: &SandboxId, scope: SnapshotScope) -> Option<TakenSnapshot> {
        let id = self.next_id()?;
        self.taken.insert(id.clone(), (of.clone(), scope));
        Some(TakenSnapshot { id, scope })
    }

    pub(super) fn retain(&mut self, id: SnapshotId) {
        self.retained.insert(id);
    }

    pub(super) fn release(&mut self, id: &SnapshotId) {
        self.retained.remove(id);
    }

    pub(super) fn retained(&self) -> Vec<SnapshotId> {
        self.retained.iter().cloned().collect()
    }

    pub(super) fn is_retained(&self, id: &SnapshotId) -> bool {
        self.retained.contains(id)
    }

    /// Returns whether a retained snapshot belongs to this sandbox.
    pub(super) fn belongs_to(&self, id: &SnapshotId, sandbox: &SandboxId) -> bool {
        self.is_retained(id) && self.taken.get(id).is_some_and(|(of, _)| of == sandbox)
    }

    /// Returns the sandbox that a retained snapshot was taken of.
    pub(super) fn sandbox_of(&self, id: &SnapshotId) -> Option<SandboxId> {
        let (of, _) = self.taken.get(id).filter(|_| self.is_retained(id))?;
        Some(of.clone())
    }

    /// Returns the scope of a snapshot.
    pub(super) fn scope(&self, id: &SnapshotId) -> SnapshotScope {
        self.taken
            .get(id)
            .map(|(_, scope)| *scope)
            .unwrap_or_default()
    }

    /// Returns how a new sandbox starts from a snapshot.
    pub(super) fn start(&self, id: &SnapshotId) -> Start {
        match self.scope(id) {
            SnapshotScope::DiskOnly => Start::Boot,
            SnapshotScope::Full => Start::Fork,
        }
    }
}
