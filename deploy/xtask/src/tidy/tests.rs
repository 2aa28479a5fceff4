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
fn violations(path: &str, text: &str, dependencies: &[&str]) -> Vec<String> {
    let mut files = workspace();
    files.retain(|file| file.path != path);
    files.push(file(path, text));
    check(&files, &[Package::example("x", "x", dependencies)])
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn workspace_that_follows_the_rules_has_no_violations() {
    assert_eq!(
        violations("README.md", "[spec](SPECIFICATION.md)", &[]),
        [""; 0]
    );
}

#[test]
fn every_rule_has_a_failing_example() {
    let refused_word = ["some", "body"].concat();
    let machine_path = ["/home", "/alice"].concat();
    let long = format!("fn f() {{}}\n{}", "// line\n".repeat(400));
    let long_name = format!("#[test]\nfn {}() {{}}\n", "a".repeat(61));
    let misplaced = "#[cfg(test)]\nmod test {\n#[test]\nfn f() {}\n}\n";
    let no_tests = SPECIFICATION.replace("tests: `works`", "pending");
    let absent_after_semicolon = SPECIFICATION.replace("`works`", "`works`; with Linux `absent`");
    let cases: &[(&str, &str, &str)] = &[
        (
            "x/src/b.rs",
            "pub struct B(crate::a::A);",
            "import cycle a -> b -> a",
        ),
        ("x/src/b.rs", "pub struct B", "not valid Rust"),
        ("x/src/b.rs", &long, "401 lines"),
        ("x/tests/u.rs", &long, "401 lines"),
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
        ("README.md", &machine_path, "developer's machine"),
        ("SPECIFICATION.md", &no_tests, "names no test"),
        (
            "SPECIFICATION.md",
            &absent_after_semicolon,
            "no test absent",
        ),
        ("x/tests/u.rs", TEST, "works names 2 tests"),
        ("x/tests/t.rs", "fn works() {}", "no test works"),
        ("x/tests/u.rs", &long_name, "61 characters"),
        (
            "x/src/b.rs",
            misplaced,
            "not in a module or file named tests",
        ),
        (
            "x/src/b.rs",
            "fn f() { unsafe { g() } }",
            "unsafe outside of sys",
        ),
        ("README.md", &refused_word, "refused word"),
    ];
    for (path, text, expected) in cases {
        let found = violations(path, text, &[]);
        assert!(
            matches!(found.as_slice(), [only] if only.contains(expected)),
            "{expected}: {found:?}"
        );
    }
    let found = violations("README.md", "", &["sqlx"]);
    assert!(
        found[0].contains("only control may depend on sqlx"),
        "{found:?}"
    );
}
