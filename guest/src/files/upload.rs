//! `POST /files`: raw bytes for one path, or a form with any number of files.

use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use multer::Multipart;
use nix::{errno::Errno, libc};
use serde::Serialize;

use super::{CHUNK, Failure, Target};
use crate::{
    access::Operation,
    agent::Agent,
    place,
    respond::{self, Answer},
    user::User,
};

/// Most files in one form.
const MAX_FILES: usize = 10_000;

/// What the caller is told of each file.
#[derive(Debug, Serialize)]
struct Written {
    path: String,
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
}

/// How a body holds its files.
enum Form {
    Raw,
    Multipart(String),
}

/// A file that is being written.
struct Upload<'a> {
    path: &'a Path,
    file: File,
    waiting: Vec<u8>,
}

/// Answers `POST /files`.
pub(crate) async fn upload(agent: &Agent, request: Request<Incoming>) -> Answer {
    match receive(agent, request).await {
        Ok(written) => {
            let mut answer = respond::json(StatusCode::OK, &written);
            // What E2B's agent sends.
            let kind = HeaderValue::from_static("text/plain; charset=utf-8");
            answer.headers_mut().insert(header::CONTENT_TYPE, kind);
            answer
        }
        Err(failure) => failure.into(),
    }
}

async fn receive(agent: &Agent, request: Request<Incoming>) -> Result<Vec<Written>, Failure> {
    let target = Target::admit(agent, &request, Operation::Write)?;
    let form = form(request.headers())?;
    let body = request.into_body().into_data_stream();
    match form {
        Form::Raw => {
            let path = target
                .path
                .as_deref()
                .ok_or_else(|| bad("path is required".to_owned()))?;
            Ok(vec![store(path, &target.user, body).await?])
        }
        Form::Multipart(boundary) => receive_form(&target, Multipart::new(body, boundary)).await,
    }
}

async fn receive_form(target: &Target, mut form: Multipart<'_>) -> Result<Vec<Written>, Failure> {
    let mut seen = BTreeSet::new();
    let mut written = Vec::new();
    while let Some(field) = form.next_field().await.map_err(|error| broken(&error))? {
        if field.name() != Some("file") {
            continue;
        }
        let path = part_path(target, field.file_name())?;
        if !seen.insert(path.clone()) {
            return Err(bad(format!(
                "you cannot upload multiple files to the same path '{}' in one upload request, only the first specified \
                 file was uploaded",
                path.display()
            )));
        }
        if seen.len() > MAX_FILES {
            return Err(bad(format!(
                "more than {MAX_FILES} files in one upload request"
            )));
        }
        written.push(store(&path, &target.user, field).await?);
    }
    Ok(written)
}

/// The query's path wins over the part's name, which keeps its directories.
fn part_path(target: &Target, name: Option<&str>) -> Result<PathBuf, Failure> {
    match (&target.path, name) {
        (Some(path), _) => Ok(path.clone()),
        (None, Some(name)) if !name.is_empty() => target.resolve(name),
        (None, _) => Err(bad("neither the query nor the part names a path".to_owned())),
    }
}

fn form(headers: &HeaderMap) -> Result<Form, Failure> {
    let text = |name| {
        headers
            .get(name)
            .map(|value: &HeaderValue| value.to_str().unwrap_or_default())
    };
    if !matches!(text(header::CONTENT_ENCODING), None | Some("" | "identity")) {
        return Err(bad("content encoding is not supported".to_owned()));
    }
    let kind = text(header::CONTENT_TYPE).unwrap_or_default();
    if kind.starts_with("application/octet-stream") {
        return Ok(Form::Raw);
    }
    match multer::parse_boundary(kind) {
        Ok(boundary) => Ok(Form::Multipart(boundary)),
        Err(_) => Err(bad(
            "content type is neither application/octet-stream nor multipart/form-data with a boundary".to_owned(),
        )),
    }
}

/// Writes one file. A small one is written by one system call.
async fn store<S, E>(path: &Path, user: &User, mut content: S) -> Result<Written, Failure>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::error::Error + 'static,
{
    let mut upload = Upload::create(path, user)?;
    while let Some(bytes) = content.next().await {
        upload.take(&bytes.map_err(|error| broken(&error))?)?;
    }
    upload.finish()?;
    Ok(Written {
        path: path.to_string_lossy().into_owned(),
        name: path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        kind: "file",
    })
}

impl<'a> Upload<'a> {
    /// Makes the file, or empties the one that is there, and gives it to `user`.
    fn create(path: &'a Path, user: &User) -> Result<Self, Failure> {
        let mut options = OpenOptions::new();
        options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o666)
            .custom_flags(libc::O_NONBLOCK);
        let opened = match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                place::make_parents(path, user)
                    .map_err(|error| write_failure(&error.path, &error.source))?;
                options.open(path)
            }
            opened => opened,
        };
        let file = opened.map_err(|error| write_failure(path, &error))?;
        let failed = |error: io::Error| write_failure(path, &error);
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(bad(format!(
                "path '{}' is not a regular file",
                path.display()
            )));
        }
        place::give(&file, user).map_err(failed)?;
        Ok(Self {
            path,
            file,
            waiting: Vec::new(),
        })
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= CHUNK {
            self.write()
        } else {
            Ok(())
        }
    }

    fn write(&mut self) -> Result<(), Failure> {
        self.file
            .write_all(&self.waiting)
            .map_err(|error| write_failure(self.path, &error))?;
        self.waiting.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<(), Failure> {
        if self.waiting.is_empty() {
            Ok(())
        } else {
            self.write()
        }
    }
}

fn write_failure(path: &Path, error: &io::Error) -> Failure {
    let shown = path.display();
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOSPC | Errno::EDQUOT) => Failure(
            StatusCode::INSUFFICIENT_STORAGE,
            "not enough disk space available".to_owned(),
        ),
        Some(Errno::EISDIR) => bad(format!("path is a directory: {shown}")),
        Some(Errno::ENOTDIR | Errno::EEXIST) => bad(format!("a file is in the way of '{shown}'")),
        Some(Errno::ENXIO) => bad(format!("path '{shown}' is not a regular file")),
        _ => Failure(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("error writing '{shown}': {error}"),
        ),
    }
}

fn bad(message: String) -> Failure {
    Failure(StatusCode::BAD_REQUEST, message)
}

fn broken(error: &(dyn std::error::Error + 'static)) -> Failure {
    bad(format!("error reading upload: {}", respond::chain(error)))
}

#[cfg(test)]
mod tests;
