//! `cargo xtask tidy`: the rules of this code base that a machine can check.
//!
//! Each check takes text and gives complaints; only this file reads the tree.

mod crates;
mod documents;
mod source;

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use self::crates::Package;
use crate::workspace::Workspace;

/// A file of the tree: its path from the root, and its text.
#[derive(Debug, Clone)]
struct Tracked {
    path: String,
    text: String,
}

/// Checks them all and names every breach.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let files = tracked(workspace)?;
    let packages = crates::read(workspace)?;
    let complaints = check(workspace, &files, &packages);
    for complaint in &complaints {
        eprintln!("{complaint}");
    }
    if !complaints.is_empty() {
        bail!("tidy found {} breaches", complaints.len());
    }
    eprintln!(
        "tidy: {} files and {} crates are in order",
        files.len(),
        packages.len()
    );
    Ok(())
}

fn check(workspace: &Workspace, files: &[Tracked], packages: &[Package]) -> Vec<String> {
    let mut complaints = crates::check_dependencies(packages);
    let sources: Vec<&Tracked> = files
        .iter()
        .filter(|file| has_extension(&file.path, "rs"))
        .collect();
    for file in &sources {
        complaints.extend(source::check(&file.path, &file.text));
    }
    for package in packages {
        let own: Vec<&Tracked> = sources
            .iter()
            .copied()
            .filter(|file| package.owns(&file.path, packages))
            .collect();
        let has_sys = own
            .iter()
            .any(|file| file.path == format!("{}/src/sys.rs", package.dir));
        for root in &package.roots {
            match own.iter().find(|file| file.path == *root) {
                Some(file) => {
                    complaints.extend(source::check_root(&file.path, &file.text, has_sys));
                }
                None => complaints.push(format!("{root}: the crate's root is not in the tree")),
            }
        }
    }
    let tests = documents::test_names(sources.iter().map(|file| file.text.as_str()));
    for file in files.iter().filter(|file| has_extension(&file.path, "md")) {
        complaints.extend(documents::check_paths(&file.path, &file.text));
        if !file.path.contains('/') {
            let exists = |link: &str| workspace.path(link).exists();
            complaints.extend(documents::check_links(&file.path, &file.text, exists));
        }
        if file.path == "SPECIFICATION.md" {
            complaints.extend(documents::check_promises(&file.path, &file.text, &tests));
        }
    }
    complaints
}

/// What git knows of the tree, and what it would take in.
fn tracked(workspace: &Workspace) -> Result<Vec<Tracked>> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
            "*.rs",
            "*.md",
        ])
        .current_dir(&workspace.root)
        .output()
        .context("run git ls-files")?;
    if !output.status.success() {
        bail!("git ls-files failed ({})", output.status);
    }
    let list = String::from_utf8(output.stdout).context("read names of files")?;
    let mut files = Vec::new();
    for path in list.split('\0').filter(|path| !path.is_empty()) {
        match fs::read_to_string(workspace.path(path)) {
            Ok(text) => files.push(Tracked {
                path: path.to_owned(),
                text,
            }),
            // Removed and not told git yet.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("read {path}")),
        }
    }
    Ok(files)
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path)
        .extension()
        .is_some_and(|found| found == extension)
}
