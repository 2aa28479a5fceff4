//! Relative links resolve, and no document or source contains a path of a developer's machine.

use std::sync::LazyLock;

use regex::Regex;

use super::{File, Violation};

/// Directories of machines the project is developed on. The guest's own home is [`GUEST_HOME`].
static MACHINE_PATH: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?:^|[^\w.])(/(?:work|tmp/wt|home)/[\w.-]+)").ok());
static LINK: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\]\(([^)\s]+)\)").ok());
const GUEST_HOME: &str = "/home/user";

/// Reports each path of a developer's machine in sources and documents.
pub(super) fn check_machine_paths(file: &File) -> Vec<Violation> {
    let mut violations = Vec::new();
    if !file.has_extension("rs") && !file.has_extension("md") {
        return violations;
    }
    for (at, line) in file.text.lines().enumerate() {
        for path in captures(&MACHINE_PATH, line) {
            if path != GUEST_HOME {
                violations.push(Violation::at(
                    &file.path,
                    at + 1,
                    format!("{path} is a path of a developer's machine"),
                ));
            }
        }
    }
    violations
}

/// Reports each relative link of a document in the workspace root whose target does not exist.
pub(super) fn check_links(file: &File, files: &[File]) -> Vec<Violation> {
    let mut violations = Vec::new();
    if !file.has_extension("md") || file.path.contains('/') {
        return violations;
    }
    for (at, line) in file.text.lines().enumerate() {
        for link in captures(&LINK, line) {
            let target = link.split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains(':') && !exists(target, files) {
                violations.push(Violation::at(
                    &file.path,
                    at + 1,
                    format!("the target of the link {link} does not exist"),
                ));
            }
        }
    }
    violations
}

/// Returns whether a path is a file, or a directory with files.
fn exists(target: &str, files: &[File]) -> bool {
    let target = target.trim_end_matches('/');
    files.iter().any(|file| {
        file.path
            .strip_prefix(target)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// The first group of each match of `pattern`.
fn captures<'t>(pattern: &'static LazyLock<Option<Regex>>, text: &'t str) -> Vec<&'t str> {
    let matches = pattern
        .iter()
        .flat_map(|pattern| pattern.captures_iter(text));
    matches
        .filter_map(|found| found.get(1))
        .map(|group| group.as_str())
        .collect()
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

    #[test]
    fn machine_paths_are_reported() {
        for dir in ["/work", "/tmp/wt", "/home"] {
            let text = format!("see {dir}/alice/x");
            assert_eq!(check_machine_paths(&file("a.md", &text)).len(), 1, "{text}");
        }
        let good = file("a.md", "a/work/b, /home/user/x, /etc/hosts");
        assert_eq!(check_machine_paths(&good), []);
    }

    #[test]
    fn links_without_a_target_are_reported() {
        let text = "[a](A.md) [d](dir/)\n[b](B.md#c) [web](https://x.example/y) [here](#part)";
        let files = [file("R.md", text), file("A.md", ""), file("dir/x.rs", "")];
        assert_eq!(
            check_links(&files[0], &files),
            [Violation::at(
                "R.md",
                2,
                "the target of the link B.md#c does not exist"
            )]
        );
    }
}
