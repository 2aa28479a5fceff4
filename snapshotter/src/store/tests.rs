mod damage;
mod disk_only;
mod rig;

use std::fs;

use pool_api::{SnapshotId, SnapshotScope};
use vmm_api::MemorySource;

use self::rig::{BLOCKS, Lineage, MEMORY, PAGES, Rig, disk_of, expected, memory_of};
use super::Store;
use crate::{Layer, MemoryMode, OpenError};

const BASE: [(u32, u8); 2] = [(0, b'b'), (1, b'b')];

#[test]
fn snapshot_is_its_parent_and_the_changes() {
    let rig = Rig::new();
    let first = rig
        .snapshot(&Lineage::default(), &[(1, 1), (2, 2), (300, 3)], &[(1, 5)])
        .unwrap();
    let second = rig
        .snapshot(
            &Lineage::after(&first),
            &[(2, 0), (511, 9)],
            &[(1, 6), (63, 7)],
        )
        .unwrap();
    let opened = rig.open(second.pin.id(), MemoryMode::Cow).unwrap();
    assert_eq!(
        memory_of(&opened),
        expected(
            PAGES,
            &[],
            &[&[(1, 1), (2, 2), (300, 3)], &[(2, 0), (511, 9)]]
        )
    );
    assert_eq!(
        disk_of(&opened),
        expected(BLOCKS, &BASE, &[&[(1, 5)], &[(1, 6), (63, 7)]])
    );
    let own = Layer::open(&rig.store.path(second.pin.id()).join("memory"), PAGES, None).unwrap();
    assert_eq!(own.pages().collect::<Vec<_>>(), [2, 511]);
    // An unwritten disk gets no layer.
    let third = rig.snapshot(&Lineage::after(&second), &[], &[]).unwrap();
    assert_eq!(third.manifest.disks[0].chain, Lineage::after(&second).disk);
    assert!(!rig.store.path(third.pin.id()).join("disk0").exists());
}

#[test]
fn forks_share_one_memory() {
    let rig = Rig::new();
    let snapshot = rig.snapshot(&Lineage::default(), &[(1, 1)], &[]).unwrap();
    let id = snapshot.pin.id();
    assert!(paged(&rig, id, MemoryMode::Auto));
    let (a, b) = (
        rig.open(id, MemoryMode::Cow).unwrap(),
        rig.open(id, MemoryMode::Auto).unwrap(),
    );
    let (MemorySource::Cow(first), MemorySource::Cow(second)) = (
        &a.machine.as_ref().unwrap().memory,
        &b.machine.as_ref().unwrap().memory,
    ) else {
        panic!("not in RAM")
    };
    assert!(std::sync::Arc::ptr_eq(first, second));
    assert!(paged(&rig, id, MemoryMode::Paged));
    drop((a, b));
    assert!(paged(&rig, id, MemoryMode::Auto), "no descriptor holds it");
}

#[test]
fn folded_chain_has_the_same_content() {
    let rig = Rig::new();
    let template = rig
        .snapshot(&Lineage::default(), &[(0, 1), (1, 1)], &[(0, 1)])
        .unwrap();
    let mut from = Lineage::after(&template);
    from.memory = from.memory.inherited();
    from.disk = from.disk.inherited();
    let (mut writes, mut blocks) = (vec![vec![(0, 1), (1, 1)]], vec![vec![(0, 1)]]);
    let mut pin = template.pin.clone();
    for epoch in 0..20u8 {
        let page = vec![
            (u32::from(epoch), epoch),
            (100, epoch + 1),
            (200 + u32::from(epoch), 0),
        ];
        let block = vec![(u32::from(epoch) + 2, epoch), (60, epoch + 1)];
        let committed = rig.snapshot(&from, &page, &block).unwrap();
        from = Lineage::after(&committed);
        assert!(
            from.memory.layers.len() <= 9,
            "{} layers",
            from.memory.layers.len()
        );
        assert!(
            from.disk.layers.len() <= 9,
            "{} layers",
            from.disk.layers.len()
        );
        assert_eq!(
            from.memory.layers[0].owner.as_ref(),
            Some(template.pin.id())
        );
        (writes, blocks) = (
            writes.into_iter().chain([page]).collect(),
            blocks.into_iter().chain([block]).collect(),
        );
        pin = committed.pin;
        rig.store.collect().unwrap();
        let opened = rig.open(pin.id(), MemoryMode::Cow).unwrap();
        let writes: Vec<&[(u32, u8)]> = writes.iter().map(Vec::as_slice).collect();
        let blocks: Vec<&[(u32, u8)]> = blocks.iter().map(Vec::as_slice).collect();
        assert_eq!(
            memory_of(&opened),
            expected(PAGES, &[], &writes),
            "epoch {epoch}"
        );
        assert_eq!(
            disk_of(&opened),
            expected(BLOCKS, &BASE, &blocks),
            "epoch {epoch}"
        );
    }
    assert!(rig.count() <= 10, "{} snapshots are left", rig.count());
    drop((pin, template));
    rig.store.collect().unwrap();
    assert_eq!(rig.count(), 0);
}

#[test]
fn collection_keeps_referenced_snapshots() {
    let rig = Rig::new();
    let first = rig.snapshot(&Lineage::default(), &[(1, 1)], &[]).unwrap();
    let second = rig
        .snapshot(&Lineage::after(&first), &[(2, 2)], &[])
        .unwrap();
    let other = rig.snapshot(&Lineage::default(), &[(1, 1)], &[]).unwrap();
    let gone = other.pin.id().clone();
    drop((first, other));
    assert_eq!(rig.store.collect().unwrap(), 1);
    assert!(!rig.store.contains(&gone).unwrap());
    rig.open(second.pin.id(), MemoryMode::Cow).unwrap();
    // A new process has only its own pins.
    let id = second.pin.id().clone();
    drop(second);
    let store = Store::open(&rig.dir.path().join("store")).unwrap();
    let pin = store.pin(&id);
    assert_eq!(store.collect().unwrap(), 0);
    drop(pin);
    assert_eq!(store.collect().unwrap(), 2);
    assert_eq!(rig.count(), 0);
}

#[test]
fn unreadable_pin_protects_existing_snapshots() {
    let rig = Rig::new();
    let first = rig.snapshot(&Lineage::default(), &[(1, 1)], &[]).unwrap();
    let second = rig
        .snapshot(&Lineage::after(&first), &[(2, 2)], &[])
        .unwrap();
    let id = second.pin.id().clone();
    drop((first, second));
    let manifest = rig.store.path(&id).join("manifest");
    let bytes = fs::read(&manifest).unwrap();
    fs::write(&manifest, "{}").unwrap();
    let store = Store::open(&rig.dir.path().join("store")).unwrap();
    let pin = store.pin(&id);
    assert_eq!(store.collect_all().unwrap(), 0);
    assert!(matches!(
        store.open_snapshot(&id, MemoryMode::Auto, |damage| panic!("{damage}")),
        Err(OpenError::Manifest { .. })
    ));
    // Snapshots that are made later are removed as usual.
    let later = store.derive_disk_only(&id);
    assert!(later.is_err(), "{later:?}");
    fs::write(&manifest, bytes).unwrap();
    drop(store.derive_disk_only(&id).unwrap());
    assert_eq!(store.collect().unwrap(), 1);
    // The references are known now, but other unreadable objects may exist.
    drop(pin);
    assert_eq!((store.collect_all().unwrap(), rig.count()), (0, 2));
    let store = Store::open(&rig.dir.path().join("store")).unwrap();
    assert_eq!((store.collect_all().unwrap(), rig.count()), (2, 0));
}

#[test]
fn closed_store_removes_nothing() {
    let rig = Rig::new();
    drop(rig.snapshot(&Lineage::default(), &[(1, 1)], &[]).unwrap());
    rig.store.close();
    assert_eq!((rig.store.collect().unwrap(), rig.count()), (0, 1));
}

#[test]
fn abandoned_staging_is_removed_by_a_collection() {
    let rig = Rig::new();
    let in_use = rig.store.stage(SnapshotScope::Full, MEMORY, 1).unwrap();
    // A removal that failed leaves a directory that nothing uses.
    fs::create_dir_all(rig.store.staging_dir().join("removed-a/snapshot")).unwrap();
    rig.store.collect().unwrap();
    assert_eq!(fs::read_dir(rig.store.staging_dir()).unwrap().count(), 1);
    in_use.spec().unwrap();
}

#[test]
fn dropped_staging_leaves_nothing() {
    let rig = Rig::new();
    let staging = rig.store.stage(SnapshotScope::Full, MEMORY, 1).unwrap();
    drop(staging);
    // As after a crash, the directory exists at the next start.
    let half = rig.store.stage(SnapshotScope::Full, MEMORY, 1).unwrap();
    std::mem::forget(half);
    assert_eq!(fs::read_dir(rig.store.staging_dir()).unwrap().count(), 1);
    let store = Store::open(&rig.dir.path().join("store")).unwrap();
    assert_eq!(fs::read_dir(store.staging_dir()).unwrap().count(), 0);
    assert_eq!(rig.count(), 0);
}

fn paged(rig: &Rig, id: &SnapshotId, mode: MemoryMode) -> bool {
    let opened = rig.open(id, mode).unwrap();
    opened.machine.unwrap().pager.is_some()
}
