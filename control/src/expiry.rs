//! Ends what is due: kills or pauses a sandbox at its `endAt`.
//!
//! One task sleeps until the earliest end, which the ledger has an index for, and is told when that may have changed.

use std::{sync::Arc, time::Duration};

use pool_api::{SandboxId, SandboxState, SnapshotScope};
use tracing::{error, info, warn};

use crate::{
    ledger::{By, Entry},
    sandboxes::{Conflict, Failure, Sandboxes},
    time::Micros,
};

/// The longest sleep, so that a wall clock that is set is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// The time after which a failed end is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// Runs for ever.
pub(crate) async fn run(sandboxes: Arc<Sandboxes>) {
    loop {
        let wait = match sandboxes.ledger.first_end().await {
            Ok(Some(end)) => end.until(Micros::now()).min(LONGEST_SLEEP),
            Ok(None) => LONGEST_SLEEP,
            Err(error) => {
                error!(%error, "could not read what is due");
                RETRY
            }
        };
        if wait.is_zero() {
            end_due(&sandboxes).await;
            continue;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = sandboxes.ends_changed.notified() => {}
        }
    }
}

async fn end_due(sandboxes: &Arc<Sandboxes>) {
    let due = match sandboxes.ledger.due(Micros::now()).await {
        Ok(due) => due,
        Err(error) => {
            error!(%error, "could not read what is due");
            tokio::time::sleep(RETRY).await;
            return;
        }
    };
    for entry in due {
        // Put off first: ending takes a while, and others are due meanwhile. A crash in between is made up for after it.
        let put_off = sandboxes
            .ledger
            .put_off(&entry.id, Micros::now().after(RETRY))
            .await;
        if let Err(error) = put_off {
            error!(%error, sandbox = %entry.id, "could not end a sandbox");
            tokio::time::sleep(RETRY).await;
            return;
        }
        tokio::spawn(end(sandboxes.clone(), entry));
    }
}

async fn end(sandboxes: Arc<Sandboxes>, entry: Entry) {
    let id = &entry.id;
    let asleep = sandboxes
        .node
        .info(id)
        .await
        .filter(|info| info.state == SandboxState::Paused);
    if let Some(info) = asleep
        && entry.running
    {
        // It fell asleep just before, and a sleeping sandbox has no end, unless it was doomed.
        return note_paused(&sandboxes, &entry, info.scope, By::Host).await;
    }
    let pauses = entry.lasting.auto_pause && entry.running;
    let done = if pauses {
        let keep = entry.lasting.auto_pause_keep;
        sandboxes.pause(id, keep, false).await
    } else {
        sandboxes.kill(id).await
    };
    match done {
        Ok(()) => {
            info!(sandbox = %id, paused = pauses, "a sandbox came to its end");
        }
        Err(Failure::NotFound(_)) => gone(&sandboxes, id).await,
        Err(Failure::Conflict(Conflict::AlreadyPaused(_))) => {
            note_paused(&sandboxes, &entry, entry.lasting.auto_pause_keep, By::Owner).await;
        }
        // Its owner was faster.
        Err(Failure::Conflict(Conflict::BeingKilled(_))) => {}
        Err(failure) => {
            let source = std::error::Error::source(&failure);
            warn!(sandbox = %id, error = %failure, ?source, "could not end a sandbox, will try again");
        }
    }
}

async fn note_paused(sandboxes: &Sandboxes, entry: &Entry, keep: SnapshotScope, by: By) {
    if let Err(error) = sandboxes
        .note_paused(&entry.id, entry.epoch, Micros::now(), keep, by)
        .await
    {
        error!(%error, sandbox = %entry.id, "could not note a pause");
    }
}

async fn gone(sandboxes: &Sandboxes, id: &SandboxId) {
    if sandboxes.node.info(id).await.is_none()
        && let Err(failure) = sandboxes.forget(id).await
    {
        error!(error = %failure, sandbox = %id, "could not forget a sandbox");
    }
}
