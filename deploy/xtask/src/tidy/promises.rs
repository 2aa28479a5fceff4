//! Each promise of the specification is held by tests or load scenarios that exist.

use std::sync::LazyLock;

use regex::Regex;

use super::{File, Violation, test_functions::TestFunction};

const SPECIFICATION: &str = "SPECIFICATION.md";
/// Tables with this column list limits and name no test.
const LIMIT_COLUMN: &str = "limit";

/// A name in backticks, with the words before it in its cell.
static NAME: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"([^`]*)`([^`]+)`").ok());

/// Checks every row of every promise table.
pub(super) fn check(files: &[File], tests: &[TestFunction]) -> Vec<Violation> {
    let Some(specification) = files.iter().find(|file| file.path == SPECIFICATION) else {
        return Vec::new();
    };
    let scenario_exists = |name: &str| {
        has_file(
            files,
            &format!("loadtest/src/{}.rs", name.replace('-', "_")),
        )
    };
    let mut violations = Vec::new();
    for (line, row) in promise_rows(&specification.text) {
        let held_by = cells(row).pop().unwrap_or_default();
        let violation = |message: String| Violation::at(SPECIFICATION, line, message);
        let references = references(held_by);
        if references.is_empty() {
            violations.push(violation(
                "the row names no test and no load scenario in backticks".to_owned(),
            ));
        }
        for reference in references {
            match reference {
                Reference::Scenario(name) if !scenario_exists(name) => {
                    violations.push(violation(format!("there is no load scenario {name}")));
                }
                Reference::Scenario(_) => {}
                Reference::Test(name) => {
                    violations.extend(check_test(name, tests).map(violation));
                }
            }
        }
    }
    violations
}

enum Reference<'a> {
    Test(&'a str),
    Scenario(&'a str),
}

/// The rows of the promise tables, with their line numbers.
fn promise_rows(text: &str) -> Vec<(usize, &str)> {
    let mut rows = Vec::new();
    let mut in_promises = false;
    let mut previous = "";
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if !line.starts_with('|') {
            in_promises = false;
        } else if is_separator(line) {
            in_promises = !cells(previous).contains(&LIMIT_COLUMN);
        } else if in_promises {
            rows.push((at + 1, line));
        }
        previous = line;
    }
    rows
}

fn is_separator(line: &str) -> bool {
    line.contains('-') && line.chars().all(|char| "|-: ".contains(char))
}

fn cells(row: &str) -> Vec<&str> {
    row.trim_matches('|').split('|').map(str::trim).collect()
}

/// Every name in backticks: a scenario if the words before it say so, else a test.
fn references(cell: &str) -> Vec<Reference<'_>> {
    let found = NAME.iter().flat_map(|name| name.captures_iter(cell));
    found
        .filter_map(|found| {
            let before = found.get(1)?.as_str().trim_end();
            let name = found.get(2)?.as_str();
            let is_scenario = before.ends_with("scenario") || before.ends_with("scenarios");
            Some(if is_scenario {
                Reference::Scenario(name)
            } else {
                Reference::Test(name)
            })
        })
        .collect()
}

/// Resolves `name` or `module::name`, which must match exactly one test.
fn check_test(name: &str, tests: &[TestFunction]) -> Option<String> {
    let found: Vec<&TestFunction> = tests.iter().filter(|test| matches(name, test)).collect();
    match found.as_slice() {
        [] => Some(format!("there is no test {name}")),
        [_] => None,
        several => {
            let places: Vec<String> = several
                .iter()
                .map(|test| format!("{}:{}", test.path, test.line))
                .collect();
            Some(format!(
                "{name} names {} tests ({}): rename one, or write module::{name}",
                several.len(),
                places.join(", ")
            ))
        }
    }
}

/// Returns whether `name` is the end of the test's path. Modules called `tests` do not count.
fn matches(name: &str, test: &TestFunction) -> bool {
    let mut path = test.modules.iter().map(String::as_str).rev();
    let mut wanted = name.rsplit("::");
    if wanted.next() != Some(test.name.as_str()) {
        return false;
    }
    wanted
        .filter(|module| *module != "tests")
        .all(|module| path.find(|found| *found != "tests") == Some(module))
}

fn has_file(files: &[File], path: &str) -> bool {
    files.iter().any(|file| file.path == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(modules: &[&str], name: &str) -> TestFunction {
        TestFunction {
            name: name.to_owned(),
            modules: modules.iter().map(|module| (*module).to_owned()).collect(),
            path: format!("{}.rs", modules.join("/")),
            line: 1,
        }
    }

    fn check_row(row: &str) -> Vec<String> {
        let file = |path: &str, text: String| File {
            path: path.to_owned(),
            text,
        };
        let files = [
            file(
                SPECIFICATION,
                format!("| promise | held by |\n| --- | --- |\n| {row} |\n"),
            ),
            file("loadtest/src/wake.rs", String::new()),
        ];
        let tests = [
            test(&["pool", "gate", "tests"], "a"),
            test(&["pool", "tests"], "b"),
            test(&["edge", "tests"], "b"),
        ];
        check(&files, &tests)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn existing_and_qualified_tests_are_accepted() {
        assert_eq!(NAME.iter().count(), 1);
        for row in [
            "x | tests: `a`, `pool::b`; with a Linux guest `edge::b`",
            "x | tests: `gate::a`, `gate::tests::a`, `pool::gate::a`",
            "x `/health` | load scenario `wake`; 1.32 ms",
        ] {
            assert_eq!(check_row(row), [""; 0], "{row}");
        }
    }

    #[test]
    fn unknown_tests_are_reported_also_after_a_semicolon() {
        let violations = check_row("x | tests: `a`; with a Linux guest `c`, `edge::a`");
        assert_eq!(
            violations,
            [
                "SPECIFICATION.md:3: there is no test c",
                "SPECIFICATION.md:3: there is no test edge::a"
            ]
        );
        assert_eq!(check_row("x | load scenario `sleep`").len(), 1);
    }

    #[test]
    fn ambiguous_names_are_reported_with_their_places() {
        assert_eq!(
            check_row("x | tests: `b`"),
            [
                "SPECIFICATION.md:3: b names 2 tests (pool/tests.rs:1, edge/tests.rs:1): rename one, or write module::b"
            ]
        );
    }

    #[test]
    fn rows_without_a_test_are_reported() {
        assert_eq!(check_row("x | pending").len(), 1);
        assert_eq!(check_row("x `a` | tests: a").len(), 1);
    }

    #[test]
    fn limit_tables_name_no_tests() {
        let text = "| where | what | limit |\n| --- | --- | --- |\n| edge | x | `1` |\n";
        assert!(promise_rows(text).is_empty());
    }
}
