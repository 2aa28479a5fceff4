//! The host, as others ask it.

mod create;
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
};

use async_trait::async_trait;
use pool_api::{
    CreateError, EnterError, Epoch, Event, ForkError, ForkSpec, GuestMetrics, IfPaused, KillError,
    Lease, Node, PauseCause, PauseError, ReleaseError, ResumeError, RollbackError, SandboxId,
    SandboxInfo, SandboxSpec, SandboxState, SnapshotError, SnapshotId, SnapshotScope,
    TakenSnapshot, TemplateError, TemplateInfo, TemplateName,
};
use snapshotter::{Store, StoreError};
use tokio::{sync::broadcast, time::Instant};
use tracing::warn;

use crate::{
    Config,
    capacity::Capacity,
    cause::chain,
    driver::{Command, Handle},
    home::Home,
    host::{Host, Interrupted, blocking},
    kept::Kept,
    reattach::reattach,
    registry::Registry,
    run_dir::RunDirs,
    shelf::Shelf,
    template::Templates,
};

/// Events that a slow receiver may lag behind.
const EVENTS: usize = 1024;

/// Owns every machine on this host.
#[derive(Debug)]
pub struct Pool {
    host: Arc<Host>,
}

/// A pool that did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory is not usable.
    #[error("prepare data directory {}", path.display())]
    DataDir {
        /// Which part of it.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another pool uses it.
    #[error("data directory {} is used by another process: end it, or choose another directory", .0.display())]
    Locked(PathBuf),
    /// The snapshots are not usable.
    #[error("open snapshots")]
    Store(#[source] StoreError),
}

// === impl Pool ===

impl Pool {
    /// Takes over a data directory: sandboxes with a snapshot are paused, everything else a former pool left is removed.
    /// Must be called within a Tokio runtime.
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
        let kept = Kept::open(part("kept"), &store).map_err(data_dir(part("kept")))?;
        let shelf = Shelf::start(Arc::clone(&config.hypervisor), run_dirs, &config.shelf);
        let host = Arc::new(Host {
            capacity: Arc::new(Capacity::new(config.limits)),
            store,
            shelf,
            templates,
            kept,
            registry: Registry::default(),
            events: broadcast::Sender::new(EVENTS),
            closing: AtomicBool::new(false),
            config,
            _lock: lock,
        });
        reattach(&host, &part("sandboxes")).map_err(data_dir(part("sandboxes")))?;
        if let Err(error) = host.store.collect() {
            warn!(
                error = chain(&error),
                "cannot remove snapshots that nothing needs"
            );
        }
        Ok(Arc::new(Self { host }))
    }

    /// Ends in order: running sandboxes are paused (or lost, if so configured), and no machine is left.
    pub async fn shutdown(&self) {
        self.host.closing.store(true, Ordering::SeqCst);
        self.host.shelf.close();
        let ends = self
            .host
            .registry
            .all()
            .into_iter()
            .map(|handle| self.end(handle));
        futures::future::join_all(ends).await;
    }

    async fn end(&self, handle: Arc<Handle>) {
        let state = handle.info.borrow().state;
        if self.host.config.pause_on_shutdown && state != SandboxState::Paused {
            let paused = handle
                .ask(|reply| Command::Pause {
                    epoch: None,
                    keep: SnapshotScope::Full,
                    cause: PauseCause::Shutdown,
                    reply,
                })
                .await;
            if let Some(Err(error @ PauseError::Failed { .. })) = paused {
                warn!(
                    error = chain(&error),
                    "a sandbox is lost: it could not be paused for the shutdown"
                );
            }
        }
        // No answer means that the driver had ended.
        let _ended = handle.ask(|reply| Command::Shutdown { reply }).await;
    }

    /// Blanks that are kept ahead now.
    pub fn blanks(&self) -> usize {
        self.host.shelf.len()
    }

    fn get(&self, id: &SandboxId) -> Option<Arc<Handle>> {
        self.host.registry.get(id)
    }

    fn home(&self, id: &SandboxId) -> Home {
        Home::new(
            self.host
                .config
                .data_dir
                .join("sandboxes")
                .join(id.as_str()),
        )
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

    async fn enter(&self, id: &SandboxId, wake: IfPaused) -> Result<Box<dyn Lease>, EnterError> {
        let handle = self
            .get(id)
            .ok_or_else(|| EnterError::NotFound(id.clone()))?;
        if let Some(held) = handle.enter_at_once() {
            return Ok(Box::new(held));
        }
        let asked = Instant::now();
        let answer = handle
            .ask(|reply| Command::Enter { wake, asked, reply })
            .await;
        Ok(Box::new(
            answer.ok_or_else(|| EnterError::NotFound(id.clone()))??,
        ))
    }

    async fn pause(
        &self,
        id: &SandboxId,
        epoch: Epoch,
        scope: SnapshotScope,
    ) -> Result<TakenSnapshot, PauseError> {
        let handle = self
            .get(id)
            .ok_or_else(|| PauseError::NotFound(id.clone()))?;
        let paused = handle
            .ask(|reply| Command::Pause {
                epoch: Some(epoch),
                keep: scope,
                cause: PauseCause::Requested,
                reply,
            })
            .await;
        paused.unwrap_or_else(|| Err(PauseError::NotFound(id.clone())))
    }

    async fn resume(
        &self,
        id: &SandboxId,
        from: SnapshotScope,
    ) -> Result<SandboxInfo, ResumeError> {
        let not_found = || EnterError::NotFound(id.clone());
        let handle = self.get(id).ok_or_else(not_found)?;
        if handle.info.borrow().state == SandboxState::Running {
            return Err(ResumeError::AlreadyRunning(id.clone()));
        }
        let asked = Instant::now();
        let woken = handle
            .ask(|reply| Command::Resume { from, asked, reply })
            .await;
        drop(woken.ok_or_else(not_found)??);
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
        self.keep_snapshot(id, scope).await
    }

    async fn release_snapshot(&self, snapshot: &SnapshotId) -> Result<(), ReleaseError> {
        self.give_snapshot_up(snapshot).await
    }

    async fn retained_snapshots(&self) -> Vec<SnapshotId> {
        self.host.kept.all()
    }

    async fn metrics(&self, id: &SandboxId) -> Option<GuestMetrics> {
        let machine = self.get(id)?.machine()?;
        metrics::ask(&*machine, id).await
    }

    async fn kill(&self, id: &SandboxId) -> Result<(), KillError> {
        let not_found = || KillError::NotFound(id.clone());
        let handle = self.get(id).ok_or_else(not_found)?;
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
            .host
            .registry
            .all()
            .iter()
            .map(|handle| handle.info.borrow().clone())
            .collect();
        infos.retain(|info| !matches!(info.state, SandboxState::Stopped(_)));
        infos.sort_by(|a, b| a.id.cmp(&b.id));
        infos
    }

    async fn console(&self, id: &SandboxId, limit: usize) -> Option<Vec<u8>> {
        let home = self.get(id)?.home.clone();
        match blocking(move || home.console_tail(limit)).await {
            Ok(Ok(tail)) => Some(tail),
            Ok(Err(error)) => {
                warn!(%id, %error, "cannot read a console");
                None
            }
            Err(Interrupted) => None,
        }
    }

    async fn templates(&self) -> Vec<TemplateInfo> {
        self.host.templates.all()
    }

    async fn build_template(&self, name: &TemplateName) -> Result<TemplateInfo, TemplateError> {
        self.host.templates.build(&self.host, name).await
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.host.events.subscribe()
    }
}
