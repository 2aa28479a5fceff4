//! Step 3 of a request: checks its tokens and its path, and decides whether it may wake the sandbox.
//!
//! Only [`check`] creates a [`Permit`], and a request is admitted only with a permit. No sandbox wakes before the tokens
//! of the request are checked. Tokens are compared in constant time.

use coordinator::Access;
use guest_api::envd;
use http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode;
use pool_api::{IfPaused, SandboxId, Secret};
use subtle::ConstantTimeEq;

use crate::target::{GuestPath, Target};

/// Headers that carry the traffic token, in order of precedence. They are removed from the request to the guest.
pub(crate) const TRAFFIC_TOKENS: [HeaderName; 2] = [
    HeaderName::from_static("e2b-traffic-access-token"),
    HeaderName::from_static("cube-traffic-access-token"),
];
const ENVD_TOKEN: HeaderName = HeaderName::from_static("x-access-token");

/// Proof that the tokens of a request were checked.
#[derive(Debug)]
#[must_use]
pub(crate) struct Permit {
    sandbox: SandboxId,
    if_paused: IfPaused,
    paused_response: PausedResponse,
}

/// The response to a request that must not wake its paused sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PausedResponse {
    /// Requests never wake this sandbox: it counts as not found.
    NotFound,
    /// Requests wake this sandbox, but the token of this request is missing or invalid.
    Forbidden,
}

/// A request whose tokens or path are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// The traffic token is missing.
    TrafficTokenMissing,
    /// The traffic token is invalid.
    TrafficTokenInvalid,
    /// The agent's token is missing or invalid.
    AgentToken,
    /// Only the host may call this path of the guest agent.
    HostOnlyPath,
}

impl Permit {
    /// Returns the sandbox that the request may enter.
    pub(crate) fn sandbox(&self) -> &SandboxId {
        &self.sandbox
    }

    /// Returns whether entering wakes a paused sandbox.
    pub(crate) fn if_paused(&self) -> IfPaused {
        self.if_paused
    }

    /// Returns how to respond if the sandbox is paused and does not wake.
    pub(crate) fn paused_response(&self) -> PausedResponse {
        self.paused_response
    }
}

/// Checks the tokens and the path of a request.
pub(crate) fn check(
    target: &Target,
    access: &Access,
    headers: &HeaderMap,
) -> Result<Permit, Denied> {
    let sandbox = &target.address.sandbox;
    if target.address.port.get() == envd::AGENT_PORT {
        if is_host_only(&target.guest_path) {
            return Err(Denied::HostOnlyPath);
        }
        // The agent checks its token as well, but a request without it neither wakes the sandbox nor keeps it running.
        let token = access.envd_token.as_ref();
        let if_paused = match token.map(|token| matches(headers, &ENVD_TOKEN, token)) {
            None | Some(Some(true)) => IfPaused::Wake,
            Some(None | Some(false))
                if envd::PATHS_WITHOUT_TOKEN.contains(&&*target.guest_path.path()) =>
            {
                IfPaused::Fail
            }
            Some(None | Some(false)) => return Err(Denied::AgentToken),
        };
        return Ok(permit(sandbox, access, if_paused));
    }
    let Some(token) = &access.traffic_token else {
        return Ok(permit(sandbox, access, IfPaused::Wake));
    };
    match TRAFFIC_TOKENS
        .iter()
        .find_map(|name| matches(headers, name, token))
    {
        Some(true) => Ok(permit(sandbox, access, IfPaused::Wake)),
        Some(false) => Err(Denied::TrafficTokenInvalid),
        None => Err(Denied::TrafficTokenMissing),
    }
}

/// Creates the permit of a request whose tokens permit `if_paused`.
fn permit(sandbox: &SandboxId, access: &Access, if_paused: IfPaused) -> Permit {
    let (if_paused, paused_response) = if access.auto_resume {
        (if_paused, PausedResponse::Forbidden)
    } else {
        (IfPaused::Fail, PausedResponse::NotFound)
    };
    Permit {
        sandbox: sandbox.clone(),
        if_paused,
        paused_response,
    }
}

/// Returns whether a header holds the token; `None` if it is absent or empty.
fn matches(headers: &HeaderMap, name: &HeaderName, token: &Secret) -> Option<bool> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().filter(|value| !value.is_empty())?;
    Some(values.next().is_none() && bool::from(first.as_bytes().ct_eq(token.expose().as_bytes())))
}

/// Returns whether a path of the guest agent is for the host alone, after percent-decoding and removal of dot segments.
pub(crate) fn is_host_only(path: &GuestPath) -> bool {
    let path = path.path();
    let decoded = percent_decode(path.as_bytes()).decode_utf8_lossy();
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    matches!(segments.as_slice(), [only] if envd::HOST_ONLY_PATHS.contains(only))
}

#[cfg(test)]
mod tests;
