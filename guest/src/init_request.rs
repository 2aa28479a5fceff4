//! Handles `POST /init`: applies clock, entropy and identity after a boot, fork or restore.
//!
//! Steps that the request does not ask for are skipped, because every system call costs time. Clock and entropy come
//! first, because later steps may use them. Fork hooks run last, with the new identity in place.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use error_chain::chain;
use guest_api::{InitRequest, envd};
use http::{HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use tracing::warn;

use crate::{
    disk::DiskError,
    hooks::{self, HookPoint},
    request_body,
    response::{self, HttpResponse},
    state::AgentState,
};

/// Clock errors that are tolerated, in either direction.
const MAX_BEHIND: Duration = Duration::from_millis(50);
const MAX_AHEAD: Duration = Duration::from_secs(5);

/// An error applying an init request.
#[derive(Debug, thiserror::Error)]
enum InitError {
    #[error("timestamp is not RFC 3339")]
    Timestamp,
    #[error(transparent)]
    Thaw(DiskError),
    #[error("failed to set the clock")]
    Clock(#[source] io::Error),
    #[error("failed to add entropy")]
    Entropy(#[source] io::Error),
    #[error("failed to set the host name")]
    Hostname(#[source] io::Error),
    #[error("failed to write {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The effect of an init request on the sandbox ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Identity {
    /// The guest was forked, or has just booted.
    New,
    Unchanged,
}

/// Handles an init request of the host.
pub(crate) async fn handle(state: &AgentState, request: Request<Incoming>) -> HttpResponse {
    let body = match request_body::read(request.into_body()).await {
        Ok(body) => body,
        Err(error) => return response::error(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    // The error text of serde may repeat a secret, so it is not returned.
    let Ok(request) =
        serde_json::from_slice::<InitRequest>(if body.is_empty() { b"{}" } else { &body })
    else {
        return response::error(
            StatusCode::BAD_REQUEST,
            "request body is not an init request",
        );
    };
    match apply(state, request).await {
        Ok(()) => {
            let mut response = response::no_content();
            let version = HeaderValue::from_static(envd::VERSION);
            response.headers_mut().insert("x-envd-version", version);
            response
        }
        Err(error @ InitError::Timestamp) => {
            response::error(StatusCode::BAD_REQUEST, &error.to_string())
        }
        Err(error) => {
            let error = chain(&error).to_string();
            warn!(error, "failed to apply init request");
            response::error(StatusCode::INTERNAL_SERVER_ERROR, &error)
        }
    }
}

/// Applies `request`. After an error the remaining steps are skipped, and the host may retry.
async fn apply(state: &AgentState, request: InitRequest) -> Result<(), InitError> {
    let kernel = state.kernel();
    // A disk-only snapshot is taken with the disk frozen, and the next steps write to it.
    if state.disk().is_frozen() {
        state.disk().thaw().map_err(InitError::Thaw)?;
    }
    if let Some(text) = &request.timestamp {
        set_clock(state, text)?;
    }
    if let Some(entropy) = &request.entropy {
        kernel
            .add_entropy(entropy.expose())
            .map_err(InitError::Entropy)?;
    }
    let root = state.root();
    if let Some(hostname) = &request.hostname {
        let name = hostname.as_str();
        kernel.set_hostname(name).map_err(InitError::Hostname)?;
        write(&root.join("etc/hostname"), &format!("{name}\n"))?;
        write(
            &root.join("etc/hosts"),
            &format!("127.0.0.1\tlocalhost\n127.0.1.1\t{name}\n"),
        )?;
    }
    if let Some(id) = &request.machine_id {
        write(&root.join("etc/machine-id"), &format!("{}\n", id.as_str()))?;
    }
    if store(state, request)? == Identity::New {
        hooks::run(state, HookPoint::AfterFork).await;
    }
    Ok(())
}

/// Stores the settings that later requests use, and publishes the IDs below `/run/e2b`.
fn store(state: &AgentState, request: InitRequest) -> Result<Identity, InitError> {
    let run = state.root().join("run/e2b");
    let (new_sandbox, new_template) = {
        let guest = state.guest_config();
        let sandbox = request
            .sandbox_id
            .filter(|id| guest.sandbox_id.as_ref() != Some(id));
        let template = request
            .template_id
            .filter(|id| guest.template_id.as_ref() != Some(id));
        (sandbox, template)
    };
    if new_sandbox.is_some() || new_template.is_some() {
        fs::create_dir_all(&run).map_err(|source| InitError::Write {
            path: run.clone(),
            source,
        })?;
        write(&run.join(".E2B_SANDBOX"), "true")?;
    }
    if let Some(id) = &new_sandbox {
        write(&run.join(".E2B_SANDBOX_ID"), id)?;
    }
    if let Some(id) = &new_template {
        write(&run.join(".E2B_TEMPLATE_ID"), id)?;
    }
    let identity = match new_sandbox {
        Some(_) => Identity::New,
        None => Identity::Unchanged,
    };
    let mut guest = state.guest_config_mut();
    guest.sandbox_id = new_sandbox.or(guest.sandbox_id.take());
    guest.template_id = new_template.or(guest.template_id.take());
    if let Some(env) = request.env_vars {
        guest.env = env;
    }
    if let Some(token) = request.access_token {
        guest.token = token;
    }
    if let Some(user) = request.default_user {
        guest.default_user = Some(user).filter(|user| !user.is_empty());
    }
    if let Some(workdir) = request.default_workdir {
        guest.default_workdir = Some(PathBuf::from(workdir)).filter(|dir| dir.is_absolute());
    }
    Ok(identity)
}

/// Sets the clock to the host's time if it deviates too far. A timestamp older than the last one is ignored.
fn set_clock(state: &AgentState, text: &str) -> Result<(), InitError> {
    let timestamp: jiff::Timestamp = text.parse().map_err(|_| InitError::Timestamp)?;
    let to = SystemTime::from(timestamp);
    let last = state.guest_config().last_host_time;
    if last.is_some_and(|last| to < last) {
        return Ok(());
    }
    state.guest_config_mut().last_host_time = Some(to);
    if deviates(state.kernel().now(), to) {
        state.kernel().set_clock(to).map_err(InitError::Clock)?;
    }
    Ok(())
}

fn deviates(now: SystemTime, to: SystemTime) -> bool {
    match to.duration_since(now) {
        Ok(behind) => behind > MAX_BEHIND,
        Err(error) => error.duration() > MAX_AHEAD,
    }
}

/// Overwrites a file in place: files of `/etc` may be mount points, which a rename cannot replace.
fn write(path: &Path, text: &str) -> Result<(), InitError> {
    let written = fs::File::create(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| InitError::Write {
        path: path.to_path_buf(),
        source,
    })
}

#[cfg(test)]
mod tests;
