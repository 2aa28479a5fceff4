//! Making a snapshot from a monitor's capture.
//!
//! A monitor writes into a [`Staging`]; [`Staging::commit`] seals layers, syncs everything and publishes the snapshot by a
//! rename. A dropped staging is removed. A chain that is too long is folded: the new layer takes over pages of the sandbox's
//! own older layers.

mod disk;
mod fold;
mod unchanged;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use pool_api::{Resources, SnapshotId, SnapshotScope, TemplateName};
use vmm_api::{CaptureSpec, Captured, MachineFiles, PageRecord};

use self::{
    fold::{fold, fold_from, layers},
    unchanged::drop_unchanged,
};
use crate::{
    BaseImage, Chain, Digest, DiskManifest, FileRef, LayerError, LayerRef, Layout, Manifest,
    ManifestError, OpenError, Pin, SealError, Store, Tables,
    files::sync_dir,
    manifest::blocks,
    pager::working_set,
    store::{
        pins::{Needs, SharedPins},
        staging_dir::StagingDir,
    },
};

/// A directory in which a snapshot is assembled.
#[derive(Debug)]
pub struct Staging {
    dir: StagingDir,
    layout: Layout,
    machine: Option<Files>,
    disk_bitmaps: Vec<File>,
}

/// The files for machine state and memory.
#[derive(Debug)]
struct Files {
    image: File,
    pages: File,
    page_index: File,
}

/// The machine that a snapshot is captured from.
#[derive(Debug, Clone)]
pub struct CaptureSource {
    /// The template it descends from.
    pub template: TemplateName,
    /// The machine's resources.
    pub resources: Resources,
    /// The snapshot that the machine was loaded from.
    pub parent: Option<SnapshotId>,
    /// The memory layers that the machine was loaded from.
    pub memory: Chain,
    /// The machine's disks.
    pub disks: Vec<DiskSource>,
    /// Pages to install ahead in a restore; empty when the first restore is to record them.
    pub working_set: Vec<u32>,
}

/// A disk at the instant of the capture.
#[derive(Debug, Clone)]
pub struct DiskSource {
    /// Its size in bytes.
    pub size: u64,
    /// The image below its layers.
    pub base: BaseImage,
    /// The layers below its top layer.
    pub chain: Chain,
    /// The file of its top layer, in the layout of [`Layout::new`]. It has a name, so that the snapshot can link it.
    pub top: Arc<File>,
}

/// A durable snapshot.
#[derive(Debug)]
pub struct Committed {
    /// Pins the snapshot.
    pub pin: Pin,
    /// Its manifest.
    pub manifest: Manifest,
}

/// Failure to make a snapshot. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The filesystem is full.
    #[error("no space left for the snapshot")]
    NoSpace,
    /// A file cannot be written.
    #[error("failed to write {what} of the snapshot")]
    Io {
        /// The object.
        what: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The monitor's capture is contradictory.
    #[error("capture is not usable: {0}")]
    Invalid(&'static str),
    /// An older layer cannot be folded into the new one.
    #[error("failed to fold older layers")]
    Fold(#[source] LayerError),
    /// A layer cannot be sealed.
    #[error(transparent)]
    Seal(SealError),
    /// The source snapshot cannot be read.
    #[error(transparent)]
    Open(Box<OpenError>),
    /// The manifest cannot be written.
    #[error("failed to write manifest")]
    Manifest(#[source] ManifestError),
}

// === impl Store ===

impl Store {
    /// Creates a staging directory for a machine with `memory` bytes and `disks` disks.
    pub fn stage(
        &self,
        scope: SnapshotScope,
        memory: u64,
        disks: usize,
    ) -> Result<Staging, CommitError> {
        let pages = blocks(memory).ok_or(CommitError::Invalid("impossible memory size"))?;
        let dir = self.staging("new-").map_err(io("directory"))?;
        let file = |name: &str| {
            let options = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(dir.path().join(name));
            options.map_err(io("files"))
        };
        let machine = match scope {
            SnapshotScope::Full => Some(Files {
                image: file("machine")?,
                pages: file("memory")?,
                page_index: file("page-index")?,
            }),
            SnapshotScope::DiskOnly => None,
        };
        Ok(Staging {
            layout: Layout::new(pages),
            machine,
            disk_bitmaps: (0..disks)
                .map(|disk| file(&format!("bitmap{disk}")))
                .collect::<Result<_, _>>()?,
            dir,
        })
    }

    /// Makes a disk-only snapshot of another snapshot's disks.
    pub fn derive_disk_only(&self, id: &SnapshotId) -> Result<Committed, CommitError> {
        let full = self
            .manifest(id)
            .map_err(|error| CommitError::Open(Box::new(error)))?;
        let disk = |disk: &DiskManifest| DiskManifest {
            chain: disk.chain.owned_by(id),
            base: BaseImage::stored(disk.base.len, disk.base.digest),
            size: disk.size,
        };
        for disk in &full.disks {
            // An image that is named by path is imported.
            self.open_base(&disk.base)
                .map_err(|error| CommitError::Open(Box::new(error)))?;
        }
        let manifest = Manifest {
            version: Manifest::VERSION,
            parent: Some(id.clone()),
            created_at: now(),
            machine: None,
            memory: Chain::default(),
            disks: full.disks.iter().map(disk).collect(),
            ..full
        };
        // The manifest is its only file.
        let staging = self.stage(SnapshotScope::DiskOnly, manifest.resources.memory, 0)?;
        staging.publish(self, manifest)
    }
}

// === impl Staging ===

impl Staging {
    /// Returns the files for the monitor to write.
    pub fn spec(&self) -> Result<CaptureSpec, CommitError> {
        let clone = |file: &File| file.try_clone().map_err(io("files"));
        let machine = match &self.machine {
            Some(files) => Some(MachineFiles {
                image: clone(&files.image)?,
                pages: clone(&files.pages)?,
                pages_offset: self.layout.pages_offset,
                page_index: clone(&files.page_index)?,
            }),
            None => None,
        };
        Ok(CaptureSpec {
            machine,
            disk_bitmaps: self
                .disk_bitmaps
                .iter()
                .map(clone)
                .collect::<Result<_, _>>()?,
        })
    }

    /// Makes a durable snapshot of the capture. The machine must not have written to its disks since.
    pub fn commit(
        self,
        store: &Store,
        captured: &Captured,
        source: CaptureSource,
    ) -> Result<Committed, CommitError> {
        if source.disks.len() != self.disk_bitmaps.len()
            || blocks(source.resources.memory) != Some(self.layout.pages)
        {
            return Err(CommitError::Invalid("another machine was captured"));
        }
        let (machine, memory) = match &self.machine {
            Some(files) => (
                Some(self.seal_image(files, captured)?),
                self.seal_memory(files, store, captured, &source.memory)?,
            ),
            None => (None, Chain::default()),
        };
        let mut disks = Vec::with_capacity(source.disks.len());
        for (number, disk) in source.disks.into_iter().enumerate() {
            let chain = self.seal_disk(store, number, &disk)?;
            disks.push(DiskManifest {
                size: disk.size,
                base: BaseImage::stored(disk.base.len, disk.base.digest),
                chain,
            });
        }
        if machine.is_some() && !source.working_set.is_empty() {
            let bytes = working_set::encode(&source.working_set);
            self.write("working-set", &bytes)?;
        }
        let manifest = Manifest {
            version: Manifest::VERSION,
            template: source.template,
            parent: source.parent,
            created_at: now(),
            resources: source.resources,
            machine,
            memory,
            disks,
        };
        self.publish(store, manifest)
    }

    fn seal_image(&self, files: &Files, captured: &Captured) -> Result<FileRef, CommitError> {
        let file = File::open(self.dir.path().join("machine")).map_err(io("machine state"))?;
        let len = file.metadata().map_err(io("machine state"))?.len();
        if len != captured.image_len {
            return Err(CommitError::Invalid(
                "machine state of another length than announced",
            ));
        }
        let digest = Digest::of_reader(&file).map_err(io("machine state"))?;
        files.image.sync_all().map_err(io("machine state"))?;
        Ok(FileRef { len, digest })
    }

    fn seal_memory(
        &self,
        files: &Files,
        store: &Store,
        captured: &Captured,
        chain: &Chain,
    ) -> Result<Chain, CommitError> {
        let mut tables = self.read_index(captured)?;
        let older = layers(store, &chain.layers, "memory", self.layout.pages)?;
        drop_unchanged(&files.pages, &self.layout, &mut tables, older).map_err(io("pages"))?;
        let from = fold_from(chain);
        let (unfolded, folded) = chain.layers.split_at(from);
        fold(
            &files.pages,
            &self.layout,
            &mut tables,
            &layers(store, folded, "memory", self.layout.pages)?,
        )?;
        let digest = tables.seal(&files.pages, &self.layout).map_err(seal)?;
        let own = LayerRef {
            owner: None,
            digest,
        };
        Ok(Chain {
            inherited: chain.inherited.min(from),
            layers: unfolded.iter().cloned().chain([own]).collect(),
        })
    }

    fn read_index(&self, captured: &Captured) -> Result<Tables, CommitError> {
        let path = self.dir.path().join("page-index");
        let file = File::open(&path).map_err(io("page index"))?;
        let expected = u64::from(self.layout.pages) * PageRecord::SIZE as u64;
        let len = file.metadata().map_err(io("page index"))?.len();
        if len > expected || len != captured.pages.saturating_mul(PageRecord::SIZE as u64) {
            return Err(CommitError::Invalid(
                "page index of another length than announced",
            ));
        }
        let mut tables = Tables::new(self.layout.pages);
        let mut reader = io::BufReader::new(file);
        let mut next = 0;
        let mut bytes = [0; PageRecord::SIZE];
        for _ in 0..captured.pages {
            reader.read_exact(&mut bytes).map_err(io("page index"))?;
            let record = PageRecord::decode(&bytes)
                .ok_or(CommitError::Invalid("unknown record in the page index"))?;
            if record.number < next || record.number >= self.layout.pages {
                return Err(CommitError::Invalid("page index is not ascending"));
            }
            next = record.number + 1;
            if record.zero {
                tables.add_zero(record.number);
            } else {
                tables.add(record.number, record.digest);
            }
        }
        fs::remove_file(&path).map_err(io("page index"))?;
        Ok(tables)
    }

    fn write(&self, name: &'static str, bytes: &[u8]) -> Result<(), CommitError> {
        let mut file = File::create_new(self.dir.path().join(name)).map_err(io(name))?;
        file.write_all(bytes).map_err(io(name))?;
        file.sync_all().map_err(io(name))
    }

    /// Publishes the snapshot under its id, durably.
    fn publish(self, store: &Store, manifest: Manifest) -> Result<Committed, CommitError> {
        let (id, bytes) = manifest.encode().map_err(CommitError::Manifest)?;
        self.write("manifest", &bytes)?;
        sync_dir(self.dir.path()).map_err(io("directory"))?;
        // Pinned before it exists, so that no collection removes it.
        let pin = SharedPins::pin(&store.pins, &id, Needs::of(&manifest));
        fs::rename(self.dir.path(), store.path(&id)).map_err(io("directory"))?;
        self.dir.moved();
        sync_dir(&store.snapshots_dir()).map_err(io("directory"))?;
        Ok(Committed { pin, manifest })
    }
}

/// Nanoseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

fn io(what: &'static str) -> impl Fn(io::Error) -> CommitError {
    move |source| {
        if is_full(&source) {
            CommitError::NoSpace
        } else {
            CommitError::Io { what, source }
        }
    }
}

fn seal(error: SealError) -> CommitError {
    match error {
        SealError::Io(source) => io("layer")(source),
        invalid @ SealError::Invalid(_) => CommitError::Seal(invalid),
    }
}
