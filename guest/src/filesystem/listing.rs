//! Lists directories recursively.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tokio::task::yield_now;

use super::{
    entry::EntryReader,
    error::{FileOperation, file_error, is_missing},
};
use crate::{
    messages::filesystem::EntryInfo,
    rpc::{Code, RpcError},
};

/// The most entries of one list, about 40 MB.
const MAX_ENTRIES: usize = 100_000;
/// Entries between yields to other tasks.
const YIELD_INTERVAL: usize = 64;

/// Lists everything below `dir` down to `depth`, in the order of names, with each directory before its content. Symbolic
/// links are not followed.
pub(crate) async fn list(
    reader: &EntryReader,
    dir: &Path,
    depth: u32,
) -> Result<Vec<EntryInfo>, RpcError> {
    let mut entries = Vec::new();
    // A stack: the next path is the last.
    let mut pending = children(dir, depth)?;
    while let Some((path, depth)) = pending.pop() {
        let entry = match reader.read(&path) {
            Ok(entry) => entry,
            // Removed since its directory was read.
            Err(error) if is_missing(&error) => continue,
            Err(error) => return Err(file_error(FileOperation::Stat, &path, &error)),
        };
        let is_dir = entry.permissions.starts_with('d');
        entries.push(entry);
        if is_dir && depth > 1 {
            pending.extend(children(&path, depth - 1)?);
        }
        if entries.len() + pending.len() > MAX_ENTRIES {
            return Err(RpcError::new(
                Code::ResourceExhausted,
                format!("more than {MAX_ENTRIES} entries below {}", dir.display()),
            ));
        }
        if entries.len().is_multiple_of(YIELD_INTERVAL) {
            yield_now().await;
        }
    }
    Ok(entries)
}

/// Reads a directory, in reverse order of names.
fn children(dir: &Path, depth: u32) -> Result<Vec<(PathBuf, u32)>, RpcError> {
    let read = || -> io::Result<Vec<(PathBuf, u32)>> {
        let mut children = Vec::new();
        for child in fs::read_dir(dir)? {
            children.push((child?.path(), depth));
            if children.len() > MAX_ENTRIES {
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
        Err(error) => Err(file_error(FileOperation::List, dir, &error)),
    }
}
