use super::*;

fn file(path: &str, text: &str) -> File {
    File {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}

const ROOT: &str = "//! Crate.\n#![forbid(unsafe_code)]\nmod a;\nmod b;\n";
const SPECIFICATION: &str = "| promise | held by |\n| --- | --- |\n| x | tests: `works` |\n";
const TEST: &str = "#[test]\nfn works() {}\n";

/// A workspace of one crate without violations.
fn workspace() -> Vec<File> {
    vec![
        file("x/src/lib.rs", ROOT),
        file("x/src/a.rs", "use crate::b::B;\npub struct A;\n"),
        file("x/src/b.rs", "pub struct B;\n"),
        file("x/tests/t.rs", TEST),
        file("SPECIFICATION.md", SPECIFICATION),
    ]
}

/// The violations after one file was replaced or added.
fn violations(path: &str, text: &str) -> Vec<String> {
    let mut files = workspace();
    files.retain(|file| file.path != path);
    files.push(file(path, text));
    messages(&check(&files, &[Package::example("x", "x", &[])]))
}

/// The violations after crate x was renamed to `name` and got a dependency.
fn dependency_violations(name: &str, dependency: &str) -> Vec<String> {
    let package = Package::example(name, "x", &[dependency]);
    let others = ["pool", "pool-api"].map(|name| Package {
        roots: Vec::new(),
        ..Package::example(name, name, &[])
    });
    messages(&check(&workspace(), &[&[package], &others[..]].concat()))
}

fn messages(violations: &[Violation]) -> Vec<String> {
    violations.iter().map(ToString::to_string).collect()
}

#[test]
fn workspace_that_follows_the_rules_has_no_violations() {
    assert_eq!(violations("README.md", "[spec](SPECIFICATION.md)"), [""; 0]);
}

/// A file, its text, and the violation that it causes.
const EXAMPLES: &[(&str, &str, &str)] = &[
    (
        "x/src/b.rs",
        "pub struct B(crate::a::A);",
        "import cycle a -> b -> a",
    ),
    ("x/src/b.rs", "pub struct B", "not valid Rust"),
    (
        "x/src/b.rs",
        "fn f() { unsafe { g() } }",
        "unsafe outside of sys",
    ),
    (
        "x/src/b.rs",
        "#[cfg(test)]\nmod test {\n#[test]\nfn f() {}\n}\n",
        "not in a module or file named tests",
    ),
    ("x/src/utils.rs", "", "does not describe"),
    (
        "x/src/lib.rs",
        "#![forbid(unsafe_code)]",
        "begins with its description",
    ),
    (
        "x/src/lib.rs",
        "//! Crate.",
        "begins with #![forbid(unsafe_code)]",
    ),
    (
        "README.md",
        "[spec](SPEC.md)",
        "link SPEC.md does not exist",
    ),
    (
        "README.md",
        concat!("/home", "/alice"),
        "developer's machine",
    ),
    ("README.md", concat!("some", "body"), "refused word"),
    ("x/tests/u.rs", TEST, "works names 2 tests"),
    ("x/tests/t.rs", "fn works() {}", "no test works"),
    (
        "SPECIFICATION.md",
        "| promise | held by |\n| --- | --- |\n| x | tests: `works`; with Linux `absent` |\n",
        "no test absent",
    ),
    (
        "SPECIFICATION.md",
        "| promise | held by |\n| --- | --- |\n| x | pending |\n",
        "names no test",
    ),
    (
        "SPECIFICATION.md",
        "| promise | held by |\n| --- | --- |\n| x | scenario `absent` |\n",
        "no load scenario absent",
    ),
];

/// A crate, its dependency in the workspace or outside it, and the violation that it causes.
const DEPENDENCY_EXAMPLES: &[(&str, &str, &str)] = &[
    (
        "edge",
        "pool",
        "only crates in deploy/ and loadtest may depend on pool",
    ),
    (
        "vmm-api",
        "pool-api",
        "an -api crate depends on no other crate of the workspace, but on pool-api",
    ),
    (
        "guest",
        "sqlx",
        "only control and loadtest may depend on sqlx",
    ),
];

fn assert_only(violations: &[String], expected: &str) {
    assert!(
        matches!(violations, [only] if only.contains(expected)),
        "{expected}: {violations:?}"
    );
}

#[test]
fn every_rule_has_a_failing_example() {
    for (path, text, expected) in EXAMPLES {
        assert_only(&violations(path, text), expected);
    }
    let long = format!("fn f() {{}}\n{}", "// line\n".repeat(400));
    for path in ["x/src/b.rs", "x/tests/u.rs"] {
        assert_only(&violations(path, &long), "401 lines");
    }
    let long_name = format!("#[test]\nfn {}() {{}}\n", "a".repeat(61));
    assert_only(&violations("x/tests/u.rs", &long_name), "61 characters");
    for (name, dependency, expected) in DEPENDENCY_EXAMPLES {
        assert_only(&dependency_violations(name, dependency), expected);
    }
}
