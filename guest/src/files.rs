//! `/files`: whole files in and out.
//!
//! The agent reads and writes as root, as E2B's does; whoever holds the token owns the guest. A path is absolute, begins
//! with `~`, or lies in the working directory.

mod compose;
mod condition;
mod content;
mod download;
mod encoding;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod inflate;
mod kind;
mod store;
mod upload;

use std::path::{Path, PathBuf};

use http::{Request, StatusCode};
use hyper::body::Incoming;

pub(crate) use self::{compose::compose, download::download, upload::upload};
use crate::{
    access::{self, Operation, Signed},
    agent::Agent,
    path,
    respond::{self, Answer},
    user::{User, UserError},
};

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
        let mut target = Self::of(agent, &signed.username)?;
        if !signed.path.is_empty() {
            target.path = Some(target.resolve(&signed.path)?);
        }
        Ok(target)
    }

    /// A target without a path, for a user or the default one.
    fn of(agent: &Agent, username: &str) -> Result<Self, Failure> {
        let user = agent.user(Some(username)).map_err(|error| match &error {
            UserError::Unknown(name) => Failure(
                StatusCode::UNAUTHORIZED,
                format!("error looking up user '{name}': {error}"),
            ),
            UserError::Read(_) => {
                Failure(StatusCode::INTERNAL_SERVER_ERROR, respond::chain(&error))
            }
        })?;
        let workdir = agent.workdir(&user);
        Ok(Self {
            user,
            path: None,
            workdir,
        })
    }

    fn resolve(&self, path: &str) -> Result<PathBuf, Failure> {
        path::resolve(Path::new(path), &self.user.home, &self.workdir)
            .map_err(|error| bad(error.to_string()))
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

impl From<Failure> for Answer {
    fn from(Failure(status, message): Failure) -> Self {
        respond::error(status, &message)
    }
}

fn bad(message: String) -> Failure {
    Failure(StatusCode::BAD_REQUEST, message)
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
    }
}
