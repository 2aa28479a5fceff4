//! Names of tests and of their modules.

use super::{Violation, test_functions::TestFunction};

/// The longest name of a test function, in characters.
const MAX_LENGTH: usize = 60;

/// Reports tests with long names, and tests under `src` outside a module `tests`.
pub(super) fn check(tests: &[TestFunction]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for test in tests {
        let name = &test.name;
        if name.len() > MAX_LENGTH {
            violations.push(Violation::at(
                &test.path,
                test.line,
                format!(
                    "test name {name} has {} characters, the limit is {MAX_LENGTH}",
                    name.len()
                ),
            ));
        }
        if test.path.contains("/src/") && !test.modules.iter().any(|module| module == "tests") {
            violations.push(Violation::at(
                &test.path,
                test.line,
                format!("test {name} is not in a module or file named tests"),
            ));
        }
    }
    violations
}
