//! Rules for who may depend on whom.

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::workspace::Workspace;

/// Crates that are programs' insides: put together by deploy and by loadtest, and by nobody else.
const PROGRAMS: &[&str] = &[
    "edge", "pool", "vmm", "guest", "control", "loadtest", "catnap", "xtask",
];

/// What only these crates may name: a crate's name, or its beginning with a `*` behind it.
const RESERVED: &[(&str, &[&str])] = &[
    // The load test measures the kernel's own prices, and knows no machine.
    ("kvm-ioctls", &["vmm", "loadtest"]),
    ("kvm-bindings", &["vmm", "loadtest"]),
    ("userfaultfd", &["snapshotter", "vmm", "loadtest"]),
    ("sqlx", &["control"]),
    ("pingora*", &["edge"]),
    ("redis", &["coordinator"]),
    ("deadpool-redis", &["coordinator"]),
    ("aya", &["bpf"]),
];

/// A crate of this workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) name: String,
    /// Its folder, from the workspace's root.
    pub(super) dir: String,
    /// The files its library and programs begin with.
    pub(super) roots: Vec<String>,
    dependencies: Vec<String>,
}

impl Package {
    /// Whether a file is this crate's, and not that of one further down.
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

    fn may_combine_programs(&self) -> bool {
        self.dir.starts_with("deploy/") || self.name == "loadtest"
    }
}

/// What cargo says of the workspace's own crates.
pub(super) fn read(workspace: &Workspace) -> Result<Vec<Package>> {
    let output = workspace
        .cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .context("run cargo metadata")?;
    if !output.status.success() {
        bail!(
            "cargo metadata failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let root = workspace
        .root
        .to_str()
        .context("read the workspace's path")?;
    parse(&output.stdout, root)
}

fn parse(json: &[u8], root: &str) -> Result<Vec<Package>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<RawPackage>,
    }
    #[derive(Deserialize)]
    struct RawPackage {
        name: String,
        manifest_path: String,
        dependencies: Vec<Dependency>,
        targets: Vec<Target>,
    }
    #[derive(Deserialize)]
    struct Dependency {
        name: String,
    }
    #[derive(Deserialize)]
    struct Target {
        kind: Vec<String>,
        src_path: String,
    }
    let metadata: Metadata =
        serde_json::from_slice(json).context("read what cargo metadata says")?;
    let below = |path: &str| {
        path.strip_prefix(root)
            .unwrap_or(path)
            .trim_start_matches('/')
            .to_owned()
    };
    let package = |raw: RawPackage| Package {
        dir: below(raw.manifest_path.trim_end_matches("/Cargo.toml")),
        roots: raw
            .targets
            .iter()
            .filter(|target| {
                target
                    .kind
                    .iter()
                    .any(|kind| kind == "lib" || kind == "bin")
            })
            .map(|target| below(&target.src_path))
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

/// Checks what each crate depends on, its tests included.
pub(super) fn check_dependencies(packages: &[Package]) -> Vec<String> {
    let mut complaints = Vec::new();
    for package in packages {
        let name = &package.name;
        for dependency in &package.dependencies {
            let ours = packages.iter().any(|other| other.name == *dependency);
            if ours && name.ends_with("-api") {
                complaints.push(format!(
                    "{name}: a boundary depends on no crate of ours, and not on {dependency}"
                ));
            }
            if ours && PROGRAMS.contains(&dependency.as_str()) && !package.may_combine_programs() {
                complaints.push(format!(
                    "{name}: programs are put together by deploy, so it must not use {dependency}"
                ));
            }
            for (pattern, allowed) in RESERVED {
                if matches(pattern, dependency) && !allowed.contains(&name.as_str()) {
                    complaints.push(format!(
                        "{name}: only {} may use {dependency}",
                        allowed.join(" and ")
                    ));
                }
            }
        }
    }
    complaints
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn package(name: &str, dir: &str, dependencies: &[&str]) -> Package {
        let dependencies = dependencies.iter().map(|name| (*name).to_owned()).collect();
        Package {
            name: name.to_owned(),
            dir: dir.to_owned(),
            roots: Vec::new(),
            dependencies,
        }
    }

    #[test]
    fn each_rule_has_a_breach() {
        let check = |name, dir, dependency| {
            let others =
                ["pool", "pool-api", "edge", "vmm-api"].map(|name| package(name, name, &[]));
            check_dependencies(&[&[package(name, dir, &[dependency])], &others[..]].concat())
        };
        assert_eq!(check("vmm", "vmm", "pool").len(), 1);
        assert_eq!(check("some-api", "some/api", "vmm-api").len(), 1);
        assert_eq!(check("control", "control", "pingora-core").len(), 1);
        assert_eq!(check("control", "control", "kvm-ioctls").len(), 1);
        assert!(check("catnap", "deploy/catnap", "edge").is_empty());
        assert!(check("snapshotter", "snapshotter", "userfaultfd").is_empty());
        assert!(check("control", "control", "pool-api").is_empty());
    }

    #[test]
    fn a_file_belongs_to_the_nearest_crate() {
        let all = [
            package("pool", "pool", &[]),
            package("pool-api", "pool/api", &[]),
        ];
        assert!(all[0].owns("pool/src/lib.rs", &all) && !all[0].owns("pool/api/src/lib.rs", &all));
        assert!(
            all[1].owns("pool/api/src/lib.rs", &all) && !all[0].owns("poolside/src/lib.rs", &all)
        );
    }

    #[test]
    fn what_cargo_says_is_read() {
        let json = br#"{"packages":[{"name":"a","manifest_path":"/w/a/Cargo.toml","dependencies":[{"name":"b"}],
            "targets":[{"kind":["lib"],"src_path":"/w/a/src/lib.rs"},{"kind":["test"],"src_path":"/w/a/tests/t.rs"}]}]}"#;
        let read = parse(json, "/w").unwrap();
        assert_eq!(
            read,
            [Package {
                roots: vec!["a/src/lib.rs".to_owned()],
                ..package("a", "a", &["b"])
            }]
        );
    }
}
