//! Templates: booted once from a kernel and a root disk, and kept as the snapshot taken when they were ready.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use guest_api::{AGENT_VSOCK_PORT, client};
use parking_lot::Mutex;
use pool_api::{Resources, SnapshotId, TemplateError, TemplateInfo, TemplateName};
use serde::{Deserialize, Serialize};
use snapshotter::{BaseImage, Chain, Digest, DiskManifest, OpenError, Pin};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};
use vmm_api::{BootError, BootSpec, Disk, Exit, Machine};

use crate::{
    Artefacts,
    capacity::NoRoom,
    cause::chain,
    home::{Home, replace},
    host::{Host, Interrupted, blocking},
    live::{Lineage, Live},
    pause::{WriteError, write_down},
    shelf::BlankError,
};

/// The longest one attempt to reach an agent may take, and the longest time between two.
const ATTEMPT: Duration = Duration::from_secs(30);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

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
    stamp: Stamp,
}

/// When two files were last changed, and how long they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp(Vec<(PathBuf, u64, i64, i64, u64)>);

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
    #[error("keep the template")]
    Write(#[source] WriteError),
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// What is on disk now.
struct Found {
    digest: Digest,
    stamp: Stamp,
    disk: BaseImage,
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
        let found = blocking(move || find(&artefacts, seen.as_ref()));
        let found = found
            .await
            .map_err(|error| failed(error.into()))?
            .map_err(|source| TemplateError::NoArtefacts {
                name: name.clone(),
                source: Box::new(source),
            })?;
        let resources = resources(&host.config.resources, &found.disk);
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
        let live = boot(host, name, &home, &found.disk, resources).await?;
        let made = async {
            ready(&live, host.config.boot).await?;
            sleep(host.config.settle).await;
            let cut = live.cut(&home);
            write_down(host, &*live.machine, cut, None)
                .await
                .map_err(BuildError::Write)
        };
        let made = made.await;
        live.end().await;
        if made.is_err() {
            report_console(&home);
        }
        let committed = made?;
        let record = Record {
            name: name.clone(),
            snapshot: committed.pin.id().clone(),
            resources,
            built_at: SystemTime::now(),
            artefacts: found.digest,
            stamp: found.stamp,
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

/// The disk is as large as its image, in whole blocks, or as asked for.
fn resources(wanted: &Resources, base: &BaseImage) -> Resources {
    let page = vmm_api::PAGE_SIZE as u64;
    Resources {
        disk: wanted.disk.max(base.len).next_multiple_of(page),
        ..*wanted
    }
}

/// Looks at the artefacts, and digests them if they are not those of `known`.
fn find(artefacts: &Artefacts, known: Option<&Record>) -> Result<Found, BuildError> {
    let paths = [&artefacts.kernel, &artefacts.disk];
    let mut stamp = Stamp(Vec::new());
    for path in paths {
        let metadata = fs::metadata(path).map_err(|source| BuildError::Artefact {
            path: path.clone(),
            source,
        })?;
        let entry = (
            path.clone(),
            metadata.ino(),
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.len(),
        );
        stamp.0.push(entry);
    }
    let read = |path: &PathBuf| {
        let artefact = |source| BuildError::Artefact {
            path: path.clone(),
            source,
        };
        let file = File::open(path).map_err(artefact)?;
        let len = file.metadata().map_err(artefact)?.len();
        Ok::<_, BuildError>((len, Digest::of_reader(file).map_err(artefact)?))
    };
    let path = std::path::absolute(&artefacts.disk);
    let path = path.map_err(|source| BuildError::Artefact {
        path: artefacts.disk.clone(),
        source,
    })?;
    let (kernel, disk) = match known.filter(|known| known.stamp == stamp) {
        // What the disk's digest is matters only when it is built from.
        Some(known) => {
            let len = stamp.0.last().map_or(0, |entry| entry.4);
            let disk = BaseImage {
                path,
                len,
                digest: known.artefacts,
            };
            return Ok(Found {
                digest: known.artefacts,
                stamp,
                disk,
            });
        }
        None => (read(&artefacts.kernel)?, read(&artefacts.disk)?),
    };
    let command_line = Digest::of(artefacts.command_line.as_bytes());
    let digest = Digest::of(
        &[
            *kernel.1.as_bytes(),
            *disk.1.as_bytes(),
            *command_line.as_bytes(),
        ]
        .concat(),
    );
    Ok(Found {
        digest,
        stamp,
        disk: BaseImage {
            path,
            len: disk.0,
            digest: disk.1,
        },
    })
}

async fn boot(
    host: &Host,
    name: &TemplateName,
    home: &Home,
    base: &BaseImage,
    resources: Resources,
) -> Result<Live, BuildError> {
    let permit = host.capacity.admit(resources.memory)?;
    let ready = host
        .shelf
        .claim(&resources)
        .await
        .map_err(BuildError::Blank)?;
    let artefact = |path: &PathBuf| {
        File::open(path).map_err(|source| BuildError::Artefact {
            path: path.clone(),
            source,
        })
    };
    let disk = Disk {
        size: resources.disk,
        base: artefact(&base.path)?,
        layers: Vec::new(),
        top: home.new_top(resources.disk).map_err(BuildError::Files)?,
    };
    let spec = BootSpec {
        kernel: artefact(&host.config.artefacts.kernel)?,
        command_line: host.config.artefacts.command_line.clone(),
        disks: vec![disk],
        console: home.console().map_err(BuildError::Files)?,
    };
    let machine: Arc<dyn Machine> = ready
        .blank
        .boot(spec)
        .await
        .map_err(BuildError::Boot)?
        .into();
    let disks = vec![DiskManifest {
        size: resources.disk,
        base: base.clone(),
        chain: Chain::default(),
    }];
    // It has no pager, so nobody reports to this.
    let (_, damage) = tokio::sync::mpsc::unbounded_channel();
    Ok(Live {
        exit: machine.exit(),
        machine,
        damage,
        pager: None,
        lineage: Lineage::booted(name.clone(), resources, disks),
        _memory: None,
        _permit: permit,
        _run_dir: ready.run_dir,
    })
}

/// Returns when the guest's agent says that it is healthy.
async fn ready(live: &Live, limit: Duration) -> Result<(), BuildError> {
    let deadline = Instant::now() + limit;
    let mut exit = live.exit.clone();
    let healthy = async {
        let mut backoff = Duration::from_millis(50);
        loop {
            if let Ok(stream) = live.machine.dial(AGENT_VSOCK_PORT).await
                && let Ok(Ok(())) = timeout(ATTEMPT, client::health(stream)).await
            {
                return;
            }
            sleep(backoff).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    };
    tokio::select! {
        ended = exit.wait_for(Option::is_some) => {
            let exit = ended.ok().and_then(|exit| exit.clone());
            Err(BuildError::Ended(exit.unwrap_or(Exit::Killed)))
        }
        ready = timeout_at(deadline, healthy) => ready.map_err(|_| BuildError::Late(limit)),
    }
}

/// Why a guest did not come up is on its console, which goes with the rest.
fn report_console(home: &Home) {
    match home.console_tail(2048) {
        Ok(tail) => {
            warn!(console = %String::from_utf8_lossy(&tail), "the template's guest did not become ready")
        }
        Err(error) => warn!(
            error = chain(&error),
            "cannot read the console of the template's guest"
        ),
    }
}
