//! Rules for documents: links lead somewhere, promises name tests that exist, and no path of somebody's machine is in.

use std::{collections::BTreeSet, sync::LazyLock};

use regex::Regex;

/// A path of a machine the project was written on. A guest's own home is none.
static MACHINE_PATH: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?:^|[^\w.])(/(?:work|tmp/wt|home)/[\w.-]+)").ok());
static LINK: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\]\(([^)\s]+)\)").ok());
static TEST: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"(?m)^\s*(?:pub(?:\([a-z]+\))? )?(?:async )?fn ([a-z0-9_]+)").ok()
});
static PROMISE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"`?tests?: *`?([a-z0-9_:, `]+)").ok());

/// Names the lines with a path of a machine.
pub(super) fn check_paths(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for found in all(&MACHINE_PATH, line) {
            if found != "/home/user" {
                complaints.push(format!(
                    "{path}:{}: {found} is a path of somebody's machine",
                    at + 1
                ));
            }
        }
    }
    complaints
}

/// Names the relative links that lead nowhere.
pub(super) fn check_links(path: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut complaints = Vec::new();
    for link in all(&LINK, text) {
        let file = link.split('#').next().unwrap_or_default();
        if !file.is_empty() && !file.contains(':') && !exists(file) {
            complaints.push(format!("{path}: the link to {link} leads nowhere"));
        }
    }
    complaints
}

/// Names the tests that a table of promises speaks of and that do not exist.
pub(super) fn check_promises(path: &str, text: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let mut complaints = Vec::new();
    for row in text
        .lines()
        .filter(|line| line.trim_start().starts_with('|'))
    {
        for names in all(&PROMISE, row) {
            let names = names.split([',', ' ', '`']).filter(|name| !name.is_empty());
            for name in names {
                let last = name.rsplit("::").next().unwrap_or(name);
                if !tests.contains(last) {
                    complaints.push(format!("{path}: there is no test {name}"));
                }
            }
        }
    }
    complaints
}

/// The names of all functions that could be tests.
pub(super) fn test_names<'a>(sources: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    sources
        .flat_map(|text| all(&TEST, text))
        .map(str::to_owned)
        .collect()
}

/// What the first group of a pattern matches, everywhere in `text`.
fn all<'t>(pattern: &'static LazyLock<Option<Regex>>, text: &'t str) -> Vec<&'t str> {
    let matches = pattern
        .iter()
        .flat_map(|pattern| pattern.captures_iter(text));
    matches
        .filter_map(|found| found.get(1))
        .map(|group| group.as_str())
        .collect()
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn every_pattern_is_one() {
        for pattern in [&MACHINE_PATH, &LINK, &TEST, &PROMISE] {
            assert!(pattern.is_some());
        }
    }

    #[test]
    fn paths_of_machines_are_found() {
        let bad = ["/work", "/tmp/wt", "/home"].map(|dir| format!("see {dir}/somebody/x"));
        for text in &bad {
            assert_eq!(check_paths("a.md", text).len(), 1, "{text}");
        }
        assert!(check_paths("a.md", "a/work/b, /home/user/x, /etc/hosts").is_empty());
    }

    #[test]
    fn links_lead_somewhere() {
        let text = "[a](A.md) [b](B.md#c) [web](https://x.example/y) [here](#part)";
        let complaints = check_links("R.md", text, |file| file == "A.md");
        assert_eq!(complaints, ["R.md: the link to B.md#c leads nowhere"]);
    }

    #[test]
    fn promises_name_tests_that_exist() {
        let source = "#[test]\nfn a_holds() {}\n    #[tokio::test]\n    async fn b_holds() {}\n";
        let tests = test_names([source].into_iter());
        let text = "| promise | tests: `a_holds`, `pool::test::b_holds` |\n| other | tests: `c_holds` |\n| x | pending |\n";
        assert_eq!(
            check_promises("S.md", text, &tests),
            ["S.md: there is no test c_holds"]
        );
    }
}
