//! A store with a scripted machine.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    os::unix::fs::FileExt,
    sync::Arc,
};

use pool_api::{Resources, SnapshotId, SnapshotScope};
use tempfile::TempDir;
use vmm_api::{
    CaptureSpec, Captured, MachineFiles, MemorySource, PAGE_SIZE, PageRecord, page_digest,
};

use crate::{
    BaseImage, Bitmap, CaptureSource, Chain, CommitError, Committed, DiskSource, Layout,
    MemoryMode, OpenError, OpenSnapshot, Staging, Store,
};

pub(super) const PAGES: u32 = 512;
pub(super) const MEMORY: u64 = PAGES as u64 * 4096;
pub(super) const BLOCKS: u32 = 64;

/// A store and the machine.
pub(super) struct Rig {
    pub(super) dir: TempDir,
    pub(super) store: Store,
    base: BaseImage,
}

#[derive(Clone, Default)]
pub(super) struct Lineage {
    pub(super) parent: Option<SnapshotId>,
    pub(super) memory: Chain,
    pub(super) disk: Chain,
}

impl Lineage {
    pub(super) fn after(committed: &Committed) -> Self {
        let id = committed.pin.id();
        Self {
            parent: Some(id.clone()),
            memory: committed.manifest.memory.owned_by(id),
            disk: committed.manifest.disks[0].chain.owned_by(id),
        }
    }
}

impl Rig {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("base");
        fs::write(&path, vec![b'b'; 8192]).unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let base = store.import_base(&path, None).unwrap();
        Self { dir, store, base }
    }

    pub(super) fn top(&self, blocks: &[(u32, u8)]) -> File {
        let (file, _) = tempfile::NamedTempFile::new_in(self.dir.path())
            .unwrap()
            .keep()
            .unwrap();
        for (block, byte) in blocks {
            file.write_all_at(&[*byte; PAGE_SIZE], Layout::new(BLOCKS).page_offset(*block))
                .unwrap();
        }
        file
    }

    pub(super) fn snapshot(
        &self,
        from: &Lineage,
        pages: &[(u32, u8)],
        blocks: &[(u32, u8)],
    ) -> Result<Committed, CommitError> {
        let staging = self.store.stage(SnapshotScope::Full, MEMORY, 1)?;
        let mut spec = staging.spec()?;
        let captured = write_machine(spec.machine.as_mut().unwrap(), pages);
        self.commit(staging, spec, captured, from, blocks)
    }

    /// Takes a disk-only snapshot.
    pub(super) fn disk_only(
        &self,
        from: &Lineage,
        blocks: &[(u32, u8)],
    ) -> Result<Committed, CommitError> {
        let staging = self.store.stage(SnapshotScope::DiskOnly, MEMORY, 1)?;
        let spec = staging.spec()?;
        assert!(spec.machine.is_none());
        self.commit(staging, spec, Captured::default(), from, blocks)
    }

    fn commit(
        &self,
        staging: Staging,
        mut spec: CaptureSpec,
        captured: Captured,
        from: &Lineage,
        blocks: &[(u32, u8)],
    ) -> Result<Committed, CommitError> {
        let mut bitmap = Bitmap::new(BLOCKS);
        blocks.iter().for_each(|(block, _)| bitmap.set(*block));
        spec.disk_bitmaps[0].write_all(bitmap.as_bytes()).unwrap();
        let disk = DiskSource {
            size: u64::from(BLOCKS) * 4096,
            base: self.base.clone(),
            chain: from.disk.clone(),
            top: Arc::new(self.top(blocks)),
        };
        let cut = CaptureSource {
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

    pub(super) fn open(
        &self,
        id: &SnapshotId,
        mode: MemoryMode,
    ) -> Result<OpenSnapshot, OpenError> {
        self.store
            .open_snapshot(id, mode, |damage| panic!("{damage}"))
    }

    pub(super) fn count(&self) -> usize {
        fs::read_dir(self.store.snapshots_dir()).unwrap().count()
    }
}

pub(super) fn memory_of(opened: &OpenSnapshot) -> Vec<u8> {
    let MemorySource::Cow(memory) = &opened.machine.as_ref().unwrap().memory else {
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

pub(super) fn disk_of(opened: &OpenSnapshot) -> Vec<u8> {
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

pub(super) fn expected(len: u32, base: &[(u32, u8)], writes: &[&[(u32, u8)]]) -> Vec<u8> {
    let mut all: BTreeMap<u32, u8> = base.iter().copied().collect();
    all.extend(writes.iter().copied().flatten().copied());
    (0..len)
        .map(|at| all.get(&at).copied().unwrap_or(0))
        .collect()
}

fn write_machine(machine: &mut MachineFiles, pages: &[(u32, u8)]) -> Captured {
    machine.image.write_all(b"state").unwrap();
    let mut zero_pages = 0;
    for (page, byte) in pages {
        let bytes = [*byte; PAGE_SIZE];
        let record = PageRecord {
            number: *page,
            zero: *byte == 0,
            digest: page_digest(&bytes),
        };
        machine.page_index.write_all(&record.encode()).unwrap();
        if record.zero {
            zero_pages += 1;
        } else {
            machine
                .pages
                .write_all_at(&bytes, machine.pages_offset + u64::from(*page) * 4096)
                .unwrap();
        }
    }
    Captured {
        image_len: 5,
        pages: pages.len() as u64,
        zero_pages,
    }
}
