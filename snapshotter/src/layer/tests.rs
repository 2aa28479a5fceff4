use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
};

use proptest::prelude::*;
use vmm_api::{PAGE_SIZE, page_digest};

use super::{Bitmap, Header, Layer, LayerError, Layout, Tables};
use crate::Digest;

fn write(path: &Path, pages: u32, with: &[(u32, u8)]) -> Digest {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .unwrap();
    let layout = Layout::new(pages);
    let mut tables = Tables::new(pages);
    for (page, byte) in with {
        let bytes = [*byte; PAGE_SIZE];
        if *byte == 0 {
            tables.add_zero(*page);
        } else {
            file.write_all_at(&bytes, layout.page_offset(*page))
                .unwrap();
            tables.add(*page, page_digest(&bytes));
        }
    }
    tables.seal(&file, &layout).unwrap()
}

#[test]
fn sealed_layer_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("layer");
    let digest = write(&path, 1000, &[(0, 1), (513, 2), (7, 0), (999, 3)]);
    let layer = Layer::open(&path, 1000, Some(digest)).unwrap();
    assert_eq!(layer.pages().collect::<Vec<_>>(), [0, 7, 513, 999]);
    let mut bytes = [9; PAGE_SIZE];
    for (page, byte) in [(0, 1), (7, 0), (513, 2), (999, 3)] {
        layer.read(page, &mut bytes).unwrap();
        assert_eq!(bytes, [byte; PAGE_SIZE]);
    }
    layer.verify().unwrap();
}

#[test]
fn zero_pages_are_holes() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("layer");
    let zeroes: Vec<(u32, u8)> = (0..10_000).map(|page| (page, 0)).collect();
    write(&path, 10_000, &zeroes);
    let blocks = fs::metadata(&path).unwrap().blocks();
    assert!(blocks * 512 < 64 << 10, "{blocks} blocks");
}

#[test]
fn sealing_is_idempotent() {
    let dir = tempfile::tempdir().unwrap();
    let (once, twice) = (dir.path().join("once"), dir.path().join("twice"));
    write(&once, 100, &[(1, 1)]);
    write(&twice, 100, &[(1, 1), (2, 2)]);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&twice)
        .unwrap();
    let mut tables = Tables::new(100);
    tables.add(1, page_digest(&[1; PAGE_SIZE]));
    tables.seal(&file, &Layout::new(100)).unwrap();
    let (a, b) = (
        Layer::open(&once, 100, None).unwrap(),
        Layer::open(&twice, 100, None).unwrap(),
    );
    assert_eq!(a.digest(), b.digest());
}

#[test]
fn wrong_layer_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("layer");
    let digest = write(&path, 100, &[(1, 1)]);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let len = Layout::new(100).len();
    let opened = |pages, digest| Layer::open(&path, pages, digest).unwrap_err();

    assert!(matches!(opened(101, None), LayerError::Damaged { .. }));
    assert!(matches!(
        opened(100, Some(Digest::of(b""))),
        LayerError::Damaged { .. }
    ));
    for short in [0, 4095, len - 1] {
        file.set_len(short).unwrap();
        let error = opened(100, None);
        assert!(matches!(error, LayerError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()));
    }
    write(&path, 100, &[(1, 1)]);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[2], 8).unwrap();
    assert!(matches!(
        opened(100, None),
        LayerError::Version { version: 2, .. }
    ));
    write(&path, 100, &[(1, 1)]);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[2], Layout::new(100).page_offset(1))
        .unwrap();
    let layer = Layer::open(&path, 100, Some(digest)).unwrap();
    assert!(matches!(
        layer.read(1, &mut [0; PAGE_SIZE]),
        Err(LayerError::Page { page: 1, .. })
    ));
    assert!(matches!(
        layer.verify(),
        Err(LayerError::Page { page: 1, .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_header_is_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), PAGE_SIZE)) {
        let bytes: [u8; PAGE_SIZE] = bytes.try_into().unwrap();
        prop_assert!(Header::decode(&bytes).is_err());
    }

    #[test]
    fn random_layer_files_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..20_000), pages in 0u32..4) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("layer");
        fs::write(&path, bytes).unwrap();
        prop_assert!(Layer::open(&path, pages, None).is_err());
    }

    /// A flipped bit is detected, or is in unused bytes.
    #[test]
    fn flipped_bit_never_changes_a_page(at in 0u64..1 << 20, bit in 0u8..8) {
        const WITH: [(u32, u8); 3] = [(0, 1), (2, 0), (9, 7)];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("layer");
        let digest = write(&path, 10, &WITH);
        let mut bytes = fs::read(&path).unwrap();
        // Every other case is in the tables.
        let span = if at % 2 == 0 { 4 * 4096 } else { bytes.len() };
        let at = usize::try_from(at / 2).unwrap() % span;
        bytes[at] ^= 1 << bit;
        fs::write(&path, &bytes).unwrap();
        if let Ok(layer) = Layer::open(&path, 10, Some(digest)) {
            prop_assert_eq!(layer.pages().collect::<Vec<_>>(), vec![0, 2, 9]);
            for (page, byte) in WITH {
                let mut bytes = [0; PAGE_SIZE];
                if layer.read(page, &mut bytes).is_ok() {
                    prop_assert_eq!(bytes, [byte; PAGE_SIZE]);
                }
            }
        }
    }

    #[test]
    fn bitmap_equals_the_set_of_its_bits(bits in 0u32..500, set in proptest::collection::btree_set(0u32..600, 0..100)) {
        let mut bitmap = Bitmap::new(bits);
        set.iter().for_each(|bit| bitmap.set(*bit));
        let expected: Vec<u32> = set.into_iter().filter(|bit| *bit < bits).collect();
        prop_assert_eq!(bitmap.ones().collect::<Vec<_>>(), expected.clone());
        prop_assert!(expected.iter().all(|bit| bitmap.get(*bit)));
        prop_assert_eq!(bitmap.count() as usize, expected.len());
        prop_assert!(bitmap.is_clean());
    }
}
