//! Making a snapshot of what a monitor wrote.
//!
//! A monitor writes into a [`Staging`]; [`Staging::commit`] makes layers of it, syncs everything and gives it its name.
//! Dropping a staging before that removes it. A chain that has grown too long is folded: the new layer takes over the
//! pages of the sandbox's own older layers that it has not itself.

mod disk;
mod fold;
mod unchanged;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use pool_api::{Resources, SnapshotId, SnapshotScope, TemplateName};
use tempfile::TempDir;
use vmm_api::{CaptureSpec, Captured, MachineFiles, PageRecord};

use self::{
    fold::{fold, fold_from, layers},
    unchanged::drop_unchanged,
};
use crate::{
    BaseImage, Chain, Digest, DiskManifest, FileRef, LayerError, LayerRef, Layout, Manifest,
    ManifestError, OpenError, Pin, SealError, Store, Tables, manifest::blocks, pager::working_set,
};

/// A directory in which a snapshot is made.
#[derive(Debug)]
pub struct Staging {
    dir: TempDir,
    layout: Layout,
    machine: Option<Files>,
    disk_bitmaps: Vec<File>,
}

/// What state and memory are written into.
#[derive(Debug)]
struct Files {
    image: File,
    pages: File,
    page_index: File,
}

/// What a snapshot is cut from.
#[derive(Debug, Clone)]
pub struct CaptureSource {
    /// The template it descends from.
    pub template: TemplateName,
    /// What the machine has.
    pub resources: Resources,
    /// What the machine was loaded from.
    pub parent: Option<SnapshotId>,
    /// The memory the machine was loaded from.
    pub memory: Chain,
    /// The machine's disks.
    pub disks: Vec<DiskSource>,
    /// Pages to install first when it is restored. Empty: the first restore finds out.
    pub working_set: Vec<u32>,
}

/// A disk as it is when cut.
#[derive(Debug, Clone)]
pub struct DiskSource {
    /// Its size in bytes.
    pub size: u64,
    /// The image below its layers.
    pub base: BaseImage,
    /// The layers below its top.
    pub chain: Chain,
    /// The file of its top layer, laid out as [`Layout::new`] says. It becomes the snapshot's, by a link.
    pub top: PathBuf,
}

/// A snapshot that is durable.
#[derive(Debug)]
pub struct Committed {
    /// Holds it, and its name.
    pub pin: Pin,
    /// What it is.
    pub manifest: Manifest,
}

/// A snapshot that was not made. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// There is no space left.
    #[error("no space left for the snapshot")]
    NoSpace,
    /// A file of it cannot be written.
    #[error("write {what} of the snapshot")]
    Io {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The monitor wrote something that cannot be.
    #[error("capture is not usable: {0}")]
    Invalid(&'static str),
    /// An older layer cannot be folded into the new one.
    #[error("fold older layers")]
    Fold(#[source] LayerError),
    /// A layer was not sealed.
    #[error(transparent)]
    Seal(SealError),
    /// The snapshot it is to be made of cannot be read.
    #[error(transparent)]
    Open(Box<OpenError>),
    /// The manifest cannot be written.
    #[error("write manifest")]
    Manifest(#[source] ManifestError),
}

// === impl Store ===

impl Store {
    /// Makes room for the capture of a machine with `memory` bytes and `disks` disks.
    pub fn stage(
        &self,
        keep: SnapshotScope,
        memory: u64,
        disks: usize,
    ) -> Result<Staging, CommitError> {
        let pages = blocks(memory).ok_or(CommitError::Invalid("impossible memory size"))?;
        let dir = tempfile::Builder::new()
            .prefix("new-")
            .tempdir_in(self.staging_dir())
            .map_err(io("directory"))?;
        let file = |name: &str| {
            let options = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(dir.path().join(name));
            options.map_err(io("files"))
        };
        let machine = match keep {
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

    /// Makes a snapshot of the disks of another one.
    pub fn derive_disk_only(&self, id: &SnapshotId) -> Result<Committed, CommitError> {
        let full = self
            .manifest(id)
            .map_err(|error| CommitError::Open(Box::new(error)))?;
        let disk = |disk: &DiskManifest| DiskManifest {
            chain: disk.chain.owned_by(id),
            ..disk.clone()
        };
        let manifest = Manifest {
            version: Manifest::VERSION,
            parent: Some(id.clone()),
            created_at: now(),
            machine: None,
            memory: Chain::default(),
            disks: full.disks.iter().map(disk).collect(),
            ..full
        };
        // Its only file is the manifest.
        let staging = self.stage(SnapshotScope::DiskOnly, manifest.resources.memory, 0)?;
        staging.publish(self, manifest)
    }
}

// === impl Staging ===

impl Staging {
    /// Where the monitor is to write.
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

    /// Makes a snapshot of what the monitor wrote. It is durable when this returns. The machine must not have written to
    /// its disks since.
    pub fn commit(
        self,
        store: &Store,
        captured: &Captured,
        cut: CaptureSource,
    ) -> Result<Committed, CommitError> {
        if cut.disks.len() != self.disk_bitmaps.len()
            || blocks(cut.resources.memory) != Some(self.layout.pages)
        {
            return Err(CommitError::Invalid("another machine was captured"));
        }
        let (machine, memory) = match &self.machine {
            Some(files) => (
                Some(self.seal_image(files, captured)?),
                self.keep_memory(files, store, captured, &cut.memory)?,
            ),
            None => (None, Chain::default()),
        };
        let mut disks = Vec::with_capacity(cut.disks.len());
        for (number, disk) in cut.disks.into_iter().enumerate() {
            let chain = self.keep_disk(store, number, &disk)?;
            disks.push(DiskManifest {
                size: disk.size,
                base: disk.base,
                chain,
            });
        }
        if machine.is_some() && !cut.working_set.is_empty() {
            let bytes = working_set::encode(&cut.working_set);
            self.write("working-set", &bytes)?;
        }
        let manifest = Manifest {
            version: Manifest::VERSION,
            template: cut.template,
            parent: cut.parent,
            created_at: now(),
            resources: cut.resources,
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

    fn keep_memory(
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
        let (kept, folded) = chain.layers.split_at(from);
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
            layers: kept.iter().cloned().chain([own]).collect(),
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

    /// Gives it its name, durably.
    fn publish(self, store: &Store, manifest: Manifest) -> Result<Committed, CommitError> {
        let (id, bytes) = manifest.encode().map_err(CommitError::Manifest)?;
        self.write("manifest", &bytes)?;
        sync_dir(self.dir.path()).map_err(io("directory"))?;
        // Pinned before it is there, so that nobody removes it in between.
        let pin = store.pin_with(&id, || Some(manifest.owners().cloned().collect()));
        fs::rename(self.dir.path(), store.path(&id)).map_err(io("directory"))?;
        // Nothing lies at the old place any more, and nothing is to be removed there.
        let _moved = self.dir.keep();
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

pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
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
