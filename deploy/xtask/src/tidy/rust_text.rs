//! The comments, string literals and identifiers of a Rust file.
//!
//! The compiler's tokens lack comments, so this is a scanner of its own. It never fails: text that is not Rust yields
//! some segments.

/// The kind of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A comment or the content of a string literal.
    Prose,
    /// An identifier.
    Identifier,
}

/// A comment, a string literal or an identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) kind: Kind,
    /// The line of its first character, from 1.
    pub(super) line: usize,
    /// Its content without comment markers, quotes and escapes. It has the line breaks of the file.
    pub(super) text: String,
}

/// Splits a Rust file. Line comments on consecutive lines are one segment.
pub(super) fn segments(text: &str) -> Vec<Segment> {
    let mut scanner = Scanner {
        rest: text,
        line: 1,
        comment_end: 0,
        segments: Vec::new(),
    };
    while scanner.step() {}
    scanner.segments
}

struct Scanner<'a> {
    rest: &'a str,
    line: usize,
    /// The line of the last line comment, which the next line may continue.
    comment_end: usize,
    segments: Vec<Segment>,
}

impl<'a> Scanner<'a> {
    /// Consumes one token or one other character; `false` at the end.
    fn step(&mut self) -> bool {
        let Some(first) = self.rest.chars().next() else {
            return false;
        };
        if self.rest.starts_with("//") {
            self.line_comment();
        } else if self.rest.starts_with("/*") {
            self.block_comment();
        } else if first == '"' {
            self.string(1);
        } else if first == '\'' {
            self.char_or_lifetime();
        } else if first.is_alphabetic() || first == '_' {
            self.word();
        } else if first.is_ascii_digit() {
            self.take_while(is_word);
        } else {
            self.take(first.len_utf8());
        }
        true
    }

    fn line_comment(&mut self) {
        let comment = self.take_while(|char| char != '\n');
        let text = comment.trim_start_matches('/').trim_start_matches('!');
        let continues = self.comment_end != 0 && self.comment_end + 1 == self.line;
        self.comment_end = self.line;
        match self.segments.last_mut() {
            Some(last) if continues && last.kind == Kind::Prose => {
                last.text.push('\n');
                last.text.push_str(text);
            }
            _ => self.push(Kind::Prose, self.line, text),
        }
    }

    fn block_comment(&mut self) {
        let line = self.line;
        let mut depth = 0_usize;
        let mut end = 0;
        while let Some(rest) = self.rest.get(end..).filter(|rest| !rest.is_empty()) {
            if rest.starts_with("/*") {
                depth += 1;
                end += 2;
            } else if rest.starts_with("*/") {
                depth = depth.saturating_sub(1);
                end += 2;
                if depth == 0 {
                    break;
                }
            } else {
                end += rest.chars().next().map_or(1, char::len_utf8);
            }
        }
        let text = self.take(end).replace(['*', '/'], " ");
        self.push(Kind::Prose, line, &text);
    }

    /// A string literal with escapes, whose opening quote ends at `open`.
    fn string(&mut self, open: usize) {
        let line = self.line;
        self.take(open);
        let mut text = String::new();
        while let Some(char) = self.rest.chars().next() {
            self.take(char.len_utf8());
            if char == '"' {
                break;
            }
            if char == '\\' {
                // An escape separates words; a line break after the backslash stays.
                text.push(' ');
                let escaped = self.rest.chars().next();
                self.take(escaped.map_or(0, char::len_utf8));
                text.push(if escaped == Some('\n') { '\n' } else { ' ' });
            } else {
                text.push(char);
            }
        }
        self.push(Kind::Prose, line, &text);
    }

    fn raw_string(&mut self, open: usize, hashes: usize) {
        let line = self.line;
        self.take(open);
        let close = format!("\"{}", "#".repeat(hashes));
        let end = self.rest.find(&close).unwrap_or(self.rest.len());
        let text = self.take(end);
        self.push(Kind::Prose, line, text);
        self.take(close.len().min(self.rest.len()));
    }

    fn char_or_lifetime(&mut self) {
        let mut chars = self.rest.chars().skip(1);
        match (chars.next(), chars.next()) {
            (Some('\\'), _) => {
                // The escaped character may be a quote.
                self.take(2);
                let escaped = self.rest.chars().next();
                self.take(escaped.map_or(0, char::len_utf8));
                self.take_while(|char| char != '\'' && char != '\n');
                self.take(usize::from(self.rest.starts_with('\'')));
            }
            (Some(char), Some('\'')) => {
                self.take(2 + char.len_utf8());
            }
            // A lifetime: its name is an identifier.
            _ => {
                self.take(1);
            }
        }
    }

    /// An identifier, or the prefix of a string literal.
    fn word(&mut self) {
        let length = self
            .rest
            .find(|char| !is_word(char))
            .unwrap_or(self.rest.len());
        let (word, after) = self.rest.split_at(length);
        let hashes = after.len() - after.trim_start_matches('#').len();
        let opens = after[hashes..].starts_with('"');
        match word {
            "r" | "br" | "cr" if opens => self.raw_string(length + hashes + 1, hashes),
            "b" | "c" if opens && hashes == 0 => self.string(length + 1),
            // The character follows.
            "b" if after.starts_with('\'') => {
                self.take(length);
            }
            _ => {
                let line = self.line;
                let word = self.take(length);
                self.push(Kind::Identifier, line, word);
            }
        }
    }

    fn push(&mut self, kind: Kind, line: usize, text: &str) {
        self.segments.push(Segment {
            kind,
            line,
            text: text.to_owned(),
        });
    }

    fn take_while(&mut self, accept: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|char| !accept(char));
        self.take(end.unwrap_or(self.rest.len()))
    }

    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(text: &str) -> Vec<(Kind, usize, String)> {
        segments(text)
            .into_iter()
            .map(|segment| (segment.kind, segment.line, segment.text.trim().to_owned()))
            .collect()
    }

    fn prose(text: &str) -> Vec<String> {
        let found = found(text).into_iter();
        found
            .filter(|(kind, ..)| *kind == Kind::Prose)
            .map(|(_, _, text)| text)
            .collect()
    }

    #[test]
    fn consecutive_line_comments_are_one_segment() {
        let text = "//! One\n//! two.\n\n/// Three.\nfn f() {} // four\n";
        let expected = [
            (Kind::Prose, 1, "One\n two."),
            (Kind::Prose, 4, "Three."),
            (Kind::Identifier, 5, "fn"),
            (Kind::Identifier, 5, "f"),
            (Kind::Prose, 5, "four"),
        ];
        let expected = expected.map(|(kind, line, text)| (kind, line, text.to_owned()));
        assert_eq!(found(text), expected);
    }

    #[test]
    fn string_literals_are_read_without_their_escapes() {
        assert_eq!(
            prose(r##"f("a\nb", b"c", r"d\", r#"e"f"#, c"g", "\"h\\")"##),
            ["a  b", "c", "d\\", "e\"f", "g", "h"]
        );
        assert_eq!(
            prose("\"is \\\n    here\"; /* a /* b */ c */"),
            ["is  \n    here", "a    b    c"]
        );
    }

    #[test]
    fn quotes_in_characters_open_no_string() {
        let text = "'\"'; b'\"'; '\\''; '\\u{22}'; &'a str; \"s\"";
        assert_eq!(prose(text), ["s"]);
        let names = found(text)
            .into_iter()
            .filter(|(kind, ..)| *kind == Kind::Identifier);
        let names: Vec<String> = names.map(|(_, _, text)| text).collect();
        assert_eq!(names, ["a", "str"]);
    }

    proptest! {
        #[test]
        fn any_text_is_scanned_to_its_end(text in "[a-z/*!'\"\\\\#rb\n é]{0,60}") {
            let last = segments(&text).pop();
            prop_assert!(last.is_none_or(|last| last.line <= text.matches('\n').count() + 1));
        }
    }
}
