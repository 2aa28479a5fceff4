//! The user and the path that a request of `/files` names.

use std::path::{Path, PathBuf};

use error_chain::chain;
use http::{Request, StatusCode};
use hyper::body::Incoming;

use super::error::FilesError;
use crate::{
    access::{self, Operation, SignedQuery},
    path,
    state::AgentState,
    user::{User, UserError},
};

/// The target of a request.
pub(super) struct Target {
    pub(super) user: User,
    /// `None` if the query has no path.
    pub(super) path: Option<PathBuf>,
    pub(super) workdir: PathBuf,
}

impl Target {
    /// Checks that the caller may perform `operation`, and resolves the target.
    pub(super) fn authorize(
        state: &AgentState,
        request: &Request<Incoming>,
        operation: Operation,
    ) -> Result<Self, FilesError> {
        let query = parse_query(request.uri().query().unwrap_or_default());
        let token = &state.guest_config().token;
        access::check_files(
            token,
            request.headers(),
            &query,
            operation,
            state.unix_seconds(),
        )
        .map_err(|denied| FilesError::new(StatusCode::UNAUTHORIZED, denied.to_string()))?;
        let mut target = Self::for_user(state, &query.username)?;
        if !query.path.is_empty() {
            target.path = Some(target.resolve(&query.path)?);
        }
        Ok(target)
    }

    /// Creates a target without a path, for a user or the default user.
    pub(super) fn for_user(state: &AgentState, username: &str) -> Result<Self, FilesError> {
        let user = state.user(Some(username)).map_err(|error| match &error {
            UserError::Unknown(name) => FilesError::new(
                StatusCode::UNAUTHORIZED,
                format!("error looking up user '{name}': {error}"),
            ),
            UserError::Read(_) => FilesError::internal(chain(&error).to_string()),
        })?;
        let workdir = state.workdir(&user);
        Ok(Self {
            user,
            path: None,
            workdir,
        })
    }

    /// Resolves a path of the caller.
    pub(super) fn resolve(&self, path: &str) -> Result<PathBuf, FilesError> {
        path::resolve(Path::new(path), &self.user.home, &self.workdir)
            .map_err(|error| FilesError::bad_request(error.to_string()))
    }
}

/// Parses the query. Of a repeated parameter the first value counts.
pub(super) fn parse_query(query: &str) -> SignedQuery {
    let mut signed = SignedQuery::default();
    let (mut path, mut username) = (None, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let parameter = match &*name {
            "path" => &mut path,
            "username" => &mut username,
            "signature" => &mut signed.signature,
            "signature_expiration" => &mut signed.expiration,
            _ => continue,
        };
        parameter.get_or_insert_with(|| value.into_owned());
    }
    signed.path = path.unwrap_or_default();
    signed.username = username.unwrap_or_default();
    signed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn query_is_decoded_and_first_values_count() {
        let query =
            parse_query("path=a%20b%2Bc&username=user&signature=v1_x%2B%2F&path=second&other=1");
        assert_eq!(query.path, "a b+c");
        assert_eq!(query.username, "user");
        assert_eq!(query.signature.as_deref(), Some("v1_x+/"));
        assert_eq!(query.expiration, None);
    }

    proptest! {
        #[test]
        fn arbitrary_queries_do_not_panic(query: String) {
            let _query = parse_query(&query);
        }
    }
}
