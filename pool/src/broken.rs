//! Sandboxes and retained snapshots whose files cannot be read.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use pool_api::{Broken, BrokenObject, SandboxId, SnapshotId};

/// The broken objects of this host, with the reason.
#[derive(Debug, Default)]
pub(crate) struct BrokenObjects {
    sandboxes: Mutex<BTreeMap<SandboxId, String>>,
    snapshots: Mutex<BTreeMap<SnapshotId, String>>,
}

impl BrokenObjects {
    pub(crate) fn add_sandbox(&self, id: SandboxId, reason: String) {
        self.sandboxes.lock().insert(id, reason);
    }

    pub(crate) fn add_snapshot(&self, id: SnapshotId, reason: String) {
        self.snapshots.lock().insert(id, reason);
    }

    /// Removes a sandbox; returns whether it was broken.
    pub(crate) fn remove_sandbox(&self, id: &SandboxId) -> bool {
        self.sandboxes.lock().remove(id).is_some()
    }

    pub(crate) fn remove_snapshot(&self, id: &SnapshotId) {
        self.snapshots.lock().remove(id);
    }

    pub(crate) fn is_broken(&self, id: &SandboxId) -> bool {
        self.sandboxes.lock().contains_key(id)
    }

    pub(crate) fn sandboxes(&self) -> Vec<SandboxId> {
        self.sandboxes.lock().keys().cloned().collect()
    }

    pub(crate) fn snapshots(&self) -> Vec<SnapshotId> {
        self.snapshots.lock().keys().cloned().collect()
    }

    /// Describes every broken object.
    pub(crate) fn all(&self) -> Vec<Broken> {
        let sandboxes = self.sandboxes.lock();
        let snapshots = self.snapshots.lock();
        let sandbox = |(id, reason): (&SandboxId, &String)| Broken {
            object: BrokenObject::Sandbox(id.clone()),
            reason: reason.clone(),
        };
        let snapshot = |(id, reason): (&SnapshotId, &String)| Broken {
            object: BrokenObject::Snapshot(id.clone()),
            reason: reason.clone(),
        };
        let sandboxes = sandboxes.iter().map(sandbox);
        sandboxes.chain(snapshots.iter().map(snapshot)).collect()
    }
}
