//! Runs the executables that a template installs below `/etc/catnap`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use error_chain::chain;
use guest_api::envd::ExitStatus;
use tracing::warn;

use crate::{process::Launch, state::AgentState, user};

/// A point at which hooks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HookPoint {
    /// After a fork, to regenerate state that two sandboxes must not share.
    AfterFork,
    /// Before the template's snapshot, to load programs into the memory of all its sandboxes.
    BeforeSnapshot,
}

impl HookPoint {
    /// The directory of the executables, relative to the root.
    pub(crate) fn dir(self) -> &'static str {
        match self {
            Self::AfterFork => "etc/catnap/after-fork.d",
            Self::BeforeSnapshot => "etc/catnap/before-snapshot.d",
        }
    }

    /// The timeout of each hook. A fork waits for its hooks; a template build is not urgent.
    pub(crate) fn timeout(self) -> Duration {
        match self {
            Self::AfterFork => Duration::from_secs(5),
            Self::BeforeSnapshot => Duration::from_secs(60),
        }
    }
}

/// Runs the hooks of `point` in the order of their names. A failing hook is logged and does not stop the others.
pub(crate) async fn run(state: &AgentState, point: HookPoint) {
    let dir = state.root().join(point.dir());
    let hooks = match list(&dir) {
        Ok(hooks) => hooks,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => {
            return warn!(dir = %dir.display(), error = %chain(&error), "failed to list hooks");
        }
    };
    for hook in hooks {
        let path = hook.display();
        match run_hook(state, &hook, point.timeout()).await {
            Ok(ExitStatus::Code(0)) => {}
            Ok(status) => warn!(hook = %path, %status, "hook failed"),
            Err(error) => warn!(hook = %path, error = %chain(&error), "failed to start hook"),
        }
    }
}

fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut hooks: Vec<PathBuf> = fs::read_dir(dir)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()?;
    hooks.sort();
    Ok(hooks)
}

async fn run_hook(state: &AgentState, hook: &Path, timeout: Duration) -> io::Result<ExitStatus> {
    let launch = Launch {
        program: hook.to_path_buf(),
        args: Vec::new(),
        env: state.environment(None),
        cwd: PathBuf::from("/"),
        user: user::find(state.root(), "root").ok(),
    };
    let mut child = state.processes().spawn_detached(&launch)?;
    if let Ok(status) = tokio::time::timeout(timeout, child.wait()).await {
        return Ok(status);
    }
    child.kill();
    Ok(child.wait().await)
}
