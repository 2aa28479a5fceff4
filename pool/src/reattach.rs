//! Finding again what a former pool left.
//!
//! A sandbox with a record has a durable snapshot: it is paused. Everything else is removed: monitors, their
//! directories, sandboxes that were never written down, and snapshots that nothing needs.

use std::{fs, io, path::Path, sync::Arc};

use pool_api::SandboxId;
use tracing::{info, warn};

use crate::{
    cause::chain,
    driver::{Beginning, Handle},
    home::Home,
    host::Host,
};

/// Starts a driver for each sandbox that can be woken, and removes the rest.
pub(crate) fn reattach(host: &Arc<Host>, sandboxes: &Path) -> io::Result<()> {
    fs::create_dir_all(sandboxes)?;
    for entry in fs::read_dir(sandboxes)? {
        let entry = entry?;
        let home = Home::new(entry.path());
        let id = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<SandboxId>().ok());
        let found = id.and_then(|id| find(host, &id, &home));
        let Some((id, beginning)) = found else {
            info!(path = %entry.path().display(), "removing what is left of a sandbox");
            home.remove()?;
            continue;
        };
        home.drop_top()?;
        let Beginning::Paused { record, .. } = &beginning else {
            continue;
        };
        let spec = Arc::new(record.spec.clone());
        // Directories have different names, so nobody has taken this one.
        let spawn = || Ok::<_, ()>(Handle::spawn(Arc::clone(host), spec, home, beginning));
        if host.registry.insert_with(&id, || (), spawn).is_err() {
            warn!(%id, "a sandbox was found twice");
        }
    }
    Ok(())
}

fn find(host: &Host, id: &SandboxId, home: &Home) -> Option<(SandboxId, Beginning)> {
    let record = match home.load() {
        Ok(record) => record,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            warn!(%id, error = chain(&error), "cannot read what a sandbox wakes from");
            return None;
        }
    };
    if record.spec.id != *id || !host.store.contains(&record.snapshot) {
        warn!(%id, "what a sandbox wakes from is gone");
        return None;
    }
    let own = host.store.pin(&record.snapshot);
    Some((
        id.clone(),
        Beginning::Paused {
            record: Box::new(record),
            own,
        },
    ))
}
