//! The crates of the workspace, from `cargo metadata`.

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::workspace::Workspace;

/// A crate of this workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) name: String,
    /// Its directory, relative to the workspace root.
    pub(super) dir: String,
    /// The root files of its library and programs.
    pub(super) roots: Vec<String>,
    /// Names of direct dependencies, those of tests and build scripts included.
    pub(super) dependencies: Vec<String>,
}

impl Package {
    /// Returns whether a file belongs to this crate, and not to one in a subdirectory.
    pub(super) fn owns(&self, path: &str, all: &[Self]) -> bool {
        let within = |dir: &str| {
            path.strip_prefix(dir)
                .is_some_and(|rest| rest.starts_with('/'))
        };
        within(&self.dir)
            && !all
                .iter()
                .any(|other| other.dir.len() > self.dir.len() && within(&other.dir))
    }
}

/// Reads the crates of the workspace.
pub(super) fn read(workspace: &Workspace) -> Result<Vec<Package>> {
    let output = workspace
        .cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .context("failed to run cargo metadata")?;
    if !output.status.success() {
        bail!(
            "cargo metadata failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let root = workspace
        .root
        .to_str()
        .context("failed to decode the workspace path as UTF-8")?;
    parse(&output.stdout, root)
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<RawPackage>,
}

#[derive(Deserialize)]
struct RawPackage {
    name: String,
    manifest_path: String,
    dependencies: Vec<RawDependency>,
    targets: Vec<RawTarget>,
}

#[derive(Deserialize)]
struct RawDependency {
    name: String,
}

#[derive(Deserialize)]
struct RawTarget {
    kind: Vec<String>,
    src_path: String,
}

fn parse(json: &[u8], root: &str) -> Result<Vec<Package>> {
    let metadata: Metadata =
        serde_json::from_slice(json).context("failed to parse the output of cargo metadata")?;
    let relative = |path: &str| {
        path.strip_prefix(root)
            .unwrap_or(path)
            .trim_start_matches('/')
            .to_owned()
    };
    let package = |raw: RawPackage| Package {
        dir: relative(raw.manifest_path.trim_end_matches("/Cargo.toml")),
        roots: raw
            .targets
            .iter()
            .filter(|target| {
                target
                    .kind
                    .iter()
                    .any(|kind| kind == "lib" || kind == "bin")
            })
            .map(|target| relative(&target.src_path))
            .collect(),
        dependencies: raw
            .dependencies
            .into_iter()
            .map(|dependency| dependency.name)
            .collect(),
        name: raw.name,
    };
    Ok(metadata.packages.into_iter().map(package).collect())
}

#[cfg(test)]
impl Package {
    /// A library in `dir` with these dependencies.
    pub(super) fn example(name: &str, dir: &str, dependencies: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            dir: dir.to_owned(),
            roots: vec![format!("{dir}/src/lib.rs")],
            dependencies: dependencies.iter().map(|name| (*name).to_owned()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_belongs_to_the_innermost_crate() {
        let all = [
            Package::example("pool", "pool", &[]),
            Package::example("pool-api", "pool/api", &[]),
        ];
        assert!(all[0].owns("pool/src/lib.rs", &all));
        assert!(!all[0].owns("pool/api/src/lib.rs", &all));
        assert!(all[1].owns("pool/api/src/lib.rs", &all));
        assert!(!all[0].owns("poolside/src/lib.rs", &all));
    }

    #[test]
    fn cargo_metadata_is_parsed() {
        let json = br#"{"packages":[{"name":"a","manifest_path":"/w/a/Cargo.toml","dependencies":[{"name":"b"}],
            "targets":[{"kind":["lib"],"src_path":"/w/a/src/lib.rs"},{"kind":["test"],"src_path":"/w/a/tests/t.rs"}]}]}"#;
        assert_eq!(
            parse(json, "/w").unwrap(),
            [Package::example("a", "a", &["b"])]
        );
    }
}
