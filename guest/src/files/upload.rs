//! `POST /files`: uploads one file as raw bytes, or any number of files as a form.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::{Stream, StreamExt, future::Either};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use multer::Multipart;

use super::{
    encoding::Encoding,
    error::FilesError,
    gunzip::{Gunzip, GunzipError},
    store::{StoredFile, store},
    target::Target,
};
use crate::{
    access::Operation,
    disk::Disk,
    file_metadata::{self, FileMetadata},
    response::{self, HttpResponse},
    state::AgentState,
};

/// The most files of one form.
const MAX_FILES: usize = 10_000;
/// The most bytes of a form between two files: boundaries, part headers and parts that are not files.
const MAX_OVERHEAD: usize = 4 << 20;

/// The format of a request body.
enum BodyFormat {
    Raw,
    Multipart { boundary: String },
}

/// Handles `POST /files`.
pub(crate) async fn upload(state: &AgentState, request: Request<Incoming>) -> HttpResponse {
    match receive(state, request).await {
        Ok(files) => {
            let mut response = response::json(StatusCode::OK, &files);
            // E2B's agent labels this JSON as text.
            let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, content_type);
            response
        }
        Err(error) => error.into(),
    }
}

async fn receive(
    state: &AgentState,
    request: Request<Incoming>,
) -> Result<Vec<StoredFile>, FilesError> {
    let target = Target::authorize(state, &request, Operation::Write)?;
    let format = body_format(request.headers())?;
    let metadata = file_metadata::parse_headers(request.headers())
        .map_err(|error| FilesError::bad_request(error.to_string()))?;
    let encoding = content_encoding(request.headers())?;
    let body = request.into_body().into_data_stream();
    let body = match encoding {
        Encoding::Gzip => Either::Left(Gunzip::new(body)),
        Encoding::Identity => Either::Right(body.map(|bytes| bytes.map_err(GunzipError::Body))),
    };
    match format {
        BodyFormat::Raw => {
            let path = target
                .path
                .as_deref()
                .ok_or_else(|| FilesError::bad_request("path is required"))?;
            let file = store(state.disk(), path, &target.user, &metadata, body).await?;
            Ok(vec![file])
        }
        BodyFormat::Multipart { boundary } => {
            let overhead = Arc::default();
            let body = OverheadLimit {
                body,
                overhead: Arc::clone(&overhead),
                yielded: true,
            };
            let form = Multipart::new(body, boundary);
            receive_form(state.disk(), &target, &metadata, form, &overhead).await
        }
    }
}

async fn receive_form(
    disk: &Disk,
    target: &Target,
    metadata: &FileMetadata,
    mut form: Multipart<'_>,
    overhead: &AtomicUsize,
) -> Result<Vec<StoredFile>, FilesError> {
    let mut paths = BTreeSet::new();
    let mut files = Vec::new();
    while let Some(part) = form
        .next_field()
        .await
        .map_err(|error| FilesError::upload(&error))?
    {
        if part.name() != Some("file") {
            continue;
        }
        let path = part_path(target, part.file_name())?;
        if !paths.insert(path.clone()) {
            return Err(FilesError::bad_request(format!(
                "you cannot upload multiple files to the same path '{}' in one upload request, only the first specified \
                 file was uploaded",
                path.display()
            )));
        }
        if paths.len() > MAX_FILES {
            return Err(FilesError::bad_request(format!(
                "more than {MAX_FILES} files in one upload request"
            )));
        }
        let content = part.inspect(|_| overhead.store(0, Ordering::Relaxed));
        files.push(store(disk, &path, &target.user, metadata, content).await?);
    }
    Ok(files)
}

/// The destination of a part: the query's path, or else the part's file name with its directories.
fn part_path(target: &Target, name: Option<&str>) -> Result<PathBuf, FilesError> {
    match (&target.path, name) {
        (Some(path), _) => Ok(path.clone()),
        (None, Some(name)) if !name.is_empty() => target.resolve(name),
        (None, _) => Err(FilesError::bad_request(
            "neither the query nor the part names a path",
        )),
    }
}

fn body_format(headers: &HeaderMap) -> Result<BodyFormat, FilesError> {
    let content_type = text(headers, header::CONTENT_TYPE).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/octet-stream") {
        return Ok(BodyFormat::Raw);
    }
    match multer::parse_boundary(content_type) {
        Ok(boundary) => Ok(BodyFormat::Multipart { boundary }),
        Err(_) => Err(FilesError::bad_request(
            "content type is neither application/octet-stream nor multipart/form-data with a boundary",
        )),
    }
}

fn content_encoding(headers: &HeaderMap) -> Result<Encoding, FilesError> {
    match text(headers, header::CONTENT_ENCODING).map(str::trim) {
        None | Some("") => Ok(Encoding::Identity),
        Some(name) if name.eq_ignore_ascii_case("identity") => Ok(Encoding::Identity),
        Some(name) if name.eq_ignore_ascii_case("gzip") => Ok(Encoding::Gzip),
        Some(_) => Err(FilesError::bad_request(
            "unsupported content encoding, supported: [gzip, identity]",
        )),
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers
        .get(name)
        .map(|value| value.to_str().unwrap_or("not text"))
}

/// Limits the bytes of a form between two files. The form's parser consumes everything that is ready and scans all of it
/// for the end of a part's headers, so this yields after each chunk.
struct OverheadLimit<S> {
    body: S,
    overhead: Arc<AtomicUsize>,
    yielded: bool,
}

/// An error reading the body of a form.
#[derive(Debug, thiserror::Error)]
enum FormError {
    #[error("the form holds more than {MAX_OVERHEAD} bytes beside its files")]
    Overhead,
    #[error(transparent)]
    Body(GunzipError<hyper::Error>),
}

impl<S> Stream for OverheadLimit<S>
where
    S: Stream<Item = Result<Bytes, GunzipError<hyper::Error>>> + Unpin,
{
    type Item = Result<Bytes, FormError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !std::mem::replace(&mut self.yielded, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match ready!(Pin::new(&mut self.body).poll_next(cx)) {
            None => Poll::Ready(None),
            Some(Err(error)) => Poll::Ready(Some(Err(FormError::Body(error)))),
            Some(Ok(bytes)) => {
                self.yielded = false;
                let before = self.overhead.fetch_add(bytes.len(), Ordering::Relaxed);
                Poll::Ready(Some(if before.saturating_add(bytes.len()) > MAX_OVERHEAD {
                    Err(FormError::Overhead)
                } else {
                    Ok(bytes)
                }))
            }
        }
    }
}

#[cfg(test)]
mod tests;
