//! Taking over the pages of older layers.

use std::{fs::File, io, os::unix::fs::FileExt};

use vmm_api::PAGE_SIZE;

use super::{CommitError, is_full};
use crate::{Layer, Layout, Tables};

/// Puts every page of `older` (oldest first) that `tables` lacks into `file`, the newest one's where several have it.
pub(super) fn fold(
    file: &File,
    layout: &Layout,
    tables: &mut Tables,
    older: &[Layer],
) -> Result<(), CommitError> {
    let mut bytes = [0; PAGE_SIZE];
    for layer in older.iter().rev() {
        for page in layer.pages() {
            if tables.has(page) {
                continue;
            }
            if layer.is_zero(page) {
                tables.add_zero(page);
                continue;
            }
            layer.read(page, &mut bytes).map_err(CommitError::Fold)?;
            file.write_all_at(&bytes, layout.page_offset(page))
                .map_err(|source| {
                    if is_full(&source) {
                        CommitError::NoSpace
                    } else {
                        CommitError::Io {
                            what: "layer",
                            source,
                        }
                    }
                })?;
            tables.add(page, layer.page_digest(page));
        }
    }
    Ok(())
}

/// Copies the pages that `tables` has from one file to another of the same layout.
pub(super) fn copy(from: &File, to: &File, layout: &Layout, tables: &Tables) -> io::Result<()> {
    let mut bytes = [0; PAGE_SIZE];
    for page in tables.pages() {
        from.read_exact_at(&mut bytes, layout.page_offset(page))?;
        to.write_all_at(&bytes, layout.page_offset(page))?;
    }
    Ok(())
}
