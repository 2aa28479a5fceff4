//! Booting a template's guest.

use std::{fs::File, path::PathBuf, sync::Arc, time::Duration};

use guest_api::{HOST_VSOCK_PORT, client};
use pool_api::{Resources, TemplateName};
use snapshotter::{BaseImage, Chain, DiskManifest};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::warn;
use vmm_api::{BootSpec, Disk, Exit, Machine};

use super::error::BuildError;
use crate::{
    capacity::Demand,
    fsfreeze::Frozen,
    guest_init::wait_until_healthy,
    host::Host,
    running::{Lineage, RunningMachine},
    sandbox_dir::SandboxDir,
    top_layer::TopFile,
};

/// Bytes of the console to log after a failed build.
const CONSOLE_TAIL: usize = 2048;

/// Boots a guest from the kernel, on the image and an empty layer.
pub(super) async fn boot(
    host: &Host,
    name: &TemplateName,
    dir: &SandboxDir,
    base: &BaseImage,
    resources: Resources,
) -> Result<RunningMachine, BuildError> {
    let reservation = host.capacity.reserve(Demand::of_memory(resources.memory))?;
    let ready = host
        .blanks
        .take(&resources)
        .await
        .map_err(BuildError::Blank)?;
    let artefact = |path: &PathBuf| {
        File::open(path).map_err(|source| BuildError::Artefact {
            path: path.clone(),
            source,
        })
    };
    let top = TopFile::create(dir.path(), resources.disk).map_err(BuildError::Files)?;
    let disk = Disk {
        size: resources.disk,
        base: host.store.open_base(base).map_err(BuildError::Base)?,
        layers: Vec::new(),
        top: top.layer().map_err(BuildError::Files)?,
    };
    let spec = BootSpec {
        kernel: artefact(&host.config.artefacts.kernel)?,
        command_line: host.config.artefacts.command_line.clone(),
        disks: vec![disk],
        console: dir.console().map_err(BuildError::Files)?,
    };
    let machine: Arc<dyn Machine> = ready
        .blank
        .boot(spec)
        .await
        .map_err(BuildError::Boot)?
        .into();
    let disks = vec![DiskManifest {
        size: resources.disk,
        base: base.clone(),
        chain: Chain::default(),
    }];
    // A booted machine has no pager that could report damage.
    let (_, damage) = tokio::sync::mpsc::unbounded_channel();
    Ok(RunningMachine {
        exit: machine.exit(),
        machine,
        damage,
        pager: None,
        lineage: Lineage::booted(name.clone(), resources, disks, vec![top]),
        frozen: Frozen::No,
        _memory: None,
        reservation,
        _run_dir: ready.run_dir,
    })
}

/// Returns when the guest's agent is healthy.
pub(super) async fn wait_until_ready(
    running: &RunningMachine,
    limit: Duration,
) -> Result<(), BuildError> {
    let deadline = Instant::now() + limit;
    let mut exit = running.exit.clone();
    tokio::select! {
        ended = exit.wait_for(Option::is_some) => {
            let exit = ended.ok().and_then(|exit| exit.clone());
            Err(BuildError::GuestEnded(exit.unwrap_or(Exit::Killed)))
        }
        ready = timeout_at(deadline, wait_until_healthy(&*running.machine)) => match ready {
            Ok(ready) => ready.map_err(BuildError::HealthCheck),
            Err(_) => Err(BuildError::Timeout(limit)),
        },
    }
}

/// Runs the template's own warm-up programs, so that the snapshot has their page cache. A failure only makes sandboxes
/// slower.
pub(super) async fn warm_up(running: &RunningMachine, limit: Duration) {
    let warm_up = async {
        let stream = running.machine.dial(HOST_VSOCK_PORT).await;
        let stream = stream.map_err(|error| error_chain::chain(&error).to_string())?;
        let warmed = client::warm(stream).await;
        warmed.map_err(|error| error_chain::chain(&error).to_string())
    };
    let result = timeout(limit, warm_up).await;
    if let Err(error) = result.unwrap_or_else(|_| Err(format!("no response within {limit:?}"))) {
        warn!(error, "failed to warm up the template's guest");
    }
}

/// Logs the end of the console, which is removed with the failed build.
pub(super) fn log_console(dir: &SandboxDir) {
    match dir.console_tail(CONSOLE_TAIL) {
        Ok(tail) => {
            warn!(console = %String::from_utf8_lossy(&tail), "template guest did not become ready");
        }
        Err(error) => {
            let error = error_chain::chain(&error);
            warn!(%error, "failed to read the console of the template's guest");
        }
    }
}
