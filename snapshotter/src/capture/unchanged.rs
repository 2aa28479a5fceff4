//! Dropping unchanged pages of a capture.
//!
//! A machine reports pages that may have changed: pages that were installed as changed, and pages that the guest rewrote
//! with the same content. A page with its old digest is unchanged; a guest that forges a digest gets its own old page.

use std::{fs::File, io, sync::Arc};

use rustix::fs::{FallocateFlags, fallocate};
use vmm_api::PAGE_SIZE;

use crate::{Layer, Layout, Stack, Tables};

/// Removes pages from `tables` and `file` that are the same in `older` (oldest first).
pub(super) fn drop_unchanged(
    file: &File,
    layout: &Layout,
    tables: &mut Tables,
    older: Vec<Layer>,
) -> io::Result<()> {
    let stack = Stack::new(older.into_iter().map(Arc::new).collect());
    let alike = |page: u32| {
        let before = stack.find(page).map(|layer| layer.page_digest(page));
        before == tables.digest(page)
    };
    let pages: Vec<u32> = tables.pages().filter(|page| alike(*page)).collect();
    for page in pages {
        if tables.digest(page).is_some() {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(file, flags, layout.page_offset(page), PAGE_SIZE as u64)?;
        }
        tables.remove(page);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use vmm_api::page_digest;

    use super::*;

    #[test]
    fn unchanged_pages_are_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(8);
        let path = dir.path().join("memory");
        let file = File::create_new(&path).unwrap();
        file.set_len(layout.len()).unwrap();
        let (same, other) = ([7; PAGE_SIZE], [8; PAGE_SIZE]);
        let mut older = Tables::new(8);
        for page in [1, 2] {
            file.write_all_at(&same, layout.page_offset(page)).unwrap();
            older.add(page, page_digest(&same));
        }
        older.add_zero(3);
        let file = File::options().read(true).write(true).open(&path).unwrap();
        older.seal(&file, &layout).unwrap();
        let older = Layer::open(&path, 8, None).unwrap();

        let mut tables = Tables::new(8);
        tables.add(1, page_digest(&same));
        tables.add(2, page_digest(&other));
        tables.add_zero(3);
        tables.add_zero(4);
        tables.add(5, page_digest(&other));
        let pages = tempfile::tempfile().unwrap();
        drop_unchanged(&pages, &layout, &mut tables, vec![older]).unwrap();
        assert_eq!(tables.pages().collect::<Vec<_>>(), [2, 5]);
    }

    #[test]
    fn page_that_became_zero_stays() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(8);
        let path = dir.path().join("memory");
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        file.set_len(layout.len()).unwrap();
        let mut older = Tables::new(8);
        older.add(1, page_digest(&[7; PAGE_SIZE]));
        older.seal(&file, &layout).unwrap();
        let older = Layer::open(&path, 8, None).unwrap();
        let mut tables = Tables::new(8);
        tables.add_zero(1);
        drop_unchanged(
            &tempfile::tempfile().unwrap(),
            &layout,
            &mut tables,
            vec![older],
        )
        .unwrap();
        assert_eq!(tables.pages().collect::<Vec<_>>(), [1]);
    }
}
