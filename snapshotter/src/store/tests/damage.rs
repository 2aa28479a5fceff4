//! Damaged files and contradictory captures.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::FileExt,
    path::Path,
};

use pool_api::{Resources, SnapshotScope};
use vmm_api::{Captured, PageRecord};

use super::rig::{BLOCKS, Lineage, MEMORY, PAGES, Rig};
use crate::{CaptureSource, Chain, CommitError, Layout, MemoryMode};

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
fn damaged_file_is_named() {
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
        rig.open(snapshot.pin.id(), MemoryMode::Cow).unwrap();
        damage(&path, at);
        let error = rig.open(snapshot.pin.id(), MemoryMode::Cow).unwrap_err();
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
        damage(&path, at);
        rig.open(snapshot.pin.id(), MemoryMode::Cow).unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(3)
            .unwrap();
        let error = rig.open(snapshot.pin.id(), MemoryMode::Cow).unwrap_err();
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
    }
}

#[test]
fn contradictory_capture_is_refused() {
    let rig = Rig::new();
    let staging = rig.store.stage(SnapshotScope::Full, MEMORY, 0).unwrap();
    let mut spec = staging.spec().unwrap();
    let record = PageRecord {
        number: PAGES,
        zero: true,
        digest: 0,
    };
    let files = spec.machine.as_mut().unwrap();
    files.page_index.write_all(&record.encode()).unwrap();
    let captured = Captured {
        image_len: 0,
        pages: 1,
        zero_pages: 1,
    };
    let cut = CaptureSource {
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
