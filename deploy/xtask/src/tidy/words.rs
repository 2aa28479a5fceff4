//! Prose and names use the field's terms: metaphors and vague subjects are refused.
//!
//! Prose is every comment, string literal and document; names are identifiers and file names. This file alone may contain
//! the refused words.

use std::{collections::BTreeSet, sync::LazyLock};

use regex::Regex;

use super::{
    File, Violation,
    rust_text::{self, Kind},
};

/// Regular expressions of refused words. A space stands for any white space.
const REFUSED: &[&str] = &[
    // Vague subjects.
    "somebody",
    "nobody",
    "whoever",
    "someone",
    // Vague verbs.
    "told",
    "tells whether",
    "(?:is|are) said",
    "lets? go",
    "(?:go|goes|went) on",
    "(?:write|writes|written|wrote) down",
    "puts? back",
    "as good as",
    "so many",
    // Metaphors.
    "asleep",
    "crowds?",
    "doomed",
    "doors?",
    "farewells?",
    "figures",
    "goodbyes?",
    "graves?",
    "guises?",
    "patience",
    "seats?",
    "vigils?",
    "wish(?:es)?",
];

/// Files that are not checked: this one, the licence, migrations (their checksums are in deployed databases), and the
/// generated lists of dependencies.
const EXEMPT: &[&str] = &[
    "deploy/xtask/src/tidy/words.rs",
    "LICENSE",
    "control/migrations/",
    "Cargo.lock",
    "fuzz/Cargo.lock",
    "fuzz/corpus/",
];

static PATTERN: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let words = REFUSED.join("|").replace(' ', r"\s+");
    Regex::new(&format!(r"(?i)\b(?:{words})\b")).ok()
});

/// Reports each refused word, and each name with one.
pub(super) fn check(file: &File) -> Vec<Violation> {
    if EXEMPT.iter().any(|exempt| file.path.starts_with(exempt)) {
        return Vec::new();
    }
    let mut violations = Vec::new();
    if let Some(word) = refused_in_name(&file.path).first() {
        let message = format!("the name of the file contains the refused word '{word}'");
        violations.push(Violation::of(&file.path, message));
    }
    if !file.has_extension("rs") {
        violations.extend(check_prose(&file.path, 1, &file.text));
        return violations;
    }
    let mut names = BTreeSet::new();
    for segment in rust_text::segments(&file.text) {
        match segment.kind {
            Kind::Prose => {
                violations.extend(check_prose(&file.path, segment.line, &segment.text));
            }
            Kind::Identifier => {
                let Some(word) = refused_in_name(&segment.text).into_iter().next() else {
                    continue;
                };
                let message = format!("{} contains the refused word '{word}'", segment.text);
                if names.insert(segment.text) {
                    violations.push(Violation::at(&file.path, segment.line, message));
                }
            }
        }
    }
    violations
}

fn check_prose(path: &str, first_line: usize, text: &str) -> Vec<Violation> {
    refused(text)
        .into_iter()
        .map(|(at, word)| {
            let line = first_line + text[..at].matches('\n').count();
            Violation::at(path, line, format!("refused word '{word}'"))
        })
        .collect()
}

/// The refused words in a text, with their offsets and on one line.
fn refused(text: &str) -> Vec<(usize, String)> {
    let matches = PATTERN.iter().flat_map(|pattern| pattern.find_iter(text));
    matches
        .map(|found| {
            let words: Vec<&str> = found.as_str().split_whitespace().collect();
            (found.start(), words.join(" "))
        })
        .collect()
}

/// The refused words among the parts of a name.
fn refused_in_name(name: &str) -> Vec<String> {
    refused(&split_name(name))
        .into_iter()
        .map(|(_, word)| word)
        .collect()
}

/// Separates the parts of `snake_case`, `CamelCase` and paths by spaces.
fn split_name(name: &str) -> String {
    let mut words = String::new();
    let mut after_lower = false;
    for char in name.chars() {
        if char.is_uppercase() && after_lower {
            words.push(' ');
        }
        after_lower = char.is_lowercase();
        words.push(if char.is_alphanumeric() { char } else { ' ' });
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations(path: &str, text: &str) -> Vec<String> {
        let file = File {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        check(&file).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn refused_words_in_comments_and_strings_are_reported() {
        assert!(PATTERN.is_some());
        let text = "/// Stops when it is\n/// told so.\nconst A: &str = \"lets \\\n  go\";\n// A 'Goodbye'.\n";
        assert_eq!(
            violations("a.rs", text),
            [
                "a.rs:2: refused word 'told'",
                "a.rs:3: refused word 'lets go'",
                "a.rs:5: refused word 'Goodbye'"
            ]
        );
        assert_eq!(violations("a.py", "x = 1\n# so\n# many"), [""; 0]);
        assert_eq!(
            violations("a.md", "one\nor so\nmany"),
            ["a.md:2: refused word 'so many'"]
        );
    }

    #[test]
    fn refused_words_in_names_are_reported_once_a_file() {
        let text = "struct FrontDoor; fn let_go(_: FrontDoor) {} fn doorstep() {} fn outdoors() {}";
        assert_eq!(
            violations("a.rs", text),
            [
                "a.rs:1: FrontDoor contains the refused word 'Door'",
                "a.rs:1: let_go contains the refused word 'let go'"
            ]
        );
        assert_eq!(
            violations("a/doors.rs", ""),
            ["a/doors.rs: the name of the file contains the refused word 'doors'"]
        );
    }

    #[test]
    fn words_that_contain_a_refused_one_pass() {
        let text = "// Wished-for seating: the graveyard engraves impatience; lets gophers configure figure 1.\n";
        assert_eq!(violations("a.rs", text), [""; 0]);
    }

    #[test]
    fn exempt_files_are_not_checked() {
        for path in ["LICENSE", "control/migrations/0001.sql", "Cargo.lock"] {
            assert_eq!(violations(path, "told"), [""; 0], "{path}");
        }
    }
}
