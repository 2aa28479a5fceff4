//! The files that git tracks or would add.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

/// A text file: its path from the workspace root, and its content.
#[derive(Debug, Clone)]
pub(super) struct File {
    pub(super) path: String,
    pub(super) text: String,
}

impl File {
    pub(super) fn has_extension(&self, extension: &str) -> bool {
        Path::new(&self.path)
            .extension()
            .is_some_and(|found| found == extension)
    }
}

/// Reads every text file of the working tree.
pub(super) fn read(workspace: &Workspace) -> Result<Vec<File>> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(&workspace.root)
        .output()
        .context("failed to run git ls-files")?;
    if !output.status.success() {
        bail!("git ls-files failed ({})", output.status);
    }
    let list = String::from_utf8(output.stdout).context("failed to decode file names")?;
    let mut files = Vec::new();
    for path in list.split('\0').filter(|path| !path.is_empty()) {
        match fs::read(workspace.path(path)) {
            // A file that is not UTF-8 is binary.
            Ok(bytes) => files.extend(String::from_utf8(bytes).ok().map(|text| File {
                path: path.to_owned(),
                text,
            })),
            // Deleted in the working tree, still in the index.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("failed to read {path}")),
        }
    }
    Ok(files)
}
