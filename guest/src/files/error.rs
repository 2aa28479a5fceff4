//! Errors of the `/files` endpoints.

use std::{io, path::Path};

use error_chain::chain;
use http::StatusCode;
use nix::errno::Errno;

use crate::response::{self, HttpResponse};

/// A failed request, with the status and the message of its response.
#[derive(Debug)]
pub(super) struct FilesError {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

impl FilesError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    pub(super) fn not_found(path: &Path) -> Self {
        let message = format!("path '{}' does not exist", path.display());
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(super) fn not_regular(path: &Path) -> Self {
        Self::bad_request(format!("path '{}' is not a regular file", path.display()))
    }

    /// Converts an error reading the request body.
    pub(super) fn upload(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::bad_request(format!("error reading upload: {}", chain(error)))
    }

    /// Converts an error reading `path`.
    pub(super) fn read(path: &Path, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::not_found(path),
            _ => Self::internal(format!("error reading file '{}': {error}", path.display())),
        }
    }

    /// Converts an error writing `path`.
    pub(super) fn write(path: &Path, error: &io::Error) -> Self {
        let shown = path.display();
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOSPC | Errno::EDQUOT) => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "not enough disk space available",
            ),
            Some(Errno::EISDIR) => Self::bad_request(format!("path is a directory: {shown}")),
            Some(Errno::ENOTDIR | Errno::EEXIST) => {
                Self::bad_request(format!("a parent of '{shown}' is not a directory"))
            }
            Some(Errno::ENXIO) => Self::not_regular(path),
            Some(Errno::ENAMETOOLONG | Errno::EROFS | Errno::ETXTBSY) => {
                Self::bad_request(format!("cannot write '{shown}': {error}"))
            }
            _ => Self::internal(format!("error writing '{shown}': {error}")),
        }
    }
}

impl From<FilesError> for HttpResponse {
    fn from(error: FilesError) -> Self {
        response::error(error.status, &error.message)
    }
}
