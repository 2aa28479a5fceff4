//! Listing a directory, as deep as is asked.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tokio::task::yield_now;

use super::{entry::Entries, failure, is_missing};
use crate::{
    messages::filesystem::EntryInfo,
    rpc::{Code, RpcError},
};

/// Most entries of one list: about 40 MB of them.
const MOST: usize = 100_000;
/// After how many entries others have their turn.
const TURN: usize = 64;

/// Everything below `dir` down to `depth`, a directory before what is in it, by name. Links within are not followed.
pub(super) async fn list(
    entries: &Entries,
    dir: &Path,
    depth: u32,
) -> Result<Vec<EntryInfo>, RpcError> {
    let mut found = Vec::new();
    // What is still to be told, last first.
    let mut waiting = children(dir, depth)?;
    while let Some((path, depth)) = waiting.pop() {
        let entry = match entries.entry(&path) {
            Ok(entry) => entry,
            // It has gone since its directory was read.
            Err(error) if is_missing(&error) => continue,
            Err(error) => return Err(failure("stat", &path, &error)),
        };
        let is_dir = entry.permissions.starts_with('d');
        found.push(entry);
        if is_dir && depth > 1 {
            waiting.extend(children(&path, depth - 1)?);
        }
        if found.len() + waiting.len() > MOST {
            return Err(RpcError::new(
                Code::ResourceExhausted,
                format!("more than {MOST} entries below {}", dir.display()),
            ));
        }
        if found.len().is_multiple_of(TURN) {
            yield_now().await;
        }
    }
    Ok(found)
}

/// What is in a directory, in reverse order.
fn children(dir: &Path, depth: u32) -> Result<Vec<(PathBuf, u32)>, RpcError> {
    let read = || -> io::Result<Vec<(PathBuf, u32)>> {
        let mut children = Vec::new();
        for child in fs::read_dir(dir)? {
            children.push((child?.path(), depth));
            if children.len() > MOST {
                break;
            }
        }
        Ok(children)
    };
    match read() {
        Ok(mut children) => {
            children.sort_unstable_by(|a, b| b.0.cmp(&a.0));
            Ok(children)
        }
        Err(error) if is_missing(&error) => Ok(Vec::new()),
        Err(error) => Err(failure("list", dir, &error)),
    }
}
