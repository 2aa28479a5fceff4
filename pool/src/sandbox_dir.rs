//! The directory of a sandbox: everything on disk beside its snapshots.
//!
//! ```text
//! sandboxes/<id>/sandbox.json   the record; written with the first snapshot, so a sandbox without it cannot wake
//!                token          its access token, mode 0600
//!                top-*.blk      the writable layers of its disks while it runs
//!                console.log    the guest's serial console
//! ```

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use pool_api::{Epoch, Resources, SandboxSpec, Secret, SnapshotId, SnapshotScope};
use serde::{Deserialize, Serialize};

use crate::durable_file::{self, ReplaceError};

/// The bytes of a record that are read at most. The environment in it has the size of a request body at most.
const MAX_RECORD: u64 = 16 << 20;
/// The version of new records. Records of version 1 have no version.
const VERSION: u32 = 2;

/// The directory of one sandbox.
#[derive(Debug, Clone)]
pub(crate) struct SandboxDir {
    dir: PathBuf,
}

/// The durable state of a sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The version of the format.
    #[serde(default = "version_1")]
    version: u32,
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

/// Failure to read a record.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("failed to read {0}")]
    Read(&'static str, #[source] io::Error),
    #[error("the record is damaged")]
    Damaged(#[source] serde_json::Error),
    #[error("the record is damaged: it is longer than 16 MiB")]
    TooLong,
    #[error(
        "the record has version {0}, but this program supports up to {VERSION}: start the newer program"
    )]
    Version(u32),
}

/// The part of a record that every version has.
#[derive(Deserialize)]
struct VersionOnly {
    #[serde(default = "version_1")]
    version: u32,
}

fn version_1() -> u32 {
    1
}

impl Record {
    /// Describes a sandbox that wakes from this snapshot.
    pub(crate) fn new(
        spec: SandboxSpec,
        epoch: Epoch,
        started_at: SystemTime,
        resources: Resources,
        (snapshot, scope): (SnapshotId, SnapshotScope),
    ) -> Self {
        Self {
            version: VERSION,
            spec,
            epoch,
            started_at,
            since: SystemTime::now(),
            resources,
            snapshot,
            scope,
        }
    }
}

impl SandboxDir {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Returns the path of the directory.
    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }

    /// Creates the directory, durably.
    pub(crate) fn create(&self) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        self.dir
            .parent()
            .map_or(Ok(()), |parent| File::open(parent)?.sync_all())
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
    pub(crate) fn save(&self, record: &Record) -> Result<(), ReplaceError> {
        let mut record = record.clone();
        if let Some(token) = record.spec.access_token.take() {
            let token = token.expose().as_bytes();
            // A token never changes.
            if self.read("token").ok().flatten().as_deref() != Some(token) {
                durable_file::replace(&self.dir, "token", token)?;
            }
        }
        let bytes = serde_json::to_vec(&record)
            .map_err(|error| ReplaceError::not_written("sandbox.json", error.into()))?;
        durable_file::replace(&self.dir, "sandbox.json", &bytes)
    }

    /// Reads the record and the token; `None` when the sandbox never had a record.
    pub(crate) fn load(&self) -> Result<Option<Record>, RecordError> {
        let Some(bytes) = self.read("sandbox.json")? else {
            return Ok(None);
        };
        // First: a newer record may have another shape.
        let VersionOnly { version } =
            serde_json::from_slice(&bytes).map_err(RecordError::Damaged)?;
        if version > VERSION {
            return Err(RecordError::Version(version));
        }
        let mut record: Record = serde_json::from_slice(&bytes).map_err(RecordError::Damaged)?;
        record.version = VERSION;
        if let Some(bytes) = self.read("token")? {
            let token = String::from_utf8(bytes)
                .map_err(|error| RecordError::Read("token", io::Error::other(error)))?;
            record.spec.access_token = Some(Secret::new(token));
        }
        Ok(Some(record))
    }

    /// Reads a file; `None` when it does not exist.
    fn read(&self, name: &'static str) -> Result<Option<Vec<u8>>, RecordError> {
        let read = |source| RecordError::Read(name, source);
        let mut bytes = Vec::new();
        let file = match File::open(self.dir.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(read(error)),
        };
        file.take(MAX_RECORD + 1)
            .read_to_end(&mut bytes)
            .map_err(read)?;
        if bytes.len() as u64 > MAX_RECORD {
            return Err(RecordError::TooLong);
        }
        Ok(Some(bytes))
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
