//! Blanks kept ahead of demand, so that a wake does not wait for a process and a VM.

use std::{collections::HashMap, io, sync::Arc};

use parking_lot::Mutex;
use pool_api::Resources;
use tokio::{sync::Notify, task::JoinHandle};
use tracing::warn;
use vmm_api::{Blank, BlankSpec, Hypervisor, SpawnError};

use crate::{
    ShelfSize,
    cause::chain,
    run_dir::{RunDir, RunDirs},
};

/// What a blank must be: virtual CPUs and bytes of memory.
type Size = (u8, u64);

/// The blanks.
#[derive(Debug)]
pub(crate) struct Shelf {
    hypervisor: Arc<dyn Hypervisor>,
    run_dirs: RunDirs,
    wanted: Mutex<HashMap<Size, usize>>,
    blanks: Mutex<HashMap<Size, Vec<Ready>>>,
    taken: Notify,
    refill: Mutex<Option<JoinHandle<()>>>,
}

/// A blank and its directory.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) blank: Box<dyn Blank>,
    pub(crate) run_dir: RunDir,
}

/// A blank that was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlankError {
    #[error("make directory for a monitor")]
    RunDir(#[source] io::Error),
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

impl Shelf {
    /// A shelf that refills itself in the background until [`Shelf::close`].
    pub(crate) fn start(
        hypervisor: Arc<dyn Hypervisor>,
        run_dirs: RunDirs,
        sizes: &[ShelfSize],
    ) -> Arc<Self> {
        let wanted = sizes
            .iter()
            .map(|size| ((size.vcpus, size.memory), size.count))
            .collect();
        let shelf = Arc::new(Self {
            hypervisor,
            run_dirs,
            wanted: Mutex::new(wanted),
            blanks: Mutex::default(),
            taken: Notify::new(),
            refill: Mutex::default(),
        });
        let weak = Arc::downgrade(&shelf);
        let refill = tokio::spawn(async move {
            while let Some(shelf) = weak.upgrade() {
                shelf.fill().await;
                shelf.taken.notified().await;
            }
        });
        *shelf.refill.lock() = Some(refill);
        shelf
    }

    /// A blank from the shelf, or a new one.
    pub(crate) async fn claim(&self, resources: &Resources) -> Result<Ready, BlankError> {
        let size = (resources.vcpus, resources.memory);
        let ready = self.blanks.lock().get_mut(&size).and_then(Vec::pop);
        let ready = match ready {
            Some(ready) => ready,
            None => self.make(size).await?,
        };
        self.taken.notify_one();
        Ok(ready)
    }

    /// Blanks on the shelf.
    pub(crate) fn len(&self) -> usize {
        self.blanks.lock().values().map(Vec::len).sum()
    }

    /// Ends every blank and keeps no more.
    pub(crate) fn close(&self) {
        self.wanted.lock().clear();
        if let Some(refill) = self.refill.lock().take() {
            refill.abort();
        }
        self.blanks.lock().clear();
    }

    async fn fill(&self) {
        while let Some(size) = self.missing() {
            match self.make(size).await {
                Ok(ready) => self.blanks.lock().entry(size).or_default().push(ready),
                Err(error) => {
                    // The next claim tries again, and its caller is told why it failed.
                    warn!(error = chain(&error), "cannot keep a blank ahead");
                    return;
                }
            }
        }
    }

    fn missing(&self) -> Option<Size> {
        let blanks = self.blanks.lock();
        let here = |size| blanks.get(size).map_or(0, Vec::len);
        self.wanted
            .lock()
            .iter()
            .find(|(size, count)| here(size) < **count)
            .map(|(size, _)| *size)
    }

    async fn make(&self, (vcpus, memory): Size) -> Result<Ready, BlankError> {
        let run_dir = self.run_dirs.create().map_err(BlankError::RunDir)?;
        let spec = BlankSpec {
            vcpus,
            memory,
            run_dir: run_dir.path().to_owned(),
        };
        let blank = self.hypervisor.blank(spec).await?;
        run_dir.note(blank.pid()).map_err(BlankError::RunDir)?;
        Ok(Ready { blank, run_dir })
    }
}
