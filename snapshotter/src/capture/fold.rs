//! Folding older layers into a new one.

use std::{fs::File, io, os::unix::fs::FileExt};

use vmm_api::PAGE_SIZE;

use super::{CommitError, is_full};
use crate::{Chain, Layer, LayerRef, Layout, Store, Tables};

/// Number of a sandbox's own layers at which the next one folds them.
const MAX_OWN_LAYERS: usize = 8;
/// Chain length at which inherited layers are folded as well.
const MAX_LAYERS: usize = 32;

/// Returns the first layer of a chain that the next layer folds; the chain's length for none.
pub(super) fn fold_from(chain: &Chain) -> usize {
    if chain.layers.len() - chain.inherited >= MAX_OWN_LAYERS {
        chain.inherited
    } else if chain.layers.len() >= MAX_LAYERS {
        1
    } else {
        chain.layers.len()
    }
}

/// Opens layers of a chain.
pub(super) fn layers(
    store: &Store,
    refs: &[LayerRef],
    name: &str,
    pages: u32,
) -> Result<Vec<Layer>, CommitError> {
    let open = |layer: &LayerRef| {
        let owner = layer
            .owner
            .as_ref()
            .ok_or(CommitError::Invalid("a layer without an owner"))?;
        Layer::open(&store.path(owner).join(name), pages, Some(layer.digest))
            .map_err(CommitError::Fold)
    };
    refs.iter().map(open).collect()
}

/// Copies every page of `older` (oldest first) that `tables` lacks into `file`, from the newest layer that has it.
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

/// Copies the pages of `tables` between files of the same layout.
pub(super) fn copy(from: &File, to: &File, layout: &Layout, tables: &Tables) -> io::Result<()> {
    let mut bytes = [0; PAGE_SIZE];
    for page in tables.pages() {
        from.read_exact_at(&mut bytes, layout.page_offset(page))?;
        to.write_all_at(&bytes, layout.page_offset(page))?;
    }
    Ok(())
}
