//! Programs that a template has run at a moment of its sandboxes' lives.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tracing::warn;

use crate::{
    agent::Agent,
    process::{Exit, Launch},
    user,
};

/// When they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The guest has become another sandbox: what must not be the same in two is made anew.
    AfterFork,
    /// The template is about to be written down: what is in memory now is in memory in each of its sandboxes.
    BeforeSnapshot,
}

impl Moment {
    /// Where the executables are, below the root.
    pub(crate) fn dir(self) -> &'static str {
        match self {
            Self::AfterFork => "etc/catnap/after-fork.d",
            Self::BeforeSnapshot => "etc/catnap/before-snapshot.d",
        }
    }

    /// How long each of them may take. A fork waits for them, a template has time.
    pub(crate) fn limit(self) -> Duration {
        match self {
            Self::AfterFork => Duration::from_secs(5),
            Self::BeforeSnapshot => Duration::from_secs(60),
        }
    }
}

/// Runs them one after the other, by name. One that fails is told of and does not stop the others.
pub(crate) async fn run(agent: &Agent, moment: Moment) {
    let dir = agent.root().join(moment.dir());
    let hooks = match list(&dir) {
        Ok(hooks) => hooks,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => return warn!(dir = %dir.display(), %error, "could not list hooks"),
    };
    for hook in hooks {
        match run_one(agent, &hook, moment.limit()).await {
            Ok(exit) if exit.is_success() => {}
            Ok(exit) => warn!(hook = %hook.display(), status = %exit.status(), "hook failed"),
            Err(error) => warn!(hook = %hook.display(), %error, "could not run hook"),
        }
    }
}

fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut hooks: Vec<PathBuf> = fs::read_dir(dir)?
        .map(|found| found.map(|found| found.path()))
        .collect::<io::Result<_>>()?;
    hooks.sort();
    Ok(hooks)
}

async fn run_one(agent: &Agent, hook: &Path, limit: Duration) -> io::Result<Exit> {
    let launch = Launch {
        program: hook.to_path_buf(),
        args: Vec::new(),
        env: agent.environment(None),
        cwd: PathBuf::from("/"),
        user: user::find(agent.root(), "root").ok(),
    };
    let mut running = agent.processes().run_quietly(&launch)?;
    if let Ok(exit) = tokio::time::timeout(limit, running.exit()).await {
        return Ok(exit);
    }
    running.kill();
    Ok(running.exit().await)
}
