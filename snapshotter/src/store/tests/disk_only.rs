//! Disk-only snapshots.

use pool_api::SnapshotScope;

use super::{
    BASE,
    rig::{BLOCKS, Lineage, Rig, disk_of, expected, memory_of},
};
use crate::MemoryMode;

#[test]
fn disk_only_snapshot_has_no_machine() {
    let rig = Rig::new();
    let full = rig
        .snapshot(&Lineage::default(), &[(1, 1)], &[(1, 5)])
        .unwrap();
    let from = Lineage::after(&full);
    let alone = rig.disk_only(&from, &[(2, 6)]).unwrap();
    assert_eq!(alone.manifest.scope(), SnapshotScope::DiskOnly);
    let opened = rig.open(alone.pin.id(), MemoryMode::Cow).unwrap();
    assert!(opened.machine.is_none());
    assert_eq!(
        disk_of(&opened),
        expected(BLOCKS, &BASE, &[&[(1, 5)], &[(2, 6)]])
    );
    let files: Vec<_> = std::fs::read_dir(rig.store.path(alone.pin.id()))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(files.len(), 2, "{files:?}");
}

#[test]
fn derived_disk_snapshot_outlives_its_source() {
    let rig = Rig::new();
    let full = rig
        .snapshot(&Lineage::default(), &[(1, 1)], &[(1, 5)])
        .unwrap();
    let alone = rig.store.derive_disk_only(full.pin.id()).unwrap();
    drop(full);
    rig.store.collect().unwrap();
    let opened = rig.store.open_disk_only(alone.pin.id()).unwrap();
    assert_eq!(disk_of(&opened), expected(BLOCKS, &BASE, &[&[(1, 5)]]));
}

#[test]
fn full_snapshot_opens_without_its_memory() {
    let rig = Rig::new();
    let full = rig
        .snapshot(&Lineage::default(), &[(1, 1)], &[(1, 5)])
        .unwrap();
    let opened = rig.store.open_disk_only(full.pin.id()).unwrap();
    assert!(opened.machine.is_none());
    assert_eq!(
        memory_of(&rig.open(full.pin.id(), MemoryMode::Cow).unwrap())[1],
        1
    );
}
