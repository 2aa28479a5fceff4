use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use pool_api::{Resources, SnapshotId};
use tempfile::TempDir;
use vmm_api::{Captured, MemorySource, PAGE_SIZE, PageRecord, page_digest};

use super::Store;
use crate::{
    BaseImage, Bitmap, Chain, CommitError, Committed, Cut, Digest, DiskCut, Layer, Layout, Mode,
    OpenError, Opened,
};

const PAGES: u32 = 512;
const MEMORY: u64 = PAGES as u64 * 4096;
const BLOCKS: u32 = 64;

/// A machine that writes what it is told to.
struct Rig {
    dir: TempDir,
    store: Store,
    base: BaseImage,
}

#[derive(Clone, Default)]
struct Lineage {
    parent: Option<SnapshotId>,
    memory: Chain,
    disk: Chain,
}

impl Lineage {
    fn after(committed: &Committed) -> Self {
        let id = committed.pin.id();
        Self {
            parent: Some(id.clone()),
            memory: committed.manifest.memory.owned_by(id),
            disk: committed.manifest.disks[0].chain.owned_by(id),
        }
    }
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("base");
        fs::write(&path, vec![b'b'; 8192]).unwrap();
        let base = BaseImage {
            digest: Digest::of_reader(File::open(&path).unwrap()).unwrap(),
            path,
            len: 8192,
        };
        let store = Store::open(&dir.path().join("store")).unwrap();
        Self { dir, store, base }
    }

    fn top(&self, blocks: &[(u32, u8)]) -> PathBuf {
        let (file, path) = tempfile::NamedTempFile::new_in(self.dir.path())
            .unwrap()
            .keep()
            .unwrap();
        for (block, byte) in blocks {
            file.write_all_at(&[*byte; PAGE_SIZE], Layout::new(BLOCKS).page_offset(*block))
                .unwrap();
        }
        path
    }

    fn snapshot(
        &self,
        from: &Lineage,
        pages: &[(u32, u8)],
        blocks: &[(u32, u8)],
    ) -> Result<Committed, CommitError> {
        let staging = self.store.stage(MEMORY, 1)?;
        let mut spec = staging.spec()?;
        spec.image.write_all(b"state").unwrap();
        let mut zero_pages = 0;
        for (page, byte) in pages {
            let bytes = [*byte; PAGE_SIZE];
            let record = PageRecord {
                number: *page,
                zero: *byte == 0,
                digest: page_digest(&bytes),
            };
            spec.page_index.write_all(&record.encode()).unwrap();
            if record.zero {
                zero_pages += 1;
            } else {
                spec.pages
                    .write_all_at(&bytes, spec.pages_offset + u64::from(*page) * 4096)
                    .unwrap();
            }
        }
        let mut bitmap = Bitmap::new(BLOCKS);
        blocks.iter().for_each(|(block, _)| bitmap.set(*block));
        spec.disk_bitmaps[0].write_all(bitmap.as_bytes()).unwrap();
        let captured = Captured {
            image_len: 5,
            pages: pages.len() as u64,
            zero_pages,
        };
        let disk = DiskCut {
            size: u64::from(BLOCKS) * 4096,
            base: self.base.clone(),
            chain: from.disk.clone(),
            top: self.top(blocks),
        };
        let cut = Cut {
            template: "base".parse().unwrap(),
            resources: Resources {
                vcpus: 1,
                memory: MEMORY,
                disk: disk.size,
            },
            parent: from.parent.clone(),
            memory: from.memory.clone(),
            disks: vec![disk],
            working_set: Vec::new(),
        };
        staging.commit(&self.store, &captured, cut)
    }

    fn open(&self, id: &SnapshotId, mode: Mode) -> Result<Opened, OpenError> {
        self.store
            .open_snapshot(id, mode, |damage| panic!("{damage}"))
    }

    fn count(&self) -> usize {
        fs::read_dir(self.store.snapshots_dir()).unwrap().count()
    }
}

fn memory_of(opened: &Opened) -> Vec<u8> {
    let MemorySource::Cow(memory) = &opened.memory else {
        panic!("not in RAM")
    };
    let file = File::from(memory.try_clone().unwrap());
    assert!(file.write_at(b"x", 0).is_err(), "the memory is not sealed");
    (0..PAGES)
        .map(|page| {
            let mut bytes = [0; PAGE_SIZE];
            file.read_exact_at(&mut bytes, u64::from(page) * 4096)
                .unwrap();
            assert!(bytes.iter().all(|byte| *byte == bytes[0]));
            bytes[0]
        })
        .collect()
}

fn disk_of(opened: &Opened) -> Vec<u8> {
    let disk = &opened.disks[0];
    let read = |file: &File, offset| {
        let mut byte = [0];
        let got = file.read_at(&mut byte, offset).unwrap();
        if got == 0 { 0 } else { byte[0] }
    };
    let block = |block: u32| {
        let has = |layer: &&vmm_api::DiskLayer| {
            read(&layer.file, layer.bitmap_offset + u64::from(block / 8)) & (1 << (block % 8)) != 0
        };
        match disk.layers.iter().rev().find(has) {
            Some(layer) => read(&layer.file, layer.blocks_offset + u64::from(block) * 4096),
            None => read(&disk.base, u64::from(block) * 4096),
        }
    };
    (0..BLOCKS).map(block).collect()
}

fn expected(len: u32, base: &[(u32, u8)], writes: &[&[(u32, u8)]]) -> Vec<u8> {
    let mut all: BTreeMap<u32, u8> = base.iter().copied().collect();
    all.extend(writes.iter().copied().flatten().copied());
    (0..len)
        .map(|at| all.get(&at).copied().unwrap_or(0))
        .collect()
}

const BASE: [(u32, u8); 2] = [(0, b'b'), (1, b'b')];

#[test]
fn a_snapshot_is_its_parent_and_what_changed() {
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
    let opened = rig.open(second.pin.id(), Mode::Cow).unwrap();
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
    // A disk that nobody wrote gets no layer.
    let third = rig.snapshot(&Lineage::after(&second), &[], &[]).unwrap();
    assert_eq!(third.manifest.disks[0].chain, Lineage::after(&second).disk);
    assert!(!rig.store.path(third.pin.id()).join("disk0").exists());
}

#[test]
fn forks_share_one_memory() {
    let rig = Rig::new();
    let snapshot = rig.snapshot(&Lineage::default(), &[(1, 1)], &[]).unwrap();
    let id = snapshot.pin.id();
    assert!(rig.open(id, Mode::Auto).unwrap().pager.is_some());
    let (a, b) = (
        rig.open(id, Mode::Cow).unwrap(),
        rig.open(id, Mode::Auto).unwrap(),
    );
    let (MemorySource::Cow(first), MemorySource::Cow(second)) = (&a.memory, &b.memory) else {
        panic!("not in RAM")
    };
    assert!(std::sync::Arc::ptr_eq(first, second));
    assert!(rig.open(id, Mode::Paged).unwrap().pager.is_some());
    drop((a, b));
    assert!(
        rig.open(id, Mode::Auto).unwrap().pager.is_some(),
        "nobody holds it any more"
    );
}

#[test]
fn a_long_chain_is_folded_and_reads_the_same() {
    let rig = Rig::new();
    let template = rig
        .snapshot(&Lineage::default(), &[(0, 1), (1, 1)], &[(0, 1)])
        .unwrap();
    let mut from = Lineage::after(&template);
    from.memory = from.memory.inherited();
    from.disk = from.disk.inherited();
    let (mut writes, mut blocks) = (vec![vec![(0, 1), (1, 1)]], vec![vec![(0, 1)]]);
    let mut pin = template.pin.clone();
    for life in 0..20u8 {
        let page = vec![
            (u32::from(life), life),
            (100, life + 1),
            (200 + u32::from(life), 0),
        ];
        let block = vec![(u32::from(life) + 2, life), (60, life + 1)];
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
        let opened = rig.open(pin.id(), Mode::Cow).unwrap();
        let writes: Vec<&[(u32, u8)]> = writes.iter().map(Vec::as_slice).collect();
        let blocks: Vec<&[(u32, u8)]> = blocks.iter().map(Vec::as_slice).collect();
        assert_eq!(
            memory_of(&opened),
            expected(PAGES, &[], &writes),
            "life {life}"
        );
        assert_eq!(
            disk_of(&opened),
            expected(BLOCKS, &BASE, &blocks),
            "life {life}"
        );
    }
    assert!(rig.count() <= 10, "{} snapshots are left", rig.count());
    drop((pin, template));
    rig.store.collect().unwrap();
    assert_eq!(rig.count(), 0);
}

#[test]
fn what_a_held_snapshot_needs_stays() {
    let rig = Rig::new();
    let first = rig.snapshot(&Lineage::default(), &[(1, 1)], &[]).unwrap();
    let second = rig
        .snapshot(&Lineage::after(&first), &[(2, 2)], &[])
        .unwrap();
    let other = rig.snapshot(&Lineage::default(), &[(1, 1)], &[]).unwrap();
    let gone = other.pin.id().clone();
    drop((first, other));
    assert_eq!(rig.store.collect().unwrap(), 1);
    assert!(!rig.store.contains(&gone));
    rig.open(second.pin.id(), Mode::Cow).unwrap();
    // A new process knows only what it pins.
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
fn a_held_snapshot_nobody_can_read_stops_removal() {
    let rig = Rig::new();
    let first = rig.snapshot(&Lineage::default(), &[(1, 1)], &[]).unwrap();
    let second = rig
        .snapshot(&Lineage::after(&first), &[(2, 2)], &[])
        .unwrap();
    let id = second.pin.id().clone();
    drop((first, second));
    fs::write(rig.store.path(&id).join("manifest"), "{}").unwrap();
    let pin = rig.store.pin(&id);
    assert_eq!(rig.store.collect().unwrap(), 0);
    assert!(matches!(
        rig.open(&id, Mode::Auto),
        Err(OpenError::Manifest { .. })
    ));
    drop(pin);
}

#[test]
fn a_closed_store_removes_nothing() {
    let rig = Rig::new();
    drop(rig.snapshot(&Lineage::default(), &[(1, 1)], &[]).unwrap());
    rig.store.close();
    assert_eq!((rig.store.collect().unwrap(), rig.count()), (0, 1));
}

#[test]
fn a_staging_that_is_not_committed_leaves_nothing() {
    let rig = Rig::new();
    let staging = rig.store.stage(MEMORY, 1).unwrap();
    drop(staging);
    // As after a crash: the directory is still there at the next start.
    let half = rig.store.stage(MEMORY, 1).unwrap();
    std::mem::forget(half);
    assert_eq!(fs::read_dir(rig.store.staging_dir()).unwrap().count(), 1);
    let store = Store::open(&rig.dir.path().join("store")).unwrap();
    assert_eq!(fs::read_dir(store.staging_dir()).unwrap().count(), 0);
    assert_eq!(rig.count(), 0);
}

fn damage(path: &Path, at: u64) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn a_damaged_file_is_named() {
    let memory = Layout::new(PAGES).page_offset(1);
    let disk = Layout::new(BLOCKS).page_offset(3);
    for (name, at) in [
        ("machine", 2),
        ("memory", memory),
        ("memory", 4096),
        ("disk0", disk),
        ("manifest", 30),
    ] {
        let rig = Rig::new();
        let snapshot = rig
            .snapshot(&Lineage::default(), &[(1, 1)], &[(3, 4)])
            .unwrap();
        let path = rig.store.path(snapshot.pin.id()).join(name);
        rig.open(snapshot.pin.id(), Mode::Cow).unwrap();
        damage(&path, at);
        let error = rig.open(snapshot.pin.id(), Mode::Cow).unwrap_err();
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
        damage(&path, at);
        rig.open(snapshot.pin.id(), Mode::Cow).unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(3)
            .unwrap();
        let error = rig.open(snapshot.pin.id(), Mode::Cow).unwrap_err();
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
    }
}

#[test]
fn a_capture_that_cannot_be_is_refused() {
    let rig = Rig::new();
    let staging = rig.store.stage(MEMORY, 0).unwrap();
    let mut spec = staging.spec().unwrap();
    let record = PageRecord {
        number: PAGES,
        zero: true,
        digest: 0,
    };
    spec.page_index.write_all(&record.encode()).unwrap();
    let captured = Captured {
        image_len: 0,
        pages: 1,
        zero_pages: 1,
    };
    let cut = Cut {
        template: "base".parse().unwrap(),
        resources: Resources {
            vcpus: 1,
            memory: MEMORY,
            disk: 0,
        },
        parent: None,
        memory: Chain::default(),
        disks: Vec::new(),
        working_set: Vec::new(),
    };
    assert!(matches!(
        staging.commit(&rig.store, &captured, cut),
        Err(CommitError::Invalid(_))
    ));
    assert_eq!(
        (
            rig.count(),
            fs::read_dir(rig.store.staging_dir()).unwrap().count()
        ),
        (0, 0)
    );
}
