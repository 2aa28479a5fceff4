//! `GET|POST /files`: whole files in and out.
//!
//! The agent reads and writes as root, as E2B's does; whoever holds the token owns the guest. A path is absolute, begins
//! with `~`, or lies in the working directory.

mod upload;

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming};
use nix::libc;

use crate::{
    access::{self, Operation, Signed},
    agent::Agent,
    path,
    respond::{self, Answer},
    user::{User, UserError},
};

pub(crate) use self::upload::upload;

/// Bytes that are read or written at once.
const CHUNK: usize = 64 * 1024;

/// What a call of `/files` names.
struct Target {
    user: User,
    /// `None` when the query has no path.
    path: Option<PathBuf>,
    workdir: PathBuf,
}

/// A call of `/files` that failed, as its caller is told.
#[derive(Debug)]
struct Failure(StatusCode, String);

/// Answers `GET /files`.
pub(crate) fn download(agent: &Agent, request: &Request<Incoming>) -> Answer {
    match open(agent, request) {
        Ok(answer) => answer,
        Err(failure) => failure.into(),
    }
}

fn open(agent: &Agent, request: &Request<Incoming>) -> Result<Answer, Failure> {
    let target = Target::admit(agent, request, Operation::Read)?;
    let path = target.path.unwrap_or(target.workdir);
    let failed = |error: io::Error| read_failure(&path, &error);
    // A FIFO must not keep the agent waiting for whoever writes to it.
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&path)
        .map_err(failed)?;
    let kind = file.metadata().map_err(failed)?.file_type();
    if kind.is_dir() {
        return Err(Failure(
            StatusCode::BAD_REQUEST,
            format!("path '{}' is a directory", path.display()),
        ));
    }
    if !kind.is_file() {
        return Err(Failure(
            StatusCode::BAD_REQUEST,
            format!("path '{}' is not a regular file", path.display()),
        ));
    }
    // A file of the kernel's says it is empty and is not, so its size is not asked for.
    let first = read_chunk(&mut file).map_err(failed)?;
    let mut answer = if first.len() < CHUNK {
        respond::bytes(first)
    } else {
        Response::new(
            FileBody {
                first: Some(first),
                file,
            }
            .boxed_unsync(),
        )
    };
    let headers = answer.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if let Some(disposition) = disposition(&path) {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    Ok(answer)
}

fn read_failure(path: &Path, error: &io::Error) -> Failure {
    let shown = path.display();
    match error.kind() {
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

/// A whole chunk, or less at the end of the file.
fn read_chunk(file: &mut File) -> io::Result<Bytes> {
    let mut chunk = Vec::with_capacity(CHUNK);
    let limit = u64::try_from(CHUNK).map_err(io::Error::other)?;
    file.take(limit).read_to_end(&mut chunk)?;
    Ok(chunk.into())
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

/// A file longer than a chunk, read as fast as the caller takes it.
struct FileBody {
    first: Option<Bytes>,
    file: File,
}

impl HttpBody for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        Poll::Ready(match read_chunk(&mut self.file) {
            Ok(chunk) if chunk.is_empty() => None,
            Ok(chunk) => Some(Ok(Frame::data(chunk))),
            Err(error) => Some(Err(error)),
        })
    }
}

// === impl Target ===

impl Target {
    /// Checks that the caller may, and finds out what it names.
    fn admit(
        agent: &Agent,
        request: &Request<Incoming>,
        operation: Operation,
    ) -> Result<Self, Failure> {
        let signed = parse_query(request.uri().query().unwrap_or_default());
        let token = &agent.told().token;
        access::check_files(
            token,
            request.headers(),
            &signed,
            operation,
            agent.unix_seconds(),
        )
        .map_err(|denied| Failure(StatusCode::UNAUTHORIZED, denied.to_string()))?;
        let named = Some(signed.username.as_str());
        let user = agent.user(named).map_err(|error| match &error {
            UserError::Unknown(name) => Failure(
                StatusCode::UNAUTHORIZED,
                format!("error looking up user '{name}': {error}"),
            ),
            UserError::Read(_) => {
                Failure(StatusCode::INTERNAL_SERVER_ERROR, respond::chain(&error))
            }
        })?;
        let workdir = agent.workdir(&user);
        let path = match signed.path.as_str() {
            "" => None,
            path => Some(resolve(path, &user, &workdir)?),
        };
        Ok(Self {
            user,
            path,
            workdir,
        })
    }

    fn resolve(&self, path: &str) -> Result<PathBuf, Failure> {
        resolve(path, &self.user, &self.workdir)
    }
}

/// The query's parts that matter; of one that comes twice the first counts.
fn parse_query(query: &str) -> Signed {
    let mut signed = Signed::default();
    let (mut path, mut username) = (None, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let place = match &*name {
            "path" => &mut path,
            "username" => &mut username,
            "signature" => &mut signed.signature,
            "signature_expiration" => &mut signed.expiration,
            _ => continue,
        };
        place.get_or_insert_with(|| value.into_owned());
    }
    signed.path = path.unwrap_or_default();
    signed.username = username.unwrap_or_default();
    signed
}

fn resolve(path: &str, user: &User, workdir: &Path) -> Result<PathBuf, Failure> {
    path::resolve(Path::new(path), &user.home, workdir)
        .map_err(|error| Failure(StatusCode::BAD_REQUEST, error.to_string()))
}

impl From<Failure> for Answer {
    fn from(Failure(status, message): Failure) -> Self {
        respond::error(status, &message)
    }
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_query_is_taken_apart_as_it_was_signed() {
        let signed =
            parse_query("path=a%20b%2Bc&username=user&signature=v1_x%2B%2F&path=second&other=1");
        assert_eq!(signed.path, "a b+c");
        assert_eq!(signed.username, "user");
        assert_eq!(signed.signature.as_deref(), Some("v1_x+/"));
        assert_eq!(signed.expiration, None);
    }

    proptest! {
        #[test]
        fn any_query_is_read(query: String) {
            let _signed = parse_query(&query);
        }

        #[test]
        fn any_name_gives_a_header_or_none(name in "[^/\0]{1,40}") {
            if let Some(value) = disposition(&Path::new("/x").join(name)) {
                prop_assert!(value.as_bytes().ends_with(b"\""));
            }
        }
    }
}
