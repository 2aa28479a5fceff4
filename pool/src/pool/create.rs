//! Creating a sandbox from a template or a snapshot.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use pool_api::{
    Cause, CreateError, EnterError, FailedPart, Origin, Resources, SandboxId, SandboxInfo,
    SandboxSpec, SnapshotId, SnapshotScope, TemplateName,
};
use snapshotter::{MemoryMode, OpenError, Pin};
use tracing::warn;

use super::Pool;
use crate::{
    blocking::{Interrupted, blocking},
    disk_space,
    driver::{Handle, InitialState},
    lifecycle::WakeSource,
    sandbox_dir::SandboxDir,
};

/// The snapshot that a sandbox forks from, pinned.
pub(super) struct ForkSource {
    pub(super) snapshot: WakeSource<Pin>,
    pub(super) resources: Resources,
}

impl Pool {
    pub(super) async fn source(&self, spec: &SandboxSpec) -> Result<ForkSource, CreateError> {
        match &spec.origin {
            Origin::Template(name) => {
                let (snapshot, resources) = self
                    .templates
                    .get(name)
                    .ok_or_else(|| CreateError::NoTemplate(name.as_str().to_owned()))?;
                self.keep_resident(name).await;
                let scope = SnapshotScope::Full;
                Ok(ForkSource {
                    snapshot: WakeSource { snapshot, scope },
                    resources,
                })
            }
            Origin::Snapshot(id) => self.snapshot_source(&spec.id, id).await,
        }
    }

    /// Pins a snapshot to fork from.
    async fn snapshot_source(
        &self,
        sandbox: &SandboxId,
        id: &SnapshotId,
    ) -> Result<ForkSource, CreateError> {
        let failed = |part, source: Cause| CreateError::Failed {
            id: sandbox.clone(),
            part,
            source,
        };
        let (store, snapshot) = (Arc::clone(&self.host.store), id.clone());
        let source = blocking(move || {
            let pin = store.pin(&snapshot);
            let exists = store.contains(&snapshot).map_err(OpenError::from)?;
            let manifest = exists.then(|| store.manifest(&snapshot)).transpose()?;
            Ok::<_, OpenError>(manifest.map(|manifest| ForkSource {
                snapshot: WakeSource {
                    snapshot: pin,
                    scope: manifest.scope(),
                },
                resources: manifest.resources,
            }))
        });
        let source = source
            .await
            .map_err(|error| failed(FailedPart::Host, error.into()))?;
        match source {
            Ok(Some(source)) => Ok(source),
            Ok(None) => Err(CreateError::NoTemplate(id.as_str().to_owned())),
            Err(error) if error.is_damage() => Err(failed(FailedPart::Snapshot, error.into())),
            Err(error) => Err(failed(FailedPart::Host, error.into())),
        }
    }

    /// Loads a template's memory into RAM for its first fork. If that fails, the fork reports the error.
    async fn keep_resident(&self, name: &TemplateName) {
        if self.host.config.memory == MemoryMode::Paged {
            return;
        }
        if let Err(error) = self.templates.keep_resident(name, &self.host.store).await {
            let error = error_chain::chain(&*error);
            warn!(template = %name, %error, "failed to load template memory into RAM");
        }
    }

    pub(super) async fn create_from(
        &self,
        spec: SandboxSpec,
        source: ForkSource,
    ) -> Result<SandboxInfo, CreateError> {
        let id = spec.id.clone();
        let failed = |source: Cause| CreateError::Failed {
            id: id.clone(),
            part: FailedPart::Host,
            source,
        };
        if self.host.closing.load(Ordering::SeqCst) {
            return Err(failed(Interrupted.into()));
        }
        let (reply, started) = tokio::sync::oneshot::channel();
        let initial = InitialState::Fork {
            origin: source.snapshot,
            resources: source.resources,
            reply,
        };
        let exists = || CreateError::Exists(id.clone());
        if self.host.broken.is_broken(&id) {
            return Err(exists());
        }
        let reserved = self.registry.reserve(&id).ok_or_else(exists)?;
        let dir = self.sandbox_dir(&id);
        self.prepare_dir(&id, dir.clone()).await?;
        // Again: a shutdown ends the sandboxes that are registered by now.
        if self.host.closing.load(Ordering::SeqCst) {
            return Err(failed(Interrupted.into()));
        }
        let handle = reserved.fill(|registration| {
            let host = Arc::clone(&self.host);
            Handle::spawn(host, Arc::new(spec), dir, registration, initial)
        });
        match started.await {
            Ok(Ok(lease)) => {
                drop(lease);
                Ok(handle.info.borrow().clone())
            }
            Ok(Err(EnterError::NoRoom { diagnostic })) => Err(CreateError::NoRoom { diagnostic }),
            Ok(Err(EnterError::Failed { id, part, source })) => {
                Err(CreateError::Failed { id, part, source })
            }
            Ok(Err(error)) => Err(failed(error.into())),
            Err(_) => Err(failed(Interrupted.into())),
        }
    }

    /// Creates a sandbox's directory, unless the disk is full.
    async fn prepare_dir(&self, id: &SandboxId, dir: SandboxDir) -> Result<(), CreateError> {
        let failed = |source: Cause| CreateError::Failed {
            id: id.clone(),
            part: FailedPart::Host,
            source,
        };
        let config = &self.host.config;
        let (data_dir, reserve) = (config.data_dir.clone(), config.disk_reserve);
        let prepare = blocking(move || {
            if let Err(no_space) = disk_space::check(&data_dir, reserve)? {
                return Ok(Err(no_space));
            }
            dir.remove()?;
            dir.create().map(Ok)
        });
        prepare
            .await
            .map_err(|error| failed(error.into()))?
            .map_err(|error: io::Error| failed(error.into()))?
            .map_err(|no_space| CreateError::NoDiskSpace {
                diagnostic: no_space.to_string(),
            })
    }
}
