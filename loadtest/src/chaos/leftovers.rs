//! What a gateway without sandboxes must not leave.

use std::fs;

use anyhow::Context;

use crate::gateway::Launch;

/// Lists files and processes that are left after every sandbox was killed and the gateway has ended.
pub(super) fn find(launch: &Launch) -> anyhow::Result<Vec<String>> {
    let mut left = Vec::new();
    for (part, expected) in [
        ("sandboxes", 0),
        ("staging", 0),
        ("run", 0),
        ("snapshots", 1),
    ] {
        let dir = launch.data.join(part);
        let entries =
            fs::read_dir(&dir).with_context(|| format!("failed to read {}", dir.display()))?;
        let found = entries.count();
        if found != expected {
            left.push(format!("{found} entries in {part}, expected {expected}"));
        }
    }
    // Monitors inherit the gateway's command line only as a parent; their open files name the data directory.
    for process in fs::read_dir("/proc")? {
        let path = process?.path();
        let Ok(files) = fs::read_dir(path.join("fd")) else {
            continue;
        };
        let uses = files
            .filter_map(Result::ok)
            .filter_map(|file| fs::read_link(file.path()).ok())
            .any(|target| target.starts_with(&launch.data));
        if uses {
            left.push(format!(
                "process {} uses the data directory",
                path.display()
            ));
        }
    }
    Ok(left)
}
