//! `GET /files`: downloads a file or a range of it.

use std::{
    fs::{File, Metadata, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::SystemTime,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use nix::libc;

use super::{
    content_type,
    encoding::{self, Encoding, Offer},
    error::FilesError,
    file_body::{CHUNK_LEN, FileBody, GzipBody, gzip, read_chunk},
    preconditions::{self, ByteRange, Precondition},
    target::Target,
};
use crate::{
    access::Operation,
    response::{self, HttpResponse},
    state::AgentState,
};

/// An open file with its first chunk.
struct OpenFile {
    file: File,
    modified: SystemTime,
    first_chunk: Bytes,
    /// The size in bytes; `None` for a virtual file longer than a chunk.
    size: Option<u64>,
}

/// Handles `GET /files`.
pub(crate) fn download(state: &AgentState, request: &Request<Incoming>) -> HttpResponse {
    match respond(state, request) {
        Ok(response) => response,
        Err(error) => error.into(),
    }
}

fn respond(state: &AgentState, request: &Request<Incoming>) -> Result<HttpResponse, FilesError> {
    let target = Target::authorize(state, request, Operation::Read)?;
    let path = target.path.unwrap_or(target.workdir);
    let open_file = open(&path)?;
    let headers = request.headers();
    // Ranges and conditions refer to the unencoded file.
    let offer = if preconditions::is_conditional(headers) {
        Offer::IdentityOnly
    } else {
        Offer::GzipAndIdentity
    };
    let encoding = encoding::negotiate(headers, offer)
        .map_err(|error| FilesError::new(StatusCode::NOT_ACCEPTABLE, error.to_string()))?;
    let file_headers = file_headers(&path, &open_file);
    let mut response = match preconditions::evaluate(headers, open_file.modified) {
        Precondition::Passed => open_file
            .into_response(headers, encoding)
            .map_err(|error| FilesError::read(&path, &error))?,
        Precondition::NotModified => empty(StatusCode::NOT_MODIFIED),
        Precondition::Failed => empty(StatusCode::PRECONDITION_FAILED),
    };
    let without_content = matches!(
        response.status(),
        StatusCode::NOT_MODIFIED | StatusCode::PRECONDITION_FAILED
    );
    for (name, value) in file_headers {
        if !(without_content && name == header::CONTENT_TYPE) {
            response.headers_mut().insert(name, value);
        }
    }
    if encoding == Encoding::Gzip {
        response
            .headers_mut()
            .insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

fn open(path: &Path) -> Result<OpenFile, FilesError> {
    let failed = |error: io::Error| FilesError::read(path, &error);
    // O_NONBLOCK: opening a FIFO must not block until it has a writer.
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        let message = format!("path '{}' is a directory", path.display());
        return Err(FilesError::bad_request(message));
    }
    if !metadata.is_file() {
        return Err(FilesError::not_regular(path));
    }
    let first_chunk = read_chunk(&mut file, CHUNK_LEN).map_err(failed)?;
    Ok(OpenFile {
        modified: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
        size: size(&metadata, &first_chunk),
        file,
        first_chunk,
    })
}

/// The size of a file. Virtual files report a size of zero or of a page, so a short first chunk has precedence.
fn size(metadata: &Metadata, first_chunk: &Bytes) -> Option<u64> {
    if first_chunk.len() < CHUNK_LEN {
        return u64::try_from(first_chunk.len()).ok();
    }
    let chunk = u64::try_from(CHUNK_LEN).ok()?;
    Some(metadata.len()).filter(|size| *size >= chunk)
}

impl OpenFile {
    fn into_response(self, headers: &HeaderMap, encoding: Encoding) -> io::Result<HttpResponse> {
        let is_small = self.first_chunk.len() < CHUNK_LEN;
        if encoding == Encoding::Gzip {
            return Ok(if is_small {
                response::bytes(gzip(&self.first_chunk)?)
            } else {
                let body = FileBody::full(self.file, self.first_chunk, self.size);
                Response::new(GzipBody::new(body).boxed_unsync())
            });
        }
        let Some(size) = self.size else {
            let body = FileBody::full(self.file, self.first_chunk, None);
            return Ok(Response::new(body.boxed_unsync()));
        };
        let range = preconditions::requested_range(headers, self.modified, size);
        let mut response = match range {
            ByteRange::Unsatisfiable => empty(StatusCode::RANGE_NOT_SATISFIABLE),
            ByteRange::Full if is_small => response::bytes(self.first_chunk),
            ByteRange::Full => sized(
                FileBody::full(self.file, self.first_chunk, Some(size)),
                size,
            ),
            ByteRange::Partial { start, len } if is_small => {
                let index = |offset: u64| usize::try_from(offset).map_err(io::Error::other);
                response::bytes(self.first_chunk.slice(index(start)?..index(start + len)?))
            }
            ByteRange::Partial { start, len } => {
                sized(FileBody::range(self.file, start, len)?, len)
            }
        };
        let response_headers = response.headers_mut();
        response_headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        let content_range = match range {
            ByteRange::Full => None,
            ByteRange::Unsatisfiable => Some(format!("bytes */{size}")),
            ByteRange::Partial { start, len } => {
                Some(format!("bytes {start}-{}/{size}", start + len - 1))
            }
        };
        if let Some(content_range) = content_range {
            let value = HeaderValue::from_str(&content_range).map_err(io::Error::other)?;
            response_headers.insert(header::CONTENT_RANGE, value);
            if let ByteRange::Partial { .. } = range {
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            }
        }
        Ok(response)
    }
}

/// Headers that describe the file, for every status.
fn file_headers(path: &Path, open_file: &OpenFile) -> Vec<(HeaderName, HeaderValue)> {
    let content_type = HeaderValue::from_static(content_type::detect(path, &open_file.first_chunk));
    let mut headers = vec![
        (header::CONTENT_TYPE, content_type),
        (header::VARY, HeaderValue::from_static("Accept-Encoding")),
    ];
    if let Some(disposition) = content_disposition(path) {
        headers.push((header::CONTENT_DISPOSITION, disposition));
    }
    if open_file.modified > SystemTime::UNIX_EPOCH
        && let Ok(date) = HeaderValue::from_str(&httpdate::fmt_http_date(open_file.modified))
    {
        headers.push((header::LAST_MODIFIED, date));
    }
    headers
}

/// Builds `inline; filename="..."`, without the characters that a quoted string cannot contain.
fn content_disposition(path: &Path) -> Option<HeaderValue> {
    let name = path.file_name()?.to_string_lossy();
    let name: String = name
        .chars()
        .filter(|c| !c.is_control() && !matches!(c, '"' | '\\'))
        .collect();
    HeaderValue::from_bytes(format!("inline; filename=\"{name}\"").as_bytes()).ok()
}

fn sized(body: FileBody, size: u64) -> HttpResponse {
    let mut response = Response::new(body.boxed_unsync());
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    response
}

fn empty(status: StatusCode) -> HttpResponse {
    let mut response = response::bytes(Bytes::new());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_names_do_not_break_content_disposition(name in "[^/\0]{1,40}") {
            if let Some(value) = content_disposition(&Path::new("/x").join(name)) {
                prop_assert!(value.as_bytes().ends_with(b"\""));
            }
        }
    }
}
