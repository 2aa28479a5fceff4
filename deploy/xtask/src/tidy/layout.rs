//! Length and name of a file, and the first lines of a crate.

use std::path::Path;

use super::{File, Package, Violation};

/// The most lines of a file, its tests included.
const MAX_LINES: usize = 400;
/// Names that do not describe the content of a module.
const EMPTY_NAMES: &[&str] = &[
    "mod", "utils", "util", "common", "helpers", "helper", "misc",
];

/// Checks one file by itself.
pub(super) fn check(file: &File) -> Vec<Violation> {
    if !file.has_extension("rs") {
        return Vec::new();
    }
    let mut violations = Vec::new();
    let stem = Path::new(&file.path)
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    if EMPTY_NAMES.contains(&stem) {
        violations.push(Violation::of(
            &file.path,
            format!("the name '{stem}' does not describe the content of the module"),
        ));
    }
    let lines = file.text.lines().count();
    if lines > MAX_LINES {
        violations.push(Violation::of(
            &file.path,
            format!("{lines} lines, the limit is {MAX_LINES}: extract a type into its own module"),
        ));
    }
    violations
}

/// Checks the first lines of each library and program.
pub(super) fn check_roots(files: &[File], packages: &[Package]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for package in packages {
        let sys = format!("{}/src/sys.rs", package.dir);
        let has_sys = files.iter().any(|file| file.path == sys);
        for root in &package.roots {
            match files.iter().find(|file| file.path == *root) {
                Some(file) => violations.extend(check_root(file, has_sys)),
                None => violations.push(Violation::of(root, "git does not track the crate root")),
            }
        }
    }
    violations
}

fn check_root(file: &File, has_sys: bool) -> Vec<Violation> {
    let mut violations = Vec::new();
    if !file.text.starts_with("//!") {
        violations.push(Violation::of(
            &file.path,
            "a crate root begins with its description (//!)",
        ));
    }
    let forbids = file
        .text
        .lines()
        .any(|line| line.trim() == "#![forbid(unsafe_code)]");
    // A library with a sys module denies instead, which the lints of the workspace ensure.
    let denies = has_sys && (file.path.ends_with("/lib.rs") || file.text.contains("mod sys;"));
    if !forbids && !denies {
        violations.push(Violation::of(
            &file.path,
            "a crate without a sys module begins with #![forbid(unsafe_code)]",
        ));
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    fn violations(path: &str, text: &str) -> usize {
        check(&file(path, text)).len()
    }

    #[test]
    fn sources_and_test_files_have_one_limit() {
        let code = "fn f() {}\n".repeat(MAX_LINES);
        let long = format!("{code}fn g() {{}}\n");
        for path in ["a/src/b.rs", "a/src/b/tests.rs", "a/tests/c.rs"] {
            assert_eq!(violations(path, &code), 0);
            assert_eq!(violations(path, &long), 1);
        }
    }

    #[test]
    fn names_without_meaning_are_refused() {
        assert_eq!(violations("a/src/utils.rs", ""), 1);
        assert_eq!(violations("a/src/b/mod.rs", ""), 1);
        assert_eq!(violations("a/src/utilization.rs", ""), 0);
    }

    #[test]
    fn crate_root_has_description_and_forbids_unsafe() {
        let root = |text, has_sys| check_root(&file("a/src/lib.rs", text), has_sys).len();
        assert_eq!(root("//! A.\n#![forbid(unsafe_code)]\n", false), 0);
        assert_eq!(root("fn f() {}\n", false), 2);
        assert_eq!(root("//! A.\nmod sys;\n", true), 0);
        let untracked = check_roots(&[], &[Package::example("a", "a", &[])]);
        assert_eq!(untracked.len(), 1);
    }
}
