//! Recovery of the sandboxes of an earlier pool.
//!
//! A sandbox with a record has a durable snapshot, so it is paused. A sandbox without one is removed. `Pool::start` calls
//! this after it killed stale monitors and before it removes snapshots that nothing references.

use std::{fs, io, path::Path, sync::Arc};

use pool_api::SandboxId;
use tracing::{info, warn};

use crate::{
    driver::{Handle, InitialState},
    host::Host,
    registry::Registry,
    sandbox_dir::{Record, SandboxDir},
};

/// Spawns a driver for each sandbox that can wake, and removes the others.
pub(crate) fn recover_sandboxes(
    host: &Arc<Host>,
    registry: &Registry<Handle>,
    sandboxes: &Path,
) -> io::Result<()> {
    fs::create_dir_all(sandboxes)?;
    for entry in fs::read_dir(sandboxes)? {
        let entry = entry?;
        let dir = SandboxDir::new(entry.path());
        let id = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<SandboxId>().ok());
        let found = id.and_then(|id| Some((load_record(host, &id, &dir)?, id)));
        let Some((record, id)) = found else {
            info!(path = %entry.path().display(), "removing sandbox without a snapshot");
            dir.remove()?;
            continue;
        };
        dir.remove_top_layer()?;
        let spec = Arc::new(record.spec.clone());
        let initial = InitialState::Paused {
            snapshot: host.store.pin(&record.snapshot),
            record: Box::new(record),
        };
        let spawn =
            |registration| Handle::spawn(Arc::clone(host), spec, dir, registration, initial);
        // The names of a directory's entries differ.
        if registry.insert_with(&id, || (), || Ok(()), spawn).is_err() {
            warn!(sandbox.id = %id, "sandbox was recovered twice");
        }
    }
    Ok(())
}

fn load_record(host: &Host, id: &SandboxId, dir: &SandboxDir) -> Option<Record> {
    let record = match dir.load() {
        Ok(record) => record,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            let error = error_chain::chain(&error);
            warn!(sandbox.id = %id, %error, "failed to read sandbox record");
            return None;
        }
    };
    if record.spec.id != *id || !host.store.contains(&record.snapshot) {
        warn!(sandbox.id = %id, "snapshot of sandbox is missing");
        return None;
    }
    Some(record)
}
