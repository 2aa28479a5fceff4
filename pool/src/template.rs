//! Templates: each is the snapshot of a guest that booted from a kernel and a root disk, taken when it was ready.

mod artefacts;
mod boot;
mod error;

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use parking_lot::Mutex;
use pool_api::{
    Cause, Resources, SnapshotId, SnapshotScope, TemplateError, TemplateInfo, TemplateName,
};
use serde::{Deserialize, Serialize};
use snapshotter::{Digest, Pin, Store};
use tokio::time::sleep;
use tracing::{info, warn};

use self::{
    artefacts::{Fingerprint, ResolvedArtefacts, resolve},
    error::BuildError,
};
use crate::{
    blocking::blocking, durable_file, host::Host, sandbox_dir::SandboxDir, snapshot::take_snapshot,
};

/// The templates of this host.
#[derive(Debug)]
pub(crate) struct Templates {
    dir: PathBuf,
    entries: Mutex<BTreeMap<TemplateName, Template>>,
    /// Serializes builds.
    building: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone)]
struct Template {
    record: Record,
    pin: Pin,
    /// Its memory in RAM, from its first fork on.
    resident: Option<Arc<OwnedFd>>,
}

/// The durable state of a template.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    name: TemplateName,
    snapshot: SnapshotId,
    resources: Resources,
    built_at: SystemTime,
    /// The digest of the artefacts it was built from.
    artefacts: Digest,
    /// Their fingerprints: unchanged files are not digested again.
    files: Vec<Fingerprint>,
}

// === impl Templates ===

impl Templates {
    /// Loads the templates of a directory, and removes what an interrupted build left. An unreadable template must be
    /// built again.
    pub(crate) fn open(dir: PathBuf, store: &Store) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        let mut entries = BTreeMap::new();
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(&path)?;
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read_record(&path) {
                Ok(record) => match store.contains(&record.snapshot) {
                    Ok(false) => {
                        warn!(template = %record.name, "snapshot of template is missing");
                    }
                    // One that cannot be found now may be found by the next fork.
                    _ => {
                        let pin = store.pin(&record.snapshot);
                        entries.insert(record.name.clone(), Template::new(record, pin));
                    }
                },
                Err(error) => {
                    let error = error_chain::chain(&error);
                    warn!(path = %path.display(), %error, "failed to read template");
                }
            }
        }
        Ok(Self {
            dir,
            entries: Mutex::new(entries),
            building: tokio::sync::Mutex::default(),
        })
    }

    /// Returns the snapshot and the resources of a template's forks.
    pub(crate) fn get(&self, name: &TemplateName) -> Option<(Pin, Resources)> {
        let entries = self.entries.lock();
        entries
            .get(name)
            .map(|template| (template.pin.clone(), template.record.resources))
    }

    /// Describes every template.
    pub(crate) fn all(&self) -> Vec<TemplateInfo> {
        self.entries
            .lock()
            .values()
            .map(|template| template.record.info())
            .collect()
    }

    /// Loads a template's memory into RAM, if it is not there yet.
    pub(crate) async fn keep_resident(
        &self,
        name: &TemplateName,
        store: &Arc<Store>,
    ) -> Result<(), Cause> {
        let snapshot = match self.entries.lock().get(name) {
            Some(Template {
                resident: None,
                record,
                ..
            }) => record.snapshot.clone(),
            _ => return Ok(()),
        };
        let (store, id) = (Arc::clone(store), snapshot.clone());
        let memory = blocking(move || store.keep_resident(&id)).await??;
        if let Some(template) = self
            .entries
            .lock()
            .get_mut(name)
            .filter(|template| template.record.snapshot == snapshot)
        {
            template.resident = Some(memory);
        }
        Ok(())
    }

    /// Builds a template, unless one exists with the same artefacts and resources.
    pub(crate) async fn build(
        &self,
        host: &Host,
        name: &TemplateName,
    ) -> Result<TemplateInfo, TemplateError> {
        let _serialized = self.building.lock().await;
        let existing = self.record(name);
        let failed = |source: BuildError| TemplateError::Failed {
            name: name.clone(),
            source: Box::new(source),
        };
        let artefacts = host.config.artefacts.clone();
        let fingerprints = existing.as_ref().map(|record| record.files.clone());
        let resolved = blocking(move || resolve(&artefacts, &fingerprints.unwrap_or_default()))
            .await
            .map_err(|error| failed(error.into()))?
            .map_err(|source| TemplateError::NoArtefacts {
                name: name.clone(),
                source: Box::new(source),
            })?;
        let resources = resolved.resources(&host.config.resources);
        if let Some(record) = existing
            && (record.artefacts, record.resources) == (resolved.digest, resources)
        {
            return Ok(record.info());
        }
        info!(template = %name, "template build started");
        let (pin, record) = self
            .build_snapshot(host, name, resolved, resources)
            .await
            .map_err(failed)?;
        let built = record.info();
        let template = Template::new(record, pin);
        self.entries.lock().insert(name.clone(), template);
        host.collect().await;
        info!(template = %name, "template built");
        Ok(built)
    }

    fn record(&self, name: &TemplateName) -> Option<Record> {
        let entries = self.entries.lock();
        entries.get(name).map(|template| template.record.clone())
    }

    async fn build_snapshot(
        &self,
        host: &Host,
        name: &TemplateName,
        artefacts: ResolvedArtefacts,
        resources: Resources,
    ) -> Result<(Pin, Record), BuildError> {
        let work_dir = tempfile::tempdir_in(&self.dir).map_err(BuildError::Files)?;
        let dir = SandboxDir::new(work_dir.path().to_owned());
        let (store, disk) = (Arc::clone(&host.store), artefacts.disk);
        let base = blocking(move || store.import_base(&disk.path, Some(disk.digest)))
            .await?
            .map_err(BuildError::Base)?;
        let running = boot::boot(host, name, &dir, &base, resources).await?;
        let taken = async {
            boot::wait_until_ready(&running, host.config.boot_timeout).await?;
            boot::warm_up(&running, host.config.boot_timeout).await;
            sleep(host.config.settle_time).await;
            let source = running.capture_source();
            take_snapshot(host, &*running.machine, SnapshotScope::Full, source, None)
                .await
                .map_err(|failed| BuildError::Snapshot(failed.error))
        };
        let taken = taken.await;
        running.destroy().await;
        if taken.is_err() {
            boot::log_console(&dir);
        }
        let committed = taken?;
        let record = Record {
            name: name.clone(),
            snapshot: committed.pin.id().clone(),
            resources,
            built_at: SystemTime::now(),
            artefacts: artefacts.digest,
            files: artefacts.files,
        };
        let bytes =
            serde_json::to_vec_pretty(&record).map_err(|error| BuildError::Files(error.into()))?;
        let (dir, file) = (self.dir.clone(), format!("{name}.json"));
        blocking(move || durable_file::replace(&dir, &file, &bytes))
            .await?
            .map_err(|error| BuildError::Files(error.into()))?;
        Ok((committed.pin, record))
    }
}

impl Template {
    fn new(record: Record, pin: Pin) -> Self {
        Self {
            record,
            pin,
            resident: None,
        }
    }
}

impl Record {
    fn info(&self) -> TemplateInfo {
        TemplateInfo {
            name: self.name.clone(),
            resources: self.resources,
            snapshot: Some(self.snapshot.clone()),
            built_at: Some(self.built_at),
        }
    }
}

fn read_record(path: &Path) -> io::Result<Record> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}
