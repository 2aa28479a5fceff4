//! `GET /files`: a whole file, or a part of it.

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
    CHUNK, Failure, Target, bad,
    condition::{self, Part, Verdict},
    content::{Content, Gzipped, gzip, read_chunk},
    encoding::{self, Encoding},
    kind,
};
use crate::{
    access::Operation,
    agent::Agent,
    respond::{self, Answer},
};

/// A file that was opened, and what is known of it.
struct Opened {
    file: File,
    changed: SystemTime,
    first: Bytes,
    /// In bytes; `None` for one of the kernel's that is longer than a chunk.
    size: Option<u64>,
}

/// Answers `GET /files`.
pub(crate) fn download(agent: &Agent, request: &Request<Incoming>) -> Answer {
    match serve(agent, request) {
        Ok(answer) => answer,
        Err(failure) => failure.into(),
    }
}

fn serve(agent: &Agent, request: &Request<Incoming>) -> Result<Answer, Failure> {
    let target = Target::admit(agent, request, Operation::Read)?;
    let path = target.path.unwrap_or(target.workdir);
    let opened = open(&path)?;
    let headers = request.headers();
    // A part, or a condition, speaks of the file as it is.
    let encoding = encoding::choose(headers, condition::are_there(headers))
        .map_err(|error| Failure(StatusCode::NOT_ACCEPTABLE, error.to_string()))?;
    let about = about(&path, &opened);
    let mut answer = match condition::judge(headers, opened.changed) {
        Verdict::Serve => opened.answer(headers, encoding).map_err(failed(&path))?,
        Verdict::NotModified => empty(StatusCode::NOT_MODIFIED),
        Verdict::Failed => empty(StatusCode::PRECONDITION_FAILED),
    };
    let unsent = matches!(
        answer.status(),
        StatusCode::NOT_MODIFIED | StatusCode::PRECONDITION_FAILED
    );
    for (name, value) in about {
        if !(unsent && name == header::CONTENT_TYPE) {
            answer.headers_mut().insert(name, value);
        }
    }
    if encoding == Encoding::Gzip {
        answer
            .headers_mut()
            .insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(answer)
}

fn open(path: &Path) -> Result<Opened, Failure> {
    // A FIFO must not keep the agent waiting for whoever writes to it.
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(failed(path))?;
    let found = file.metadata().map_err(failed(path))?;
    let kind = found.file_type();
    if kind.is_dir() {
        return Err(bad(format!("path '{}' is a directory", path.display())));
    }
    if !kind.is_file() {
        return Err(bad(format!(
            "path '{}' is not a regular file",
            path.display()
        )));
    }
    let first = read_chunk(&mut file, CHUNK).map_err(failed(path))?;
    Ok(Opened {
        changed: found.modified().unwrap_or(SystemTime::UNIX_EPOCH),
        size: size(&found, &first),
        file,
        first,
    })
}

/// A file of the kernel's says it is empty, or as long as a page, and is not: what was read is believed first.
fn size(found: &Metadata, first: &Bytes) -> Option<u64> {
    if first.len() < CHUNK {
        return u64::try_from(first.len()).ok();
    }
    let chunk = u64::try_from(CHUNK).ok()?;
    Some(found.len()).filter(|size| *size >= chunk)
}

impl Opened {
    fn answer(self, headers: &HeaderMap, encoding: Encoding) -> io::Result<Answer> {
        let small = self.first.len() < CHUNK;
        if encoding == Encoding::Gzip {
            return Ok(if small {
                respond::bytes(gzip(&self.first)?)
            } else {
                let content = Content::whole(self.file, self.first, self.size);
                Response::new(Gzipped::new(content).boxed_unsync())
            });
        }
        let Some(size) = self.size else {
            let content = Content::whole(self.file, self.first, None);
            return Ok(Response::new(content.boxed_unsync()));
        };
        let part = condition::part(headers, self.changed, size);
        let mut answer = match part {
            Part::None => empty(StatusCode::RANGE_NOT_SATISFIABLE),
            Part::Whole if small => respond::bytes(self.first),
            Part::Whole => sized(Content::whole(self.file, self.first, Some(size)), size),
            Part::Bytes { start, len } if small => {
                let at = |offset: u64| usize::try_from(offset).map_err(io::Error::other);
                respond::bytes(self.first.slice(at(start)?..at(start + len)?))
            }
            Part::Bytes { start, len } => sized(Content::part(self.file, start, len)?, len),
        };
        let answered = answer.headers_mut();
        answered.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        let range = match part {
            Part::Whole => None,
            Part::None => Some(format!("bytes */{size}")),
            Part::Bytes { start, len } => Some(format!("bytes {start}-{}/{size}", start + len - 1)),
        };
        if let Some(range) = range {
            let value = HeaderValue::from_str(&range).map_err(io::Error::other)?;
            answered.insert(header::CONTENT_RANGE, value);
            if let Part::Bytes { .. } = part {
                *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
            }
        }
        Ok(answer)
    }
}

/// What is said of the file, whatever of it is sent.
fn about(path: &Path, opened: &Opened) -> Vec<(HeaderName, HeaderValue)> {
    let kind = HeaderValue::from_static(kind::of(path, &opened.first));
    let mut about = vec![
        (header::CONTENT_TYPE, kind),
        (header::VARY, HeaderValue::from_static("Accept-Encoding")),
    ];
    if let Some(disposition) = disposition(path) {
        about.push((header::CONTENT_DISPOSITION, disposition));
    }
    if opened.changed > SystemTime::UNIX_EPOCH
        && let Ok(date) = HeaderValue::from_str(&httpdate::fmt_http_date(opened.changed))
    {
        about.push((header::LAST_MODIFIED, date));
    }
    about
}

/// `inline; filename="..."`, with what a quoted string cannot hold left out.
fn disposition(path: &Path) -> Option<HeaderValue> {
    let name = path.file_name()?.to_string_lossy();
    let name: String = name
        .chars()
        .filter(|c| !c.is_control() && !matches!(c, '"' | '\\'))
        .collect();
    HeaderValue::from_bytes(format!("inline; filename=\"{name}\"").as_bytes()).ok()
}

fn sized(content: Content, size: u64) -> Answer {
    let mut answer = Response::new(content.boxed_unsync());
    answer
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    answer
}

fn empty(status: StatusCode) -> Answer {
    let mut answer = respond::bytes(Bytes::new());
    *answer.status_mut() = status;
    answer
}

fn failed(path: &Path) -> impl Fn(io::Error) -> Failure {
    let shown = path.display().to_string();
    move |error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Failure(
            StatusCode::NOT_FOUND,
            format!("path '{shown}' does not exist"),
        ),
        _ => Failure(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("error reading file '{shown}': {error}"),
        ),
    }
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_name_gives_a_header_or_none(name in "[^/\0]{1,40}") {
            if let Some(value) = disposition(&Path::new("/x").join(name)) {
                prop_assert!(value.as_bytes().ends_with(b"\""));
            }
        }
    }
}
