//! Blanks spawned ahead of demand, so that a start does not wait for a process and a VM.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use parking_lot::Mutex;
use pool_api::Resources;
use tokio::{sync::Notify, task::JoinHandle, time::sleep};
use tracing::warn;
use vmm_api::{Blank, BlankSpec, Hypervisor, SpawnError};

use crate::{
    BlankCount,
    run_dir::{RunDir, RunDirs},
};

/// The time before the pool tries to spawn a blank again.
const REFILL_RETRY: Duration = Duration::from_secs(1);

/// Virtual CPUs and bytes of memory.
type Size = (u8, u64);

/// A pool of blanks.
#[derive(Debug)]
pub(crate) struct BlankPool {
    hypervisor: Arc<dyn Hypervisor>,
    run_dirs: RunDirs,
    targets: Mutex<HashMap<Size, usize>>,
    blanks: Mutex<HashMap<Size, Vec<ReadyBlank>>>,
    taken: Notify,
    refill: Mutex<Option<JoinHandle<()>>>,
}

/// A blank and its run directory.
#[derive(Debug)]
pub(crate) struct ReadyBlank {
    pub(crate) blank: Box<dyn Blank>,
    pub(crate) run_dir: RunDir,
}

/// Failure to spawn a blank.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlankError {
    #[error("failed to create the monitor's run directory")]
    RunDir(#[source] io::Error),
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

impl BlankPool {
    /// Starts a pool that refills itself in the background until [`BlankPool::close`].
    pub(crate) fn start(
        hypervisor: Arc<dyn Hypervisor>,
        run_dirs: RunDirs,
        counts: &[BlankCount],
    ) -> Arc<Self> {
        let targets = counts
            .iter()
            .map(|target| ((target.vcpus, target.memory), target.count))
            .collect();
        let pool = Arc::new(Self {
            hypervisor,
            run_dirs,
            targets: Mutex::new(targets),
            blanks: Mutex::default(),
            taken: Notify::new(),
            refill: Mutex::default(),
        });
        let weak = Arc::downgrade(&pool);
        let refill = tokio::spawn(async move {
            while let Some(pool) = weak.upgrade() {
                pool.fill().await;
                pool.taken.notified().await;
            }
        });
        *pool.refill.lock() = Some(refill);
        pool
    }

    /// Takes a blank from the pool, or spawns one.
    pub(crate) async fn take(&self, resources: &Resources) -> Result<ReadyBlank, BlankError> {
        let size = (resources.vcpus, resources.memory);
        let ready = match self.pop(size) {
            Some(ready) => ready,
            None => self.spawn(size).await?,
        };
        self.taken.notify_one();
        Ok(ready)
    }

    /// Takes a blank whose monitor lives.
    fn pop(&self, size: Size) -> Option<ReadyBlank> {
        let mut blanks = self.blanks.lock();
        let ready = blanks.get_mut(&size)?;
        while let Some(blank) = ready.pop() {
            if blank.blank.is_alive() {
                return Some(blank);
            }
            warn!(pid = blank.blank.pid(), "monitor of a blank has ended");
        }
        None
    }

    /// Returns the number of blanks in the pool.
    pub(crate) fn len(&self) -> usize {
        self.blanks.lock().values().map(Vec::len).sum()
    }

    /// Ends every blank and stops refilling.
    pub(crate) fn close(&self) {
        self.targets.lock().clear();
        if let Some(refill) = self.refill.lock().take() {
            refill.abort();
        }
        self.blanks.lock().clear();
    }

    async fn fill(&self) {
        while let Some(size) = self.missing() {
            match self.spawn(size).await {
                Ok(ready) => self.blanks.lock().entry(size).or_default().push(ready),
                Err(error) => {
                    // A start tries as well, and its caller gets the cause.
                    warn!(error = %error_chain::chain(&error), "failed to refill blank pool");
                    sleep(REFILL_RETRY).await;
                }
            }
        }
    }

    /// Returns a size with fewer blanks than its target.
    fn missing(&self) -> Option<Size> {
        let blanks = self.blanks.lock();
        let len = |size| blanks.get(size).map_or(0, Vec::len);
        self.targets
            .lock()
            .iter()
            .find(|(size, target)| len(size) < **target)
            .map(|(size, _)| *size)
    }

    async fn spawn(&self, (vcpus, memory): Size) -> Result<ReadyBlank, BlankError> {
        let run_dir = self.run_dirs.create().map_err(BlankError::RunDir)?;
        let spec = BlankSpec {
            vcpus,
            memory,
            run_dir: run_dir.path().to_owned(),
        };
        let blank = self.hypervisor.blank(spec).await?;
        run_dir
            .write_pidfile(blank.pid())
            .map_err(BlankError::RunDir)?;
        Ok(ReadyBlank { blank, run_dir })
    }
}
