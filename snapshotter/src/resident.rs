//! Memory of snapshots in RAM, shared by all machines made from it.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::{fd::OwnedFd, unix::fs::FileExt},
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use pool_api::SnapshotId;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use vmm_api::PAGE_SIZE;

use crate::{LayerError, Stack};

/// Pages copied in one batch.
const RUN: usize = 64;

/// Failure to load memory into RAM.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ComposeError {
    /// A layer is not usable.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The host has too little memory.
    #[error("failed to hold guest memory in a memfd")]
    Memory(#[source] io::Error),
}

/// The memory of one snapshot, while a descriptor of it exists. The lock is held during its composition.
type ResidentMemory = Arc<Mutex<Weak<OwnedFd>>>;

/// The memories in RAM. Each stays while a descriptor of it exists.
#[derive(Debug, Default)]
pub(crate) struct Residents {
    memories: Mutex<HashMap<SnapshotId, ResidentMemory>>,
}

impl Residents {
    /// Returns the memory of a snapshot if it is in RAM.
    pub(crate) fn get(&self, id: &SnapshotId) -> Option<Arc<OwnedFd>> {
        let resident = self.memories.lock().get(id).map(Arc::clone)?;
        resident.lock().upgrade()
    }

    /// Returns the memory of a snapshot, composed from its layers if necessary. Concurrent callers share one composition.
    pub(crate) fn get_or_compose(
        &self,
        id: &SnapshotId,
        pages: u32,
        stack: impl FnOnce() -> Result<Stack, LayerError>,
    ) -> Result<Arc<OwnedFd>, ComposeError> {
        let resident = {
            let mut memories = self.memories.lock();
            // An entry without a composer and without memory is stale.
            memories.retain(|_, resident| {
                Arc::strong_count(resident) > 1 || resident.lock().strong_count() > 0
            });
            Arc::clone(memories.entry(id.clone()).or_default())
        };
        let mut resident = resident.lock();
        if let Some(memory) = resident.upgrade() {
            return Ok(memory);
        }
        let memory = Arc::new(compose(pages, &stack()?)?);
        *resident = Arc::downgrade(&memory);
        Ok(memory)
    }
}

/// Copies a stack's pages into a sealed memfd. Missing and zero pages stay holes.
fn compose(pages: u32, stack: &Stack) -> Result<OwnedFd, ComposeError> {
    let memory = |source: io::Error| ComposeError::Memory(source);
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = memfd_create("catnap-memory", flags).map_err(|errno| memory(errno.into()))?;
    let file = File::from(fd);
    file.set_len(u64::from(pages) * PAGE_SIZE as u64)
        .map_err(memory)?;
    let mut run = Vec::with_capacity(RUN * PAGE_SIZE);
    let mut first = 0;
    for page in 0..pages {
        let layer = stack.find(page);
        if run.len() == RUN * PAGE_SIZE || (layer.is_none() && !run.is_empty()) {
            write_run(&file, first, &run).map_err(memory)?;
            run.clear();
        }
        if let Some(layer) = layer {
            if run.is_empty() {
                first = page;
            }
            let mut bytes = [0; PAGE_SIZE];
            layer.read(page, &mut bytes)?;
            run.extend_from_slice(&bytes);
        }
    }
    write_run(&file, first, &run).map_err(memory)?;
    let fd = OwnedFd::from(file);
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    fcntl_add_seals(&fd, seals).map_err(|errno| memory(errno.into()))?;
    Ok(fd)
}

fn write_run(file: &File, first: u32, run: &[u8]) -> io::Result<()> {
    file.write_all_at(run, u64::from(first) * PAGE_SIZE as u64)
}
