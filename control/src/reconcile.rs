//! Makes the ledger and the host agree: at start, after every event, and when events were missed.

use std::collections::HashMap;

use pool_api::{Event, EventKind, SandboxId, SandboxInfo, SandboxState};
use tokio::sync::broadcast::{self, error::RecvError};
use tracing::{error, info, warn};

use crate::{
    ledger::{By, Entry},
    sandboxes::{Failure, SHORTEST_AUTO_RESUME, Sandboxes},
    time::Micros,
};

/// The ledger and the host could not be made to agree.
#[derive(Debug, thiserror::Error)]
#[error("reconcile the ledger with the host")]
pub struct ReconcileError(#[source] Box<dyn std::error::Error + Send + Sync>);

/// What to do with sandboxes that have no entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Orphans {
    /// Nobody was ever told of them.
    Kill,
    /// They may be on their way into the ledger.
    Leave,
}

/// Agrees at start: nothing else is going on.
pub(crate) async fn at_start(sandboxes: &Sandboxes) -> Result<(), ReconcileError> {
    all(sandboxes, Orphans::Kill)
        .await
        .map_err(|failure| ReconcileError(Box::new(failure)))?;
    let agreed = sandboxes.keeper.agree().await;
    agreed.map_err(|error| ReconcileError(Box::new(error)))
}

/// Follows the host's events for ever.
pub(crate) async fn follow(sandboxes: &Sandboxes, mut events: broadcast::Receiver<Event>) {
    loop {
        let done = match events.recv().await {
            Ok(event) => one(sandboxes, event).await,
            Err(RecvError::Lagged(missed)) => {
                warn!(missed, "missed events of the host");
                all(sandboxes, Orphans::Leave).await
            }
            Err(RecvError::Closed) => return,
        };
        if let Err(failure) = done {
            error!(error = %failure, source = ?std::error::Error::source(&failure), "could not follow the host");
        }
    }
}

async fn one(sandboxes: &Sandboxes, event: Event) -> Result<(), Failure> {
    let Event {
        id,
        epoch,
        at,
        kind,
    } = event;
    match kind {
        EventKind::Started { .. } => {
            if let Some(mut entry) = sandboxes.ledger.get(&id).await?
                && (epoch > entry.epoch || (!entry.running && epoch == entry.epoch))
            {
                entry.epoch = epoch;
                woken(sandboxes, entry, at.into()).await?;
            }
        }
        EventKind::Paused { scope, .. } => {
            sandboxes
                .note_paused(&id, epoch, at.into(), scope, By::Host)
                .await?;
        }
        EventKind::Stopped(reason) => {
            if sandboxes.forget(&id).await? {
                info!(sandbox = %id, ?reason, "a sandbox is gone");
            }
        }
    }
    Ok(())
}

/// A sandbox was woken by a request: it is granted a fresh window.
async fn woken(sandboxes: &Sandboxes, mut entry: Entry, at: Micros) -> Result<(), Failure> {
    entry.started_at = at;
    let longest = sandboxes.config.longest;
    let window = entry.lasting.timeout.clamp(SHORTEST_AUTO_RESUME, longest);
    entry.end_at = window.end(at, at, longest);
    entry.running = true;
    let noted = sandboxes
        .ledger
        .woken(&entry.id, entry.epoch, entry.started_at, entry.end_at)
        .await?;
    if noted {
        sandboxes.publish(&entry).await?;
        sandboxes.ends_changed.notify_one();
    }
    Ok(())
}

async fn all(sandboxes: &Sandboxes, orphans: Orphans) -> Result<(), Failure> {
    let mut there: HashMap<SandboxId, SandboxInfo> = sandboxes
        .node
        .list()
        .await
        .into_iter()
        .map(|info| (info.id.clone(), info))
        .collect();
    for mut entry in sandboxes.ledger.all().await? {
        let Some(info) = there.remove(&entry.id) else {
            info!(sandbox = %entry.id, "a sandbox did not survive");
            sandboxes.forget(&entry.id).await?;
            continue;
        };
        match info.state {
            SandboxState::Starting | SandboxState::Running
                if !entry.running || info.epoch > entry.epoch =>
            {
                entry.epoch = info.epoch;
                woken(sandboxes, entry, info.started_at.into()).await?;
            }
            SandboxState::Pausing | SandboxState::Paused if entry.running => {
                sandboxes
                    .ledger
                    .paused(
                        &entry.id,
                        info.epoch,
                        info.since.into(),
                        info.scope,
                        By::Host,
                    )
                    .await?;
                entry.epoch = info.epoch;
                entry.running = false;
                entry.keep = Some(info.scope);
                sandboxes.publish(&entry).await?;
            }
            SandboxState::Stopping | SandboxState::Stopped(_) => {
                sandboxes.forget(&entry.id).await?;
            }
            _ => sandboxes.publish(&entry).await?,
        }
    }
    if orphans == Orphans::Kill {
        for id in there.into_keys() {
            warn!(sandbox = %id, "killing a sandbox that the ledger does not know");
            // It may end by itself meanwhile.
            drop(sandboxes.node.kill(&id).await);
        }
    }
    sandboxes.ends_changed.notify_one();
    Ok(())
}
