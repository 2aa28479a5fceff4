//! Templates: booted once from a kernel and a root disk, and kept as the snapshot taken when they were ready.

mod artefacts;
mod boot;

use std::{
    collections::BTreeMap,
    fs::{self},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use pool_api::{Resources, SnapshotId, SnapshotScope, TemplateError, TemplateInfo, TemplateName};
use serde::{Deserialize, Serialize};
use snapshotter::{Digest, OpenError, Pin};
use tokio::time::sleep;
use tracing::{info, warn};
use vmm_api::{BootError, Exit};

use self::artefacts::{Found, Seen, find};
use crate::{
    awaken::AwakenError,
    capacity::NoRoom,
    home::{Home, replace},
    host::{Host, Interrupted, blocking},
    pause::{WriteError, write_down},
    shelf::BlankError,
};

/// The templates of this host.
#[derive(Debug)]
pub(crate) struct Templates {
    dir: PathBuf,
    known: Mutex<BTreeMap<TemplateName, Template>>,
    /// One is built at a time.
    building: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone)]
struct Template {
    record: Record,
    pin: Pin,
    /// Its memory, once the first fork brought it into RAM.
    resident: Option<Arc<OwnedFd>>,
}

/// What is remembered of a template.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    name: TemplateName,
    snapshot: SnapshotId,
    resources: Resources,
    built_at: SystemTime,
    /// What it was built from.
    artefacts: Digest,
    /// The files as they were then: unchanged, they need not be digested again.
    files: Vec<Seen>,
}

/// A template that was not built.
#[derive(Debug, thiserror::Error)]
enum BuildError {
    #[error("read {}", path.display())]
    Artefact {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("no room on this host: {0}")]
    NoRoom(#[from] NoRoom),
    #[error("make a blank")]
    Blank(#[source] BlankError),
    #[error("make files of the template")]
    Files(#[source] io::Error),
    #[error("boot the guest")]
    Boot(#[source] BootError),
    #[error("the guest ended before it was ready: {0}")]
    Ended(Exit),
    #[error("the guest was not ready within {0:?}")]
    Late(Duration),
    #[error("ask the guest whether it is ready")]
    Ready(#[source] AwakenError),
    #[error("keep the template")]
    Write(#[source] WriteError),
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

// === impl Templates ===

impl Templates {
    /// Finds the templates that were built before. One that cannot be read has to be built again.
    pub(crate) fn open(dir: PathBuf, store: &snapshotter::Store) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        let mut known = BTreeMap::new();
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read_record(&path) {
                Ok(record) if store.contains(&record.snapshot) => {
                    let pin = store.pin(&record.snapshot);
                    known.insert(
                        record.name.clone(),
                        Template {
                            record,
                            pin,
                            resident: None,
                        },
                    );
                }
                Ok(record) => warn!(template = %record.name, "the snapshot of a template is gone"),
                Err(error) => warn!(path = %path.display(), %error, "cannot read a template"),
            }
        }
        Ok(Self {
            dir,
            known: Mutex::new(known),
            building: tokio::sync::Mutex::default(),
        })
    }

    /// What forks of a template start from.
    pub(crate) fn get(&self, name: &TemplateName) -> Option<(Pin, Resources)> {
        let known = self.known.lock();
        known
            .get(name)
            .map(|template| (template.pin.clone(), template.record.resources))
    }

    /// Every template.
    pub(crate) fn all(&self) -> Vec<TemplateInfo> {
        self.known
            .lock()
            .values()
            .map(|template| template.record.info())
            .collect()
    }

    /// Keeps a template's memory in RAM, if it is not there yet.
    pub(crate) fn keep_resident(
        &self,
        name: &TemplateName,
        store: &snapshotter::Store,
    ) -> Result<(), OpenError> {
        let snapshot = match self.known.lock().get(name) {
            Some(Template {
                resident: None,
                record,
                ..
            }) => record.snapshot.clone(),
            _ => return Ok(()),
        };
        let memory = store.keep_resident(&snapshot)?;
        if let Some(template) = self
            .known
            .lock()
            .get_mut(name)
            .filter(|now| now.record.snapshot == snapshot)
        {
            template.resident = Some(memory);
        }
        Ok(())
    }

    /// Builds a template unless it was built from the same artefacts and of the same size before.
    pub(crate) async fn build(
        &self,
        host: &Host,
        name: &TemplateName,
    ) -> Result<TemplateInfo, TemplateError> {
        let _one_at_a_time = self.building.lock().await;
        let known = self
            .known
            .lock()
            .get(name)
            .map(|template| template.record.clone());
        let artefacts = host.config.artefacts.clone();
        let seen = known.clone();
        let failed = |source: BuildError| TemplateError::Failed {
            name: name.clone(),
            source: Box::new(source),
        };
        let found = blocking(move || {
            let known = seen.as_ref().map_or(&[][..], |record| &record.files);
            find(&artefacts, known)
        });
        let found = found
            .await
            .map_err(|error| failed(error.into()))?
            .map_err(|source| TemplateError::NoArtefacts {
                name: name.clone(),
                source: Box::new(source),
            })?;
        let resources = found.resources(&host.config.resources);
        if let Some(record) =
            known.filter(|record| record.artefacts == found.digest && record.resources == resources)
        {
            return Ok(record.info());
        }
        info!(template = %name, "building");
        let (pin, record) = self
            .make(host, name, found, resources)
            .await
            .map_err(failed)?;
        let built = record.info();
        self.known.lock().insert(
            name.clone(),
            Template {
                record,
                pin,
                resident: None,
            },
        );
        host.collect().await;
        info!(template = %name, "built");
        Ok(built)
    }

    async fn make(
        &self,
        host: &Host,
        name: &TemplateName,
        found: Found,
        resources: Resources,
    ) -> Result<(Pin, Record), BuildError> {
        let work = tempfile::tempdir_in(&self.dir).map_err(BuildError::Files)?;
        let home = Home::new(work.path().to_owned());
        let live = boot::boot(host, name, &home, &found.disk, resources).await?;
        let made = async {
            boot::ready(&live, host.config.boot).await?;
            boot::warm(&live, host.config.boot).await;
            sleep(host.config.settle).await;
            let cut = live.cut(&home);
            write_down(host, &*live.machine, SnapshotScope::Full, cut, None)
                .await
                .map_err(BuildError::Write)
        };
        let made = made.await;
        live.end().await;
        if made.is_err() {
            boot::report_console(&home);
        }
        let committed = made?;
        let record = Record {
            name: name.clone(),
            snapshot: committed.pin.id().clone(),
            resources,
            built_at: SystemTime::now(),
            artefacts: found.digest,
            files: found.files,
        };
        let bytes =
            serde_json::to_vec_pretty(&record).map_err(|error| BuildError::Files(error.into()))?;
        let (dir, file) = (self.dir.clone(), format!("{name}.json"));
        blocking(move || replace(&dir, &file, &bytes))
            .await?
            .map_err(BuildError::Files)?;
        Ok((committed.pin, record))
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
