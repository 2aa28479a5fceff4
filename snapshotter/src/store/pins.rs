//! Pins of snapshots, and the references that follow from them.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parking_lot::{Condvar, Mutex};
use pool_api::SnapshotId;

use crate::{Digest, Manifest};

/// Holds a snapshot: no file that it references is removed.
#[derive(Debug)]
#[must_use = "the snapshot may be removed as soon as the pin is dropped"]
pub struct Pin {
    id: SnapshotId,
    pins: Arc<SharedPins>,
}

/// The pins of a store. No I/O happens under the lock.
#[derive(Debug, Default)]
pub(crate) struct SharedPins {
    pins: Mutex<Pins>,
    /// Notified when removals end.
    removed: Condvar,
}

#[derive(Debug, Default)]
struct Pins {
    held: HashMap<SnapshotId, Pinned>,
    /// The pins of each snapshot, and the references to it from pinned snapshots.
    references: HashMap<SnapshotId, usize>,
    /// Snapshots that lost their last reference.
    garbage: HashSet<SnapshotId>,
    /// Snapshots that unreadable objects may reference.
    protected: HashSet<SnapshotId>,
    /// Snapshots that are being removed.
    removing: HashSet<SnapshotId>,
    closed: bool,
}

#[derive(Debug)]
struct Pinned {
    count: usize,
    needs: Needs,
}

/// The objects that a snapshot references.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Needs {
    Known {
        /// The owners of its layers.
        snapshots: Vec<SnapshotId>,
        /// The images below its disks.
        bases: Vec<Digest>,
    },
    /// Its manifest cannot be read.
    Unknown,
}

// === impl Needs ===

impl Needs {
    pub(crate) fn of(manifest: &Manifest) -> Self {
        Self::Known {
            snapshots: manifest.owners().cloned().collect(),
            bases: manifest.disks.iter().map(|disk| disk.base.digest).collect(),
        }
    }

    fn snapshots(&self) -> &[SnapshotId] {
        match self {
            Self::Known { snapshots, .. } => snapshots,
            Self::Unknown => &[],
        }
    }
}

// === impl SharedPins ===

impl SharedPins {
    /// Pins a snapshot that is pinned already.
    pub(crate) fn pin_held(this: &Arc<Self>, id: &SnapshotId) -> Option<Pin> {
        this.pins.lock().held.get_mut(id)?.count += 1;
        Some(Pin {
            id: id.clone(),
            pins: Arc::clone(this),
        })
    }

    /// Pins a snapshot. Waits for its removal if that has begun: it is then absent.
    pub(crate) fn pin(this: &Arc<Self>, id: &SnapshotId, needs: Needs) -> Pin {
        let mut pins = this.pins.lock();
        this.removed
            .wait_while(&mut pins, |pins| pins.removing.contains(id));
        pins.add(id, needs);
        Pin {
            id: id.clone(),
            pins: Arc::clone(this),
        }
    }

    pub(crate) fn close(&self) {
        self.pins.lock().closed = true;
    }

    /// Protects these snapshots from removal until the store is opened again.
    pub(crate) fn protect(&self, ids: impl IntoIterator<Item = SnapshotId>) {
        self.pins.lock().protected.extend(ids);
    }

    /// Lists the pinned snapshots whose references are unknown.
    pub(crate) fn unknown(&self) -> Vec<SnapshotId> {
        let pins = self.pins.lock();
        let unknown = pins
            .held
            .iter()
            .filter(|(_, pinned)| pinned.needs == Needs::Unknown);
        unknown.map(|(id, _)| id.clone()).collect()
    }

    /// Records references that were unknown.
    pub(crate) fn resolve(&self, id: &SnapshotId, needs: &Needs) {
        let mut pins = self.pins.lock();
        let Some(pinned) = pins.held.get_mut(id) else {
            return;
        };
        if pinned.needs != Needs::Unknown {
            return;
        }
        pinned.needs = needs.clone();
        for needed in needs.snapshots() {
            pins.reference(needed);
        }
    }

    /// Adds snapshots that may have no reference to the garbage.
    pub(crate) fn suspect(&self, ids: impl IntoIterator<Item = SnapshotId>) {
        self.pins.lock().garbage.extend(ids);
    }

    /// Takes the snapshots to remove now. Call [`SharedPins::end_removal`] for each.
    pub(crate) fn begin_removal(&self) -> Vec<SnapshotId> {
        let mut pins = self.pins.lock();
        if pins.closed {
            return Vec::new();
        }
        let garbage = std::mem::take(&mut pins.garbage);
        let removable: Vec<SnapshotId> = garbage
            .into_iter()
            .filter(|id| !pins.references.contains_key(id) && !pins.protected.contains(id))
            .collect();
        pins.removing.extend(removable.iter().cloned());
        removable
    }

    pub(crate) fn end_removal(&self, id: &SnapshotId) {
        self.pins.lock().removing.remove(id);
        self.removed.notify_all();
    }

    /// Returns the base images that pinned snapshots reference; `None` while a reference may be unknown, or the store is
    /// closed.
    pub(crate) fn referenced_bases(&self) -> Option<HashSet<Digest>> {
        let pins = self.pins.lock();
        let mut referenced = HashSet::new();
        if pins.closed || !pins.protected.is_empty() {
            return None;
        }
        for pinned in pins.held.values() {
            match &pinned.needs {
                Needs::Known { bases, .. } => referenced.extend(bases.iter().copied()),
                Needs::Unknown => return None,
            }
        }
        Some(referenced)
    }

    fn unpin(&self, id: &SnapshotId) {
        self.pins.lock().remove(id);
    }
}

// === impl Pins ===

impl Pins {
    fn add(&mut self, id: &SnapshotId, needs: Needs) {
        if let Some(pinned) = self.held.get_mut(id) {
            pinned.count += 1;
            return;
        }
        self.reference(id);
        for needed in needs.snapshots() {
            self.reference(needed);
        }
        self.held.insert(id.clone(), Pinned { count: 1, needs });
    }

    fn remove(&mut self, id: &SnapshotId) {
        let Some(pinned) = self.held.get_mut(id) else {
            return;
        };
        pinned.count -= 1;
        if pinned.count > 0 {
            return;
        }
        if let Some(pinned) = self.held.remove(id) {
            self.dereference(id);
            for needed in pinned.needs.snapshots() {
                self.dereference(needed);
            }
        }
    }

    fn reference(&mut self, id: &SnapshotId) {
        *self.references.entry(id.clone()).or_default() += 1;
    }

    fn dereference(&mut self, id: &SnapshotId) {
        let Some(count) = self.references.get_mut(id) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            self.references.remove(id);
            self.garbage.insert(id.clone());
        }
    }
}

// === impl Pin ===

impl Pin {
    /// Returns the id of the pinned snapshot.
    pub fn id(&self) -> &SnapshotId {
        &self.id
    }
}

impl Clone for Pin {
    fn clone(&self) -> Self {
        // A held pin has an entry, so nothing else is created.
        SharedPins::pin(&self.pins, &self.id, Needs::Unknown)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.pins.unpin(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> SnapshotId {
        Digest::of(name.as_bytes()).to_string().parse().unwrap()
    }

    fn needs(names: &[&str]) -> Needs {
        Needs::Known {
            snapshots: names.iter().map(|name| id(name)).collect(),
            bases: Vec::new(),
        }
    }

    #[test]
    fn reference_of_a_dropped_pin_becomes_garbage() {
        let pins: Arc<SharedPins> = Arc::default();
        let parent = SharedPins::pin(&pins, &id("parent"), needs(&[]));
        let child = SharedPins::pin(&pins, &id("child"), needs(&["parent"]));
        let second = child.clone();
        drop((parent, child));
        assert!(pins.begin_removal().is_empty());
        drop(second);
        let mut removable = pins.begin_removal();
        removable.sort();
        let mut both = [id("child"), id("parent")];
        both.sort();
        assert_eq!(removable, both);
    }

    #[test]
    fn pin_waits_for_a_removal_of_its_snapshot() {
        let pins: Arc<SharedPins> = Arc::default();
        pins.suspect([id("a")]);
        assert_eq!(pins.begin_removal(), [id("a")]);
        let waiting = std::thread::spawn({
            let pins = Arc::clone(&pins);
            move || SharedPins::pin(&pins, &id("a"), needs(&[]))
        });
        assert!(SharedPins::pin_held(&pins, &id("a")).is_none());
        pins.end_removal(&id("a"));
        let pin = waiting.join().unwrap();
        pins.suspect([id("a")]);
        assert!(pins.begin_removal().is_empty(), "{pin:?} holds it");
    }

    #[test]
    fn resolved_references_count_as_known_ones() {
        let pins: Arc<SharedPins> = Arc::default();
        let pin = SharedPins::pin(&pins, &id("child"), Needs::Unknown);
        assert_eq!(pins.unknown(), [id("child")]);
        assert_eq!(pins.referenced_bases(), None);
        pins.resolve(&id("child"), &needs(&["parent"]));
        assert!(pins.unknown().is_empty() && pins.referenced_bases().is_some());
        pins.suspect([id("parent")]);
        assert!(pins.begin_removal().is_empty());
        drop(pin);
        assert_eq!(pins.begin_removal().len(), 2);
    }
}
