//! Rules for source files.

use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};

use super::documents;

/// Most lines of a file before its tests.
const CEILING: usize = 400;
/// Names that say nothing about what is in a module.
const EMPTY_NAMES: &[&str] = &[
    "mod", "utils", "util", "common", "helpers", "helper", "misc",
];

/// Checks one file by itself.
pub(super) fn check(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let stem = Path::new(path)
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    if EMPTY_NAMES.contains(&stem) {
        complaints.push(format!(
            "{path}: a module is named after what is in it, and '{stem}' says nothing"
        ));
    }
    let lines = lines_before_tests(text);
    if lines > CEILING && !is_test(path) {
        complaints.push(format!(
            "{path}: {lines} lines before its tests, and {CEILING} are the most"
        ));
    }
    if !is_sys(path) {
        match unsafe_lines(text) {
            Ok(found) => complaints.extend(
                found
                    .iter()
                    .map(|line| format!("{path}:{line}: unsafe outside of sys")),
            ),
            Err(why) => complaints.push(format!("{path}: cannot be read as Rust: {why}")),
        }
    }
    complaints.extend(documents::check_paths(path, text));
    complaints
}

/// Checks the file a crate begins with.
pub(super) fn check_root(path: &str, text: &str, has_sys: bool) -> Vec<String> {
    let mut complaints = Vec::new();
    if !text.starts_with("//!") {
        complaints.push(format!("{path}: a crate begins with what it is (//!)"));
    }
    let forbidden = text
        .lines()
        .any(|line| line.trim() == "#![forbid(unsafe_code)]");
    // A library with a sys module denies instead; the workspace's lints see to that.
    let denies = has_sys && (path.ends_with("/lib.rs") || text.contains("mod sys;"));
    if !forbidden && !denies {
        complaints.push(format!(
            "{path}: a crate without a sys module begins with #![forbid(unsafe_code)]"
        ));
    }
    complaints
}

fn lines_before_tests(text: &str) -> usize {
    let mut lines = text.lines().enumerate().peekable();
    while let Some((at, line)) = lines.next() {
        let module = lines
            .peek()
            .is_some_and(|(_, next)| next.starts_with("mod test"));
        if line == "#[cfg(test)]" && module {
            return at;
        }
    }
    text.lines().count()
}

/// A file that is nothing but tests.
fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

fn is_sys(path: &str) -> bool {
    path.ends_with("/src/sys.rs") || path.contains("/src/sys/")
}

/// The lines with the keyword `unsafe`, by Rust's own tokens: comments and texts are none.
fn unsafe_lines(text: &str) -> Result<Vec<usize>, String> {
    let tokens: TokenStream = text
        .parse()
        .map_err(|error: proc_macro2::LexError| error.to_string())?;
    let mut found = Vec::new();
    collect_unsafe(tokens, &mut found);
    Ok(found)
}

fn collect_unsafe(tokens: TokenStream, found: &mut Vec<usize>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => collect_unsafe(group.stream(), found),
            TokenTree::Ident(ident) if ident == "unsafe" => found.push(ident.span().start().line),
            TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn unsafe_is_found_in_code_and_nowhere_else() {
        let text = "// unsafe\nconst A: &str = \"unsafe\";\nfn f() { loop { unsafe { g() } } }\n#![forbid(unsafe_code)]\n";
        assert_eq!(unsafe_lines(text).unwrap(), [3]);
        assert_eq!(check("a/src/b.rs", text).len(), 1);
        assert!(check("a/src/sys/b.rs", text).is_empty());
        assert!(unsafe_lines("fn f( {").is_err());
    }

    #[test]
    fn tests_do_not_count_as_length() {
        let code = "fn f() {}\n".repeat(CEILING);
        assert!(
            check(
                "a/src/b.rs",
                &format!("{code}#[cfg(test)]\nmod test {{\n}}\n")
            )
            .is_empty()
        );
        assert_eq!(
            check("a/src/b.rs", &format!("{code}fn g() {{}}\n")).len(),
            1
        );
        assert!(check("a/src/b/tests.rs", &format!("{code}fn g() {{}}\n")).is_empty());
    }

    #[test]
    fn names_that_say_nothing_are_refused() {
        assert_eq!(check("a/src/utils.rs", "").len(), 1);
        assert_eq!(check("a/src/b/mod.rs", "").len(), 1);
        assert!(check("a/src/utilization.rs", "").is_empty());
    }

    #[test]
    fn a_crate_says_what_it_is_and_forbids_unsafe() {
        assert!(check_root("a/src/lib.rs", "//! A.\n#![forbid(unsafe_code)]\n", false).is_empty());
        assert_eq!(check_root("a/src/lib.rs", "fn f() {}\n", false).len(), 2);
        assert!(check_root("a/src/lib.rs", "//! A.\nmod sys;\n", true).is_empty());
    }
}
