//! `POST /files/compose`: concatenates files.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use error_chain::chain;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::task::spawn_blocking;

use super::{error::FilesError, store::StoredFile, target::Target};
use crate::{
    create_dirs,
    file_metadata::FileMetadata,
    request_body,
    response::{self, HttpResponse},
    state::AgentState,
    user::User,
};

#[derive(Debug, Deserialize)]
struct ComposeRequest {
    source_paths: Vec<String>,
    destination: String,
    #[serde(default)]
    username: Option<String>,
}

/// Handles `POST /files/compose`.
pub(crate) async fn compose(state: &AgentState, request: Request<Incoming>) -> HttpResponse {
    match try_compose(state, request).await {
        Ok(file) => response::json(StatusCode::OK, &file),
        Err(error) => error.into(),
    }
}

async fn try_compose(
    state: &AgentState,
    request: Request<Incoming>,
) -> Result<StoredFile, FilesError> {
    let body = request_body::read(request.into_body())
        .await
        .map_err(|error| FilesError::bad_request(chain(&error).to_string()))?;
    let request: ComposeRequest = serde_json::from_slice(&body)
        .map_err(|error| FilesError::bad_request(format!("error decoding request: {error}")))?;
    let target = Target::for_user(state, request.username.as_deref().unwrap_or_default())?;
    let destination = target.resolve(&request.destination)?;
    let sources = request
        .source_paths
        .iter()
        .map(|path| target.resolve(path))
        .collect::<Result<Vec<_>, _>>()?;
    if sources.is_empty() {
        return Err(FilesError::bad_request("source_paths is empty"));
    }
    for source in &sources {
        require_regular_file(source)?;
    }
    if fs::metadata(&destination).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(FilesError::not_regular(&destination));
    }
    state.disk().writable().await;
    let file = StoredFile::new(&destination, FileMetadata::new());
    let user = target.user;
    // Copying may take long, and must not block other requests.
    spawn_blocking(move || concatenate(&sources, &destination, &user))
        .await
        .unwrap_or_else(|error| {
            Err(FilesError::internal(format!(
                "error composing files: {error}"
            )))
        })?;
    Ok(file)
}

fn require_regular_file(path: &Path) -> Result<(), FilesError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err(FilesError::not_regular(path)),
        Err(_) => Err(FilesError::not_found(path)),
    }
}

/// Concatenates the sources into a temporary file, renames it to the destination, and removes the sources. A failure to
/// copy leaves the destination unchanged.
fn concatenate(sources: &[PathBuf], destination: &Path, user: &User) -> Result<(), FilesError> {
    create_dirs::create_parents(destination, user)
        .map_err(|error| FilesError::write(&error.path, &error.source))?;
    let mut name = std::ffi::OsString::from(".compose-");
    name.push(destination.file_name().unwrap_or_default());
    let temporary = destination.with_file_name(name);
    let composed =
        copy_all(sources, &temporary, user).and_then(|()| fs::rename(&temporary, destination));
    if let Err(error) = composed {
        // The error of the copy is the one to report.
        let _removed = fs::remove_file(&temporary);
        return Err(FilesError::write(destination, &error));
    }
    for source in sources.iter().filter(|source| *source != destination) {
        match fs::remove_file(source) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(FilesError::write(source, &error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn copy_all(sources: &[PathBuf], path: &Path, user: &User) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o666)
        .open(path)?;
    create_dirs::chown_to(&file, user)?;
    for source in sources {
        io::copy(&mut File::open(source)?, &mut file)?;
    }
    Ok(())
}
