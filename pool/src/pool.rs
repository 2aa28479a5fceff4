//! The host as its callers see it.

mod broken;
mod create;
mod evictor;
mod fork;
mod lock;
mod metrics;
mod snapshots;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use pool_api::{
    Broken, CreateError, EnterError, Epoch, Event, ForkError, ForkSpec, GuestMetrics, IfPaused,
    KillError, Lease, Node, PauseCause, PauseError, ReleaseError, ResumeError, RetainedSnapshot,
    RollbackError, SandboxId, SandboxInfo, SandboxSpec, SandboxState, SnapshotError, SnapshotId,
    SnapshotScope, TakenSnapshot, TemplateError, TemplateInfo, TemplateName,
};
use snapshotter::{Store, StoreError};
use tokio::{
    sync::{Semaphore, broadcast},
    time::{Instant, timeout},
};
use tracing::warn;

use crate::{
    Config,
    blank_pool::BlankPool,
    blocking::{Interrupted, blocking},
    broken::BrokenObjects,
    capacity::Capacity,
    driver::{Command, Handle},
    eviction::Evictions,
    host::Host,
    recovery::recover_sandboxes,
    registry::Registry,
    retention::RetainedSnapshots,
    run_dir::RunDirs,
    sandbox_dir::SandboxDir,
    start_permits::StartPermits,
    template::Templates,
};

/// Events that a slow receiver may lag behind.
const EVENTS: usize = 1024;
/// The time for the processes of monitors to end at a shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Owns every machine on this host.
#[derive(Debug)]
pub struct Pool {
    host: Arc<Host>,
    registry: Registry<Handle>,
    templates: Templates,
    retained: Arc<RetainedSnapshots>,
}

/// Failure of [`Pool::start`].
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory is not usable.
    #[error("failed to prepare data directory {}", path.display())]
    DataDir {
        /// The part of it.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Another pool uses the data directory.
    #[error("data directory {} is used by another process: end it, or choose another directory", .0.display())]
    Locked(PathBuf),
    /// The snapshots are not usable.
    #[error("failed to open snapshots")]
    Store(#[source] StoreError),
}

// === impl Pool ===

impl Pool {
    /// Takes over a data directory, in this order: lock it, kill stale monitors, open snapshots, templates and retained
    /// snapshots, recover sandboxes that have a snapshot as paused ones, remove everything else. Must be called within a
    /// Tokio runtime.
    pub fn start(config: Config) -> Result<Arc<Self>, StartError> {
        let dir = config.data_dir.clone();
        let part = |name: &str| dir.join(name);
        let data_dir = |path: PathBuf| move |source| StartError::DataDir { path, source };
        std::fs::create_dir_all(&dir).map_err(data_dir(dir.clone()))?;
        let lock = lock::lock(&dir)?;
        let run_dirs = RunDirs::new(part("run"));
        run_dirs.reap().map_err(data_dir(part("run")))?;
        let store = Arc::new(Store::open(&dir).map_err(StartError::Store)?);
        let templates =
            Templates::open(part("templates"), &store).map_err(data_dir(part("templates")))?;
        let broken = BrokenObjects::default();
        let retained = RetainedSnapshots::open(part("kept"), &store, &broken)
            .map_err(data_dir(part("kept")))?;
        let blanks = BlankPool::start(Arc::clone(&config.hypervisor), run_dirs, &config.blanks);
        let registry = Registry::default();
        let (evictions, requests) = Evictions::new();
        tokio::spawn(evictor::run(registry.clone(), config.least_awake, requests));
        let host = Arc::new(Host {
            evictions,
            start_permits: StartPermits::new(config.concurrent_starts, config.slow_starts),
            capture_permits: Semaphore::new(config.concurrent_captures.max(1)),
            capacity: Arc::new(Capacity::new(config.limits, config.paused_release)),
            store,
            blanks,
            broken,
            events: broadcast::Sender::new(EVENTS),
            closing: AtomicBool::new(false),
            config,
            _lock: lock,
        });
        recover_sandboxes(&host, &registry, &part("sandboxes"))
            .map_err(data_dir(part("sandboxes")))?;
        if !host.broken.all().is_empty() {
            host.store.protect_existing().map_err(StartError::Store)?;
        }
        if let Err(error) = host.store.collect_all() {
            warn!(error = %error_chain::chain(&error), "failed to remove unreferenced snapshots");
        }
        Ok(Arc::new(Self {
            host,
            registry,
            templates,
            retained: Arc::new(retained),
        }))
    }

    /// Shuts down: running sandboxes are paused (or lost, if so configured), and no machine is left.
    pub async fn shutdown(&self) {
        self.host.closing.store(true, Ordering::SeqCst);
        self.host.blanks.close();
        let ends = self
            .registry
            .all()
            .into_iter()
            .map(|handle| self.shut_down_sandbox(handle));
        futures::future::join_all(ends).await;
        let drained = self.host.config.hypervisor.drained();
        if timeout(DRAIN_TIMEOUT, drained).await.is_err() {
            warn!("monitors have not ended");
        }
    }

    async fn shut_down_sandbox(&self, handle: Arc<Handle>) {
        let state = handle.info.borrow().state;
        if self.host.config.pause_on_shutdown && state != SandboxState::Paused {
            let paused = handle
                .ask(|reply| Command::Pause {
                    epoch: None,
                    scope: SnapshotScope::Full,
                    cause: PauseCause::Shutdown,
                    reply,
                })
                .await;
            if let Some(Err(error @ PauseError::Failed { .. })) = paused {
                let error = error_chain::chain(&error);
                warn!(sandbox.id = %handle.spec.id, %error, "sandbox is lost: failed to pause it for the shutdown");
            }
        }
        // No reply means that the driver had ended.
        let _ended = handle.ask(|reply| Command::Shutdown { reply }).await;
    }

    /// Returns the number of blanks in the pool.
    pub fn blanks(&self) -> usize {
        self.host.blanks.len()
    }

    fn get(&self, id: &SandboxId) -> Option<Arc<Handle>> {
        self.registry.get(id)
    }

    fn sandbox_dir(&self, id: &SandboxId) -> SandboxDir {
        let sandboxes = self.host.config.data_dir.join("sandboxes");
        SandboxDir::new(sandboxes.join(id.as_str()))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Pins of templates and retained snapshots drop next; their snapshots stay.
        self.host.store.close();
    }
}

#[async_trait]
impl Node for Pool {
    async fn create(&self, spec: SandboxSpec) -> Result<SandboxInfo, CreateError> {
        if self.get(&spec.id).is_some() {
            return Err(CreateError::Exists(spec.id));
        }
        let source = self.source(&spec).await?;
        self.create_from(spec, source).await
    }

    fn try_enter(&self, id: &SandboxId) -> Option<Box<dyn Lease>> {
        let lease = self.get(id)?.try_enter()?;
        Some(Box::new(lease))
    }

    async fn enter(
        &self,
        id: &SandboxId,
        if_paused: IfPaused,
    ) -> Result<Box<dyn Lease>, EnterError> {
        let not_found = || EnterError::NotFound(id.clone());
        let handle = self.find(id).await?;
        if let Some(lease) = handle.try_enter() {
            return Ok(Box::new(lease));
        }
        let asked = Instant::now();
        let entered = handle
            .ask(|reply| Command::Enter {
                if_paused,
                asked,
                reply,
            })
            .await;
        Ok(Box::new(entered.ok_or_else(not_found)??))
    }

    async fn pause(
        &self,
        id: &SandboxId,
        epoch: Epoch,
        scope: SnapshotScope,
    ) -> Result<TakenSnapshot, PauseError> {
        let not_found = || PauseError::NotFound(id.clone());
        let handle = self.get(id).ok_or_else(not_found)?;
        let paused = handle
            .ask(|reply| Command::Pause {
                epoch: Some(epoch),
                scope,
                cause: PauseCause::Requested,
                reply,
            })
            .await;
        paused.ok_or_else(not_found)?
    }

    async fn resume(
        &self,
        id: &SandboxId,
        scope: SnapshotScope,
    ) -> Result<SandboxInfo, ResumeError> {
        let not_found = || EnterError::NotFound(id.clone());
        let handle = self.find(id).await?;
        let asked = Instant::now();
        let resumed = handle
            .ask(|reply| Command::Resume {
                scope,
                asked,
                reply,
            })
            .await;
        drop(resumed.ok_or_else(not_found)??);
        Ok(handle.info.borrow().clone())
    }

    async fn rollback(
        &self,
        id: &SandboxId,
        snapshot: &SnapshotId,
    ) -> Result<SandboxInfo, RollbackError> {
        self.roll_back(id, snapshot).await
    }

    async fn fork(
        &self,
        origin: &SandboxId,
        children: Vec<ForkSpec>,
    ) -> Result<Vec<Result<SandboxInfo, CreateError>>, ForkError> {
        self.fork_into(origin, children).await
    }

    async fn snapshot(
        &self,
        id: &SandboxId,
        scope: SnapshotScope,
    ) -> Result<TakenSnapshot, SnapshotError> {
        self.retain_snapshot(id, scope).await
    }

    async fn release_snapshot(&self, snapshot: &SnapshotId) -> Result<(), ReleaseError> {
        self.release(snapshot).await
    }

    async fn retained_snapshots(&self) -> Vec<SnapshotId> {
        self.retained.ids()
    }

    async fn retained_snapshot(&self, snapshot: &SnapshotId) -> Option<RetainedSnapshot> {
        let sandbox = self.retained.sandbox_of(snapshot)?;
        let (store, id) = (Arc::clone(&self.host.store), snapshot.clone());
        let manifest = blocking(move || store.manifest(&id)).await.ok()?.ok()?;
        Some(RetainedSnapshot {
            sandbox,
            scope: manifest.scope(),
            resources: manifest.resources,
        })
    }

    async fn metrics(&self, id: &SandboxId) -> Option<GuestMetrics> {
        let machine = self.get(id)?.machine()?;
        metrics::query(&*machine, id).await
    }

    async fn kill(&self, id: &SandboxId) -> Result<(), KillError> {
        let not_found = || KillError::NotFound(id.clone());
        let Ok(handle) = self.find(id).await else {
            return self.remove_broken(id).await.ok_or_else(not_found);
        };
        handle
            .ask(|reply| Command::Kill { reply })
            .await
            .ok_or_else(not_found)
    }

    async fn info(&self, id: &SandboxId) -> Option<SandboxInfo> {
        let info = self.get(id)?.info.borrow().clone();
        (!matches!(info.state, SandboxState::Stopped(_))).then_some(info)
    }

    async fn list(&self) -> Vec<SandboxInfo> {
        let mut infos: Vec<SandboxInfo> = self
            .registry
            .all()
            .iter()
            .map(|handle| handle.info.borrow().clone())
            .collect();
        infos.retain(|info| !matches!(info.state, SandboxState::Stopped(_)));
        infos.sort_by(|a, b| a.id.cmp(&b.id));
        infos
    }

    async fn broken(&self) -> Vec<Broken> {
        self.retry_broken().await
    }

    async fn spec(&self, id: &SandboxId) -> Option<SandboxSpec> {
        let handle = self.get(id)?;
        let state = handle.info.borrow().state;
        (!matches!(state, SandboxState::Stopped(_))).then(|| (*handle.spec).clone())
    }

    async fn console(&self, id: &SandboxId, limit: usize) -> Option<Vec<u8>> {
        let dir = self.get(id)?.dir.clone();
        match blocking(move || dir.console_tail(limit)).await {
            Ok(Ok(tail)) => Some(tail),
            Ok(Err(error)) => {
                let error = error_chain::chain(&error);
                warn!(sandbox.id = %id, %error, "failed to read console");
                None
            }
            Err(Interrupted) => None,
        }
    }

    async fn templates(&self) -> Vec<TemplateInfo> {
        self.templates.all()
    }

    async fn build_template(&self, name: &TemplateName) -> Result<TemplateInfo, TemplateError> {
        self.templates.build(&self.host, name).await
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.host.events.subscribe()
    }
}
