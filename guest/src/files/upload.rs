//! `POST /files`: raw bytes for one path, or a form with any number of files.

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
    Failure, Target, bad,
    inflate::{Inflate, InflateError},
    store::{Written, broken, store},
};
use crate::{
    access::Operation,
    agent::Agent,
    disk::Disk,
    metadata::{self, Notes},
    respond::{self, Answer},
};

/// Most files in one form.
const MAX_FILES: usize = 10_000;
/// Most bytes of a form that bring no file on: what stands before, between and around files, and fields that are none.
const MAX_OVERHEAD: usize = 4 << 20;

/// How a body holds its files.
enum Form {
    Raw,
    Multipart(String),
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
    let notes = metadata::of_headers(request.headers()).map_err(|error| bad(error.to_string()))?;
    let compressed = is_gzip(request.headers())?;
    let body = request.into_body().into_data_stream();
    let body = if compressed {
        Either::Left(Inflate::new(body))
    } else {
        Either::Right(body.map(|bytes| bytes.map_err(InflateError::Body)))
    };
    match form {
        Form::Raw => {
            let path = target
                .path
                .as_deref()
                .ok_or_else(|| bad("path is required".to_owned()))?;
            Ok(vec![
                store(agent.disk(), path, &target.user, &notes, body).await?,
            ])
        }
        Form::Multipart(boundary) => {
            let overhead = Arc::default();
            let body = Counted {
                body,
                overhead: Arc::clone(&overhead),
                rested: true,
            };
            let form = Multipart::new(body, boundary);
            receive_form(agent.disk(), &target, &notes, form, &overhead).await
        }
    }
}

async fn receive_form(
    disk: &Disk,
    target: &Target,
    notes: &Notes,
    mut form: Multipart<'_>,
    overhead: &AtomicUsize,
) -> Result<Vec<Written>, Failure> {
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
        let field = field.inspect(|_| overhead.store(0, Ordering::Relaxed));
        written.push(store(disk, &path, &target.user, notes, field).await?);
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
    let kind = text(headers, header::CONTENT_TYPE).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/octet-stream") {
        return Ok(Form::Raw);
    }
    match multer::parse_boundary(kind) {
        Ok(boundary) => Ok(Form::Multipart(boundary)),
        Err(_) => Err(bad(
            "content type is neither application/octet-stream nor multipart/form-data with a boundary".to_owned(),
        )),
    }
}

fn is_gzip(headers: &HeaderMap) -> Result<bool, Failure> {
    match text(headers, header::CONTENT_ENCODING).map(str::trim) {
        None | Some("") => Ok(false),
        Some(name) if name.eq_ignore_ascii_case("identity") => Ok(false),
        Some(name) if name.eq_ignore_ascii_case("gzip") => Ok(true),
        Some(_) => Err(bad(
            "unsupported content encoding, supported: [gzip, identity]".to_owned(),
        )),
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers
        .get(name)
        .map(|value| value.to_str().unwrap_or("not text"))
}

/// The body of a form. The form's parser takes all that is ready and looks for the end of a part's head in it, so this
/// rests after each piece, and bounds what brings no file on.
struct Counted<S> {
    body: S,
    overhead: Arc<AtomicUsize>,
    rested: bool,
}

/// What ended a form.
#[derive(Debug, thiserror::Error)]
enum FormError {
    #[error("the form holds more than {MAX_OVERHEAD} bytes beside its files")]
    Overhead,
    #[error(transparent)]
    Body(InflateError<hyper::Error>),
}

impl<S> Stream for Counted<S>
where
    S: Stream<Item = Result<Bytes, InflateError<hyper::Error>>> + Unpin,
{
    type Item = Result<Bytes, FormError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !std::mem::replace(&mut self.rested, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match ready!(Pin::new(&mut self.body).poll_next(cx)) {
            None => Poll::Ready(None),
            Some(Err(error)) => Poll::Ready(Some(Err(FormError::Body(error)))),
            Some(Ok(bytes)) => {
                self.rested = false;
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
