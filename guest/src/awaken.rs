//! What a guest is told when it wakes, and what it does about it.
//!
//! Only what the request names is done, as every system call counts. Clock and entropy come first: all that follows may
//! draw on them. The hooks run last, when the guest already is what it was told to be.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use guest_api::{InitRequest, Token};

use crate::{
    agent::Agent,
    disk::DiskError,
    hooks::{self, Moment},
};

/// How far the clock may be behind, and ahead, before it is set.
const MAX_BEHIND: Duration = Duration::from_millis(50);
const MAX_AHEAD: Duration = Duration::from_secs(5);

/// What the agent changes in the kernel. Tests have one of their own.
pub trait Kernel: fmt::Debug {
    /// The wall clock.
    fn now(&self) -> SystemTime;
    /// Sets the wall clock.
    fn set_clock(&self, to: SystemTime) -> io::Result<()>;
    /// Adds 1 to 512 random bytes to the kernel's pool, counts them as entropy, and reseeds what is drawn from it.
    fn add_entropy(&self, bytes: &[u8]) -> io::Result<()>;
    /// Sets the host name.
    fn set_hostname(&self, name: &str) -> io::Result<()>;
}

/// What the agent was told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) token: Token,
    pub(crate) default_user: Option<String>,
    pub(crate) default_workdir: Option<PathBuf>,
    pub(crate) sandbox: Option<String>,
    pub(crate) template: Option<String>,
    newest: Option<SystemTime>,
}

/// A guest that could not become what it was told to be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AwakenError {
    #[error("timestamp is not RFC 3339")]
    Timestamp,
    #[error("begin to write again")]
    Thaw(#[source] DiskError),
    #[error("set clock")]
    Clock(#[source] io::Error),
    #[error("add entropy")]
    Entropy(#[source] io::Error),
    #[error("set host name")]
    Hostname(#[source] io::Error),
    #[error("write {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Does what `request` says. An error leaves undone what comes after it, and may be tried again.
pub(crate) async fn awaken(agent: &Agent, request: InitRequest) -> Result<(), AwakenError> {
    let kernel = agent.kernel();
    // A snapshot is cut with the disk frozen, and what follows writes to it.
    if agent.disk().is_frozen() {
        agent.disk().thaw().map_err(AwakenError::Thaw)?;
    }
    if let Some(text) = &request.timestamp {
        set_clock(agent, text)?;
    }
    if let Some(entropy) = &request.entropy {
        kernel
            .add_entropy(entropy.expose())
            .map_err(AwakenError::Entropy)?;
    }
    let root = agent.root();
    if let Some(hostname) = &request.hostname {
        let name = hostname.as_str();
        kernel.set_hostname(name).map_err(AwakenError::Hostname)?;
        write(&root.join("etc/hostname"), &format!("{name}\n"))?;
        write(
            &root.join("etc/hosts"),
            &format!("127.0.0.1\tlocalhost\n127.0.1.1\t{name}\n"),
        )?;
    }
    if let Some(id) = &request.machine_id {
        write(&root.join("etc/machine-id"), &format!("{}\n", id.as_str()))?;
    }
    let forked = tell(agent, request)?;
    if forked {
        hooks::run(agent, Moment::AfterFork).await;
    }
    Ok(())
}

/// Keeps what processes and callers are given from now on; whether the sandbox is another one than before.
fn tell(agent: &Agent, request: InitRequest) -> Result<bool, AwakenError> {
    let run = agent.root().join("run/e2b");
    let (new_sandbox, new_template) = {
        let told = agent.told();
        let sandbox = request
            .sandbox_id
            .filter(|id| told.sandbox.as_ref() != Some(id));
        (
            sandbox,
            request
                .template_id
                .filter(|id| told.template.as_ref() != Some(id)),
        )
    };
    if new_sandbox.is_some() || new_template.is_some() {
        fs::create_dir_all(&run).map_err(|source| AwakenError::Write {
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
    let forked = new_sandbox.is_some();
    let mut told = agent.told_mut();
    told.sandbox = new_sandbox.or(told.sandbox.take());
    told.template = new_template.or(told.template.take());
    if let Some(env) = request.env_vars {
        told.env = env;
    }
    if let Some(token) = request.access_token {
        told.token = token;
    }
    if let Some(user) = request.default_user {
        told.default_user = Some(user).filter(|user| !user.is_empty());
    }
    if let Some(workdir) = request.default_workdir {
        told.default_workdir = Some(PathBuf::from(workdir)).filter(|dir| dir.is_absolute());
    }
    Ok(forked)
}

fn set_clock(agent: &Agent, text: &str) -> Result<(), AwakenError> {
    let timestamp: jiff::Timestamp = text.parse().map_err(|_| AwakenError::Timestamp)?;
    let to = SystemTime::from(timestamp);
    if agent.told().newest.is_some_and(|newest| to < newest) {
        return Ok(());
    }
    agent.told_mut().newest = Some(to);
    if is_off(agent.kernel().now(), to) {
        agent.kernel().set_clock(to).map_err(AwakenError::Clock)?;
    }
    Ok(())
}

fn is_off(now: SystemTime, to: SystemTime) -> bool {
    match to.duration_since(now) {
        Ok(behind) => behind > MAX_BEHIND,
        Err(error) => error.duration() > MAX_AHEAD,
    }
}

/// Writes over a file where it is: those of `/etc` may be mount points, which cannot be renamed over.
fn write(path: &Path, text: &str) -> Result<(), AwakenError> {
    let written = fs::File::create(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| AwakenError::Write {
        path: path.to_path_buf(),
        source,
    })
}

#[cfg(test)]
mod tests;
