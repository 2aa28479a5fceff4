use std::{
    fs::OpenOptions,
    os::unix::fs::FileExt,
    path::Path,
    sync::{Arc, mpsc},
};

use vmm_api::{MemoryRegion, PAGE_SIZE, Pager, page_digest};

use super::{AttachError, Damage, StackPager, working_set};
use crate::{Layer, Layout, Stack, Tables, sys::uffd::testing::Missing};

const PAGES: u32 = 64;
const LEN: usize = PAGES as usize * PAGE_SIZE;

fn layer(path: &Path, pages: &[(u32, u8)], zeroes: &[u32]) -> Arc<Layer> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .unwrap();
    let layout = Layout::new(PAGES);
    let mut tables = Tables::new(PAGES);
    for (page, byte) in pages {
        let bytes = [*byte; PAGE_SIZE];
        file.write_all_at(&bytes, layout.page_offset(*page))
            .unwrap();
        tables.add(*page, page_digest(&bytes));
    }
    for page in zeroes {
        tables.add_zero(*page);
    }
    tables.seal(&file, &layout).unwrap();
    Arc::new(Layer::open(path, PAGES, None).unwrap())
}

struct Rig {
    dir: tempfile::TempDir,
    stack: Stack,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let old: Vec<(u32, u8)> = (0..32).map(|page| (page, 10)).collect();
        let old = layer(&dir.path().join("old"), &old, &[]);
        let new = layer(&dir.path().join("new"), &[(3, 20), (40, 21)], &[4]);
        Self {
            dir,
            stack: Stack::new(vec![old, new]),
        }
    }

    fn pager(&self) -> (StackPager, mpsc::Receiver<Damage>) {
        let (tx, rx) = mpsc::channel();
        let path = self.dir.path().join("working-set");
        let recorded = working_set::load(&path, PAGES);
        let report = move |damage| tx.send(damage).unwrap();
        (
            StackPager::new(self.stack.clone(), PAGES, recorded, path, report),
            rx,
        )
    }
}

fn attach(
    pager: &StackPager,
) -> (
    Missing,
    Result<(), Box<dyn std::error::Error + Send + Sync>>,
) {
    let (memory, uffd) = Missing::map(LEN);
    let region = MemoryRegion {
        base: memory.address(),
        len: LEN as u64,
    };
    let result = pager.attach(uffd, region);
    (memory, result)
}

#[test]
fn newest_layer_provides_each_page() {
    let rig = Rig::new();
    let (pager, _damage) = rig.pager();
    let (memory, attached) = attach(&pager);
    attached.unwrap();
    for (page, byte) in [(0, 10), (3, 20), (4, 0), (31, 10), (40, 21), (63, 0)] {
        assert!(
            memory.page(page).iter().all(|found| *found == byte),
            "page {page}"
        );
    }
    memory.write(5 * PAGE_SIZE + 7, 99);
    assert_eq!(
        (
            memory.read(5 * PAGE_SIZE + 7),
            memory.read(5 * PAGE_SIZE + 8)
        ),
        (99, 10)
    );
    assert_eq!(pager.accessed_pages(), [0, 3, 4, 31, 40, 63, 5]);
}

#[test]
fn second_restore_demands_no_recorded_page() {
    let rig = Rig::new();
    let (first, _damage) = rig.pager();
    let (memory, attached) = attach(&first);
    attached.unwrap();
    for page in [40, 3, 4, 5] {
        memory.read(page * PAGE_SIZE);
    }
    first.save_working_set();
    drop(memory);
    first.stop();

    let (second, _damage) = rig.pager();
    let (memory, attached) = attach(&second);
    attached.unwrap();
    for (page, byte) in [(40, 21), (3, 20), (4, 0), (5, 10)] {
        assert!(
            memory.page(page).iter().all(|found| *found == byte),
            "page {page}"
        );
    }
    assert_eq!(second.demanded(), 0);
    memory.read(6 * PAGE_SIZE);
    assert_eq!(second.demanded(), 1);
    assert_eq!(second.accessed_pages(), [40, 3, 4, 5, 6]);
}

#[test]
fn fault_on_damaged_page_is_reported_not_answered() {
    let rig = Rig::new();
    let path = rig.dir.path().join("old");
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[11], Layout::new(PAGES).page_offset(7) + 100)
        .unwrap();
    let (pager, damage) = rig.pager();
    let (memory, attached) = attach(&pager);
    attached.unwrap();
    let memory = Arc::new(memory);
    let (answered, answer) = mpsc::channel();
    let reader = std::thread::spawn({
        let memory = Arc::clone(&memory);
        move || answered.send(memory.read(7 * PAGE_SIZE)).unwrap()
    });
    let Damage::Layer { page: 7, source } = damage.recv().unwrap() else {
        panic!("unexpected damage");
    };
    assert!(
        source.to_string().contains(path.to_str().unwrap()),
        "{source}"
    );
    // The pager still serves other pages, and page 7 has no reply.
    assert_eq!(memory.read(8 * PAGE_SIZE), 10);
    assert_eq!(answer.try_recv(), Err(mpsc::TryRecvError::Empty));
    // Without a monitor's duplicate, closing the last descriptor releases the reader.
    pager.stop();
    reader.join().unwrap();
}

#[test]
fn damaged_working_set_page_fails_the_attach() {
    let rig = Rig::new();
    working_set::save(&rig.dir.path().join("working-set"), &[7]).unwrap();
    let file = OpenOptions::new()
        .write(true)
        .open(rig.dir.path().join("old"))
        .unwrap();
    file.write_all_at(&[11], Layout::new(PAGES).page_offset(7))
        .unwrap();
    let (pager, _damage) = rig.pager();
    let error = attach(&pager).1.unwrap_err();
    assert!(
        matches!(
            error.downcast_ref(),
            Some(AttachError::Prefetch(Damage::Layer { page: 7, .. }))
        ),
        "{error:?}"
    );
}

#[test]
fn pager_attaches_once_to_the_right_size() {
    let rig = Rig::new();
    let (pager, _damage) = rig.pager();
    let (memory, uffd) = Missing::map(LEN);
    let wrong = MemoryRegion {
        base: memory.address(),
        len: LEN as u64 - 4096,
    };
    let error = pager.attach(uffd, wrong).unwrap_err();
    assert!(matches!(
        error.downcast_ref(),
        Some(AttachError::Size { .. })
    ));
    let (_memory, attached) = attach(&pager);
    attached.unwrap();
    let error = attach(&pager).1.unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(AttachError::Attached)));
}
