//! Allowed dependencies between crates.

use super::{Package, Violation};

/// Implementations, which only `deploy` and `loadtest` combine.
const PROGRAMS: &[&str] = &[
    "edge", "pool", "vmm", "guest", "control", "loadtest", "catnap", "xtask",
];

/// Crates that hold one shared idea. Every crate may depend on them, `-api` crates included.
const SHARED_IDEAS: &[&str] = &["error-chain"];

/// External crates with the only crates that may use them. A pattern that ends in `*` matches every crate with that prefix.
const RESERVED: &[(&str, &[&str])] = &[
    // The load test measures the cost of the kernel's own operations.
    ("kvm-ioctls", &["vmm", "loadtest"]),
    ("kvm-bindings", &["vmm", "loadtest"]),
    ("userfaultfd", &["vmm", "loadtest"]),
    ("sqlx", &["control", "loadtest"]),
    ("pingora*", &["edge"]),
];

/// Checks the dependencies of each crate, those of its tests included.
pub(super) fn check(packages: &[Package]) -> Vec<Violation> {
    packages
        .iter()
        .flat_map(|package| {
            let messages = package
                .dependencies
                .iter()
                .flat_map(|dependency| check_dependency(package, dependency, packages));
            messages.map(|message| Violation::of(&package.name, message))
        })
        .collect()
}

fn check_dependency(package: &Package, dependency: &str, packages: &[Package]) -> Vec<String> {
    let mut messages = Vec::new();
    let name = &package.name;
    let is_ours = packages.iter().any(|other| other.name == dependency);
    let is_shared = SHARED_IDEAS.contains(&dependency);
    if is_ours && !is_shared && name.ends_with("-api") {
        messages.push(format!(
            "an -api crate depends on no other crate of the workspace, but on {dependency}"
        ));
    }
    if is_ours && PROGRAMS.contains(&dependency) && !may_combine_programs(package) {
        messages.push(format!(
            "only crates in deploy/ and loadtest may depend on {dependency}"
        ));
    }
    for (pattern, users) in RESERVED {
        if matches(pattern, dependency) && !users.contains(&name.as_str()) {
            messages.push(format!(
                "only {} may depend on {dependency}",
                users.join(" and ")
            ));
        }
    }
    messages
}

fn may_combine_programs(package: &Package) -> bool {
    package.dir.starts_with("deploy/") || package.name == "loadtest"
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations(name: &str, dir: &str, dependency: &str) -> usize {
        let others = ["pool", "pool-api", "edge", "vmm-api", "error-chain"]
            .map(|name| Package::example(name, name, &[]));
        let package = Package::example(name, dir, &[dependency]);
        check(&[&[package], &others[..]].concat()).len()
    }

    #[test]
    fn programs_are_combined_by_deploy_and_loadtest_only() {
        assert_eq!(violations("vmm", "vmm", "pool"), 1);
        assert_eq!(violations("catnap", "deploy/catnap", "edge"), 0);
        assert_eq!(violations("control", "control", "pool-api"), 0);
    }

    #[test]
    fn api_crates_depend_on_shared_ideas_only() {
        assert_eq!(violations("some-api", "some/api", "vmm-api"), 1);
        assert_eq!(violations("some-api", "some/api", "error-chain"), 0);
    }

    #[test]
    fn reserved_crates_are_refused_elsewhere() {
        assert_eq!(violations("control", "control", "pingora-core"), 1);
        assert_eq!(violations("control", "control", "kvm-ioctls"), 1);
        assert_eq!(violations("loadtest", "loadtest", "userfaultfd"), 0);
    }

    #[test]
    fn rules_name_existing_crates_only() {
        let workspace = crate::workspace::Workspace::find().unwrap();
        let packages = crate::tidy::packages::read(&workspace).unwrap();
        let users = RESERVED.iter().flat_map(|(_, users)| users.iter());
        for name in PROGRAMS.iter().chain(SHARED_IDEAS).chain(users) {
            assert!(
                packages.iter().any(|package| package.name == **name),
                "{name}"
            );
        }
        for (pattern, users) in RESERVED {
            let is_used = |package: &Package| {
                package
                    .dependencies
                    .iter()
                    .any(|name| matches(pattern, name))
            };
            for user in *users {
                let package = packages
                    .iter()
                    .find(|package| package.name == **user)
                    .unwrap();
                assert!(is_used(package), "{user} does not use {pattern}");
            }
        }
    }
}
