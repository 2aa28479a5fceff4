//! Parameters that the headers of a call carry.

use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;

use super::{codec::CallKind, error::RpcError, headers};

/// User, deadline and keepalive interval of a call.
#[derive(Debug)]
pub(crate) struct Context {
    /// The user of `Authorization: Basic`.
    pub(crate) user: Option<String>,
    pub(crate) deadline: Option<Instant>,
    pub(super) keepalive: Duration,
}

impl Context {
    pub(super) fn parse(headers: &HeaderMap, kind: CallKind) -> Result<Self, RpcError> {
        headers::check_protocol(headers, kind)?;
        // A timeout beyond the range of the clock is no timeout.
        let deadline =
            headers::timeout(headers)?.and_then(|timeout| Instant::now().checked_add(timeout));
        Ok(Self {
            user: headers::basic_user(headers)?,
            deadline,
            keepalive: headers::keepalive(headers),
        })
    }
}
