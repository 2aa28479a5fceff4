//! Writes an uploaded file.

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

use super::{error::FilesError, file_body::CHUNK_LEN};
use crate::{
    create_dirs,
    disk::Disk,
    file_metadata::{self, FileMetadata},
    user::User,
};

/// The longest time that an upload may send no bytes.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// A written file, as the response describes it.
#[derive(Debug, Serialize)]
pub(super) struct StoredFile {
    path: String,
    name: String,
    #[serde(rename = "type")]
    file_type: &'static str,
    #[serde(skip_serializing_if = "FileMetadata::is_empty")]
    metadata: FileMetadata,
}

/// Writes a file in chunks. Buffers less than a chunk beside the bytes that were received last.
struct FileWriter<'a> {
    disk: &'a Disk,
    path: &'a Path,
    file: File,
    buffer: Vec<u8>,
}

/// Writes `content` to `path`, owned by `user`. A small file takes one `write`.
pub(super) async fn store<S, E>(
    disk: &Disk,
    path: &Path,
    user: &User,
    metadata: &FileMetadata,
    mut content: S,
) -> Result<StoredFile, FilesError>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::error::Error + 'static,
{
    let mut writer = FileWriter::create(disk, path, user).await?;
    while let Some(bytes) = next_chunk(&mut content).await? {
        writer.push(&bytes).await?;
    }
    writer.finish(metadata).await?;
    Ok(StoredFile::new(path, metadata.clone()))
}

async fn next_chunk<S, E>(content: &mut S) -> Result<Option<Bytes>, FilesError>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::error::Error + 'static,
{
    match timeout(IDLE_TIMEOUT, content.next()).await {
        Ok(chunk) => chunk
            .transpose()
            .map_err(|error| FilesError::upload(&error)),
        Err(_) => Err(FilesError::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("no data received for {IDLE_TIMEOUT:?}"),
        )),
    }
}

impl StoredFile {
    pub(super) fn new(path: &Path, metadata: FileMetadata) -> Self {
        let name = path.file_name().unwrap_or_default();
        Self {
            path: path.to_string_lossy().into_owned(),
            name: name.to_string_lossy().into_owned(),
            file_type: "file",
            metadata,
        }
    }
}

impl<'a> FileWriter<'a> {
    /// Creates or truncates the file, and assigns it to `user`.
    async fn create(disk: &'a Disk, path: &'a Path, user: &User) -> Result<Self, FilesError> {
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
                create_dirs::create_parents(path, user)
                    .map_err(|error| FilesError::write(&error.path, &error.source))?;
                options.open(path)
            }
            opened => opened,
        };
        let failed = |error: io::Error| FilesError::write(path, &error);
        let file = opened.map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(FilesError::not_regular(path));
        }
        create_dirs::chown_to(&file, user).map_err(failed)?;
        Ok(Self {
            disk,
            path,
            file,
            buffer: Vec::new(),
        })
    }

    async fn push(&mut self, bytes: &[u8]) -> Result<(), FilesError> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK_LEN {
            self.flush().await
        } else {
            Ok(())
        }
    }

    async fn flush(&mut self) -> Result<(), FilesError> {
        self.disk.writable().await;
        self.file
            .write_all(&self.buffer)
            .map_err(|error| FilesError::write(self.path, &error))?;
        self.buffer.clear();
        Ok(())
    }

    async fn finish(mut self, metadata: &FileMetadata) -> Result<(), FilesError> {
        if !self.buffer.is_empty() {
            self.flush().await?;
        }
        self.disk.writable().await;
        file_metadata::replace(&self.file, metadata).map_err(|error| {
            match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EOPNOTSUPP | Errno::E2BIG | Errno::ERANGE) => {
                    FilesError::bad_request(format!(
                        "cannot store metadata of '{}': {error}",
                        self.path.display()
                    ))
                }
                _ => FilesError::write(self.path, &error),
            }
        })
    }
}
