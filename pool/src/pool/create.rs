//! Making a sandbox of a template or a snapshot.

use std::sync::{Arc, atomic::Ordering};

use pool_api::{
    CreateError, EnterError, Origin, Resources, SandboxInfo, SandboxSpec, SnapshotScope,
    TemplateName,
};
use snapshotter::OpenError;
use tracing::warn;

use super::Pool;
use crate::{
    cause::chain,
    driver::{Beginning, Handle, Own},
    host::{Interrupted, blocking},
};

/// What a sandbox is forked from, held.
pub(super) struct Source {
    pub(super) snapshot: Own,
    pub(super) resources: Resources,
}

impl Pool {
    pub(super) async fn source(&self, spec: &SandboxSpec) -> Result<Source, CreateError> {
        match &spec.origin {
            Origin::Template(name) => {
                let (snapshot, resources) = self
                    .host
                    .templates
                    .get(name)
                    .ok_or_else(|| CreateError::NoTemplate(name.as_str().to_owned()))?;
                self.keep_resident(name).await;
                Ok(Source {
                    snapshot: Own {
                        pin: snapshot,
                        keep: SnapshotScope::Full,
                    },
                    resources,
                })
            }
            Origin::Snapshot(id) => {
                if !self.host.store.contains(id) {
                    return Err(CreateError::NoTemplate(id.as_str().to_owned()));
                }
                let failed = |source: pool_api::Cause| CreateError::Failed {
                    id: spec.id.clone(),
                    source,
                };
                let (store, id) = (Arc::clone(&self.host.store), id.clone());
                let source = blocking(move || {
                    let pin = store.pin(&id);
                    let manifest = store.manifest(&id)?;
                    let keep = manifest.keep();
                    Ok::<_, OpenError>(Source {
                        snapshot: Own { pin, keep },
                        resources: manifest.resources,
                    })
                });
                source
                    .await
                    .map_err(|error| failed(error.into()))?
                    .map_err(|error| failed(error.into()))
            }
        }
    }

    /// A template's memory stays in RAM from its first fork on. When there is none for it, the fork itself says so.
    async fn keep_resident(&self, name: &TemplateName) {
        if self.host.config.memory == snapshotter::Mode::Paged {
            return;
        }
        let (host, template) = (Arc::clone(&self.host), name.clone());
        let kept = blocking(move || host.templates.keep_resident(&template, &host.store));
        if let Ok(Err(error)) = kept.await {
            warn!(template = %name, error = chain(&error), "cannot keep a template's memory in RAM");
        }
    }

    pub(super) async fn create_from(
        &self,
        spec: SandboxSpec,
        source: Source,
    ) -> Result<SandboxInfo, CreateError> {
        let id = spec.id.clone();
        let failed = |source: pool_api::Cause| CreateError::Failed {
            id: id.clone(),
            source,
        };
        if self.host.closing.load(Ordering::SeqCst) {
            return Err(failed(Interrupted.into()));
        }
        let (reply, answer) = tokio::sync::oneshot::channel();
        let Source {
            snapshot,
            resources,
        } = source;
        let home = self.home(&id);
        let host = Arc::clone(&self.host);
        let spec = Arc::new(spec);
        let handle = self.host.registry.insert_with(
            &id,
            || CreateError::Exists(id.clone()),
            || {
                home.remove()
                    .and_then(|()| home.create())
                    .map_err(|error| failed(error.into()))?;
                Ok(Handle::spawn(
                    host,
                    spec,
                    home,
                    Beginning::Fork {
                        snapshot,
                        resources,
                        reply,
                    },
                ))
            },
        )?;
        match answer.await {
            Ok(Ok(lease)) => {
                drop(lease);
                Ok(handle.info.borrow().clone())
            }
            Ok(Err(EnterError::NoRoom { diagnostic })) => Err(CreateError::NoRoom { diagnostic }),
            Ok(Err(EnterError::Failed { source, .. })) => Err(failed(source)),
            Ok(Err(error)) => Err(failed(error.into())),
            Err(_) => Err(failed(Interrupted.into())),
        }
    }
}
