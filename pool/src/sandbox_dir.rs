//! The directory of a sandbox: everything on disk beside its snapshots.
//!
//! ```text
//! sandboxes/<id>/sandbox.json   the record; written with the first snapshot, so a sandbox without it cannot wake
//!                token          its access token, mode 0600
//!                top.blk        the writable layer of its disk while it runs
//!                console.log    the guest's serial console
//! ```

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use pool_api::{Epoch, Resources, SandboxSpec, Secret, SnapshotId, SnapshotScope};
use serde::{Deserialize, Serialize};
use snapshotter::Layout;
use vmm_api::TopLayer;

const MAX_RECORD: u64 = 1 << 20;

/// The directory of one sandbox.
#[derive(Debug, Clone)]
pub(crate) struct SandboxDir {
    dir: PathBuf,
}

/// The durable state of a sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The spec it was created with, without the token.
    pub(crate) spec: SandboxSpec,
    pub(crate) epoch: Epoch,
    pub(crate) started_at: SystemTime,
    pub(crate) since: SystemTime,
    pub(crate) resources: Resources,
    /// The snapshot it wakes from.
    pub(crate) snapshot: SnapshotId,
    /// That snapshot's scope.
    #[serde(default, rename = "keep")]
    pub(crate) scope: SnapshotScope,
}

impl SandboxDir {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub(crate) fn create(&self) -> io::Result<()> {
        fs::create_dir_all(&self.dir)
    }

    /// Removes the directory, retrying while a cancelled start still adds files.
    pub(crate) fn remove(&self) -> io::Result<()> {
        const ATTEMPTS: usize = 8;
        let mut result = Ok(());
        for _ in 0..ATTEMPTS {
            result = fs::remove_dir_all(&self.dir);
            match &result {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                _ => return result,
            }
        }
        result
    }

    /// Writes the record durably and atomically.
    pub(crate) fn save(&self, record: &Record) -> io::Result<()> {
        let mut record = record.clone();
        if let Some(token) = record.spec.access_token.take() {
            self.write("token", token.expose().as_bytes())?;
        }
        let bytes = serde_json::to_vec_pretty(&record)?;
        self.write("sandbox.json", &bytes)
    }

    /// Reads the record and the token.
    pub(crate) fn load(&self) -> io::Result<Record> {
        let mut record: Record = serde_json::from_slice(&self.read("sandbox.json")?)?;
        record.spec.access_token = match self.read("token") {
            Ok(bytes) => Some(Secret::new(
                String::from_utf8(bytes).map_err(io::Error::other)?,
            )),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(record)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.dir.join(name))?
            .take(MAX_RECORD + 1)
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_RECORD {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the file is longer than 1 MiB",
            ));
        }
        Ok(bytes)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        write_atomic(&self.dir, name, bytes)
    }

    /// Returns the path of the writable layer.
    pub(crate) fn top_layer_path(&self) -> PathBuf {
        self.dir.join("top.blk")
    }

    /// Replaces the top layer by an empty one for a disk of this size in bytes.
    pub(crate) fn new_top_layer(&self, disk: u64) -> io::Result<TopLayer> {
        self.remove_top_layer()?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.top_layer_path())?;
        let blocks = u32::try_from(disk / vmm_api::PAGE_SIZE as u64).map_err(io::Error::other)?;
        let layout = Layout::new(blocks);
        file.set_len(layout.len())?;
        Ok(TopLayer {
            file,
            blocks_offset: layout.pages_offset,
        })
    }

    /// Unlinks the top layer. A snapshot that took it over keeps the file.
    pub(crate) fn remove_top_layer(&self) -> io::Result<()> {
        match fs::remove_file(self.top_layer_path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Opens the console log for appending.
    pub(crate) fn console(&self) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(self.dir.join("console.log"))
    }

    /// Returns the last `limit` bytes of the console.
    pub(crate) fn console_tail(&self, limit: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.dir.join("console.log"))?;
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(limit)))?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// Replaces a file of a directory atomically, mode 0600; the new file is durable on return.
pub(crate) fn write_atomic(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(dir.join(name)).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()
}
