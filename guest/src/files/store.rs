//! Writing one file.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::StatusCode;
use nix::{errno::Errno, libc};
use serde::Serialize;
use tokio::time::timeout;

use super::{CHUNK, Failure, bad};
use crate::{
    disk::Disk,
    metadata::{self, Notes},
    place, respond,
    user::User,
};

/// How long a caller may send nothing.
const IDLE: Duration = Duration::from_secs(600);

/// What the caller is told of each file.
#[derive(Debug, Serialize)]
pub(super) struct Written {
    path: String,
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Notes::is_empty")]
    metadata: Notes,
}

/// A file that is being written. What it has taken and not written is less than a chunk and what came last.
struct Upload<'a> {
    disk: &'a Disk,
    path: &'a Path,
    file: File,
    waiting: Vec<u8>,
}

/// Writes what comes to `path`, for `user`. A small file is written by one system call.
pub(super) async fn store<S, E>(
    disk: &Disk,
    path: &Path,
    user: &User,
    notes: &Notes,
    mut content: S,
) -> Result<Written, Failure>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::error::Error + 'static,
{
    let mut upload = Upload::create(disk, path, user).await?;
    while let Some(bytes) = next(&mut content).await? {
        upload.take(&bytes).await?;
    }
    upload.finish(notes).await?;
    Ok(Written::new(path, notes.clone()))
}

/// What a caller sends next, if it does in time.
pub(super) async fn next<S, E>(content: &mut S) -> Result<Option<Bytes>, Failure>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::error::Error + 'static,
{
    match timeout(IDLE, content.next()).await {
        Ok(next) => next.transpose().map_err(|error| broken(&error)),
        Err(_) => Err(Failure(
            StatusCode::REQUEST_TIMEOUT,
            "nothing was uploaded for too long".to_owned(),
        )),
    }
}

impl Written {
    pub(super) fn new(path: &Path, metadata: Notes) -> Self {
        let name = path.file_name().unwrap_or_default();
        Self {
            path: path.to_string_lossy().into_owned(),
            name: name.to_string_lossy().into_owned(),
            kind: "file",
            metadata,
        }
    }
}

impl<'a> Upload<'a> {
    /// Makes the file, or empties the one that is there, and gives it to `user`.
    async fn create(disk: &'a Disk, path: &'a Path, user: &User) -> Result<Self, Failure> {
        let mut options = OpenOptions::new();
        options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o666)
            .custom_flags(libc::O_NONBLOCK);
        disk.writable().await;
        let opened = match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                place::make_parents(path, user)
                    .map_err(|error| failure(&error.path, &error.source))?;
                options.open(path)
            }
            opened => opened,
        };
        let file = opened.map_err(|error| failure(path, &error))?;
        let failed = |error: io::Error| failure(path, &error);
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(not_regular(path));
        }
        place::give(&file, user).map_err(failed)?;
        Ok(Self {
            disk,
            path,
            file,
            waiting: Vec::new(),
        })
    }

    async fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= CHUNK {
            self.write().await
        } else {
            Ok(())
        }
    }

    async fn write(&mut self) -> Result<(), Failure> {
        self.disk.writable().await;
        self.file
            .write_all(&self.waiting)
            .map_err(|error| failure(self.path, &error))?;
        self.waiting.clear();
        Ok(())
    }

    async fn finish(mut self, notes: &Notes) -> Result<(), Failure> {
        if !self.waiting.is_empty() {
            self.write().await?;
        }
        self.disk.writable().await;
        metadata::replace(&self.file, notes).map_err(|error| {
            let shown = self.path.display();
            match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EOPNOTSUPP | Errno::E2BIG | Errno::ERANGE) => {
                    bad(format!("cannot keep metadata on '{shown}': {error}"))
                }
                _ => failure(self.path, &error),
            }
        })
    }
}

/// How a caller is told that a file could not be written.
pub(super) fn failure(path: &Path, error: &io::Error) -> Failure {
    let shown = path.display();
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOSPC | Errno::EDQUOT) => Failure(
            StatusCode::INSUFFICIENT_STORAGE,
            "not enough disk space available".to_owned(),
        ),
        Some(Errno::EISDIR) => bad(format!("path is a directory: {shown}")),
        Some(Errno::ENOTDIR | Errno::EEXIST) => bad(format!("a file is in the way of '{shown}'")),
        Some(Errno::ENXIO) => not_regular(path),
        Some(Errno::ENAMETOOLONG | Errno::EROFS | Errno::ETXTBSY) => {
            bad(format!("cannot write '{shown}': {error}"))
        }
        _ => Failure(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("error writing '{shown}': {error}"),
        ),
    }
}

fn not_regular(path: &Path) -> Failure {
    bad(format!("path '{}' is not a regular file", path.display()))
}

pub(super) fn broken(error: &(dyn std::error::Error + 'static)) -> Failure {
    bad(format!("error reading upload: {}", respond::chain(error)))
}
