//! Booting a template's guest.

use std::{fs::File, path::PathBuf, sync::Arc, time::Duration};

use guest_api::{HOST_VSOCK_PORT, client};
use pool_api::{Resources, TemplateName};
use snapshotter::{BaseImage, Chain, DiskManifest};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::warn;
use vmm_api::{BootSpec, Disk, Exit, Machine};

use super::BuildError;
use crate::{
    awaken::healthy,
    cause::chain,
    home::Home,
    host::Host,
    live::{Lineage, Live},
};

/// Starts a guest from the kernel, on the image and an empty layer.
pub(super) async fn boot(
    host: &Host,
    name: &TemplateName,
    home: &Home,
    base: &BaseImage,
    resources: Resources,
) -> Result<Live, BuildError> {
    let permit = host.capacity.admit(resources.memory)?;
    let ready = host
        .shelf
        .claim(&resources)
        .await
        .map_err(BuildError::Blank)?;
    let artefact = |path: &PathBuf| {
        File::open(path).map_err(|source| BuildError::Artefact {
            path: path.clone(),
            source,
        })
    };
    let disk = Disk {
        size: resources.disk,
        base: artefact(&base.path)?,
        layers: Vec::new(),
        top: home.new_top(resources.disk).map_err(BuildError::Files)?,
    };
    let spec = BootSpec {
        kernel: artefact(&host.config.artefacts.kernel)?,
        command_line: host.config.artefacts.command_line.clone(),
        disks: vec![disk],
        console: home.console().map_err(BuildError::Files)?,
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
    // It has no pager, so nobody reports to this.
    let (_, damage) = tokio::sync::mpsc::unbounded_channel();
    Ok(Live {
        exit: machine.exit(),
        machine,
        damage,
        pager: None,
        lineage: Lineage::booted(name.clone(), resources, disks),
        _memory: None,
        _permit: permit,
        _run_dir: ready.run_dir,
    })
}

/// Returns when the guest's agent says that it is healthy.
pub(super) async fn ready(live: &Live, limit: Duration) -> Result<(), BuildError> {
    let deadline = Instant::now() + limit;
    let mut exit = live.exit.clone();
    tokio::select! {
        ended = exit.wait_for(Option::is_some) => {
            let exit = ended.ok().and_then(|exit| exit.clone());
            Err(BuildError::Ended(exit.unwrap_or(Exit::Killed)))
        }
        ready = timeout_at(deadline, healthy(&*live.machine)) => match ready {
            Ok(ready) => ready.map_err(BuildError::Ready),
            Err(_) => Err(BuildError::Late(limit)),
        },
    }
}

/// Lets the template's own programs bring into memory what its sandboxes start first. Without it they start more slowly.
pub(super) async fn warm(live: &Live, limit: Duration) {
    let warmed = async {
        let stream = live.machine.dial(HOST_VSOCK_PORT).await;
        let stream = stream.map_err(|error| chain(&error))?;
        client::warm(stream).await.map_err(|error| chain(&error))
    };
    let warmed = timeout(limit, warmed).await;
    if let Err(error) = warmed.unwrap_or_else(|_| Err(format!("not done within {limit:?}"))) {
        warn!(error, "the template's guest was not warmed");
    }
}

/// Why a guest did not come up is on its console, which goes with the rest.
pub(super) fn report_console(home: &Home) {
    match home.console_tail(2048) {
        Ok(tail) => {
            warn!(console = %String::from_utf8_lossy(&tail), "the template's guest did not become ready");
        }
        Err(error) => warn!(
            error = chain(&error),
            "cannot read the console of the template's guest"
        ),
    }
}
