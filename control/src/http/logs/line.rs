//! Lines of a console.
//!
//! The monitor prefixes each line with its time and a space. The rest comes from the guest and is not trusted.

use crate::time::Micros;

/// A line that is safe to display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// When the line began.
    pub(super) at: Micros,
    /// Its text, without control characters except tabs.
    pub(super) text: String,
}

/// Whether the console is complete at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// The first line is complete.
    Complete,
    /// The first line may be cut and is dropped.
    Truncated,
}

/// Parses a console. A line without a time has that of the line before it; the first ones have `first`.
pub(super) fn parse(bytes: &[u8], start: Start, first: Micros) -> Vec<Line> {
    let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    if lines.last().is_some_and(|last| last.is_empty()) {
        lines.pop();
    }
    let skipped = match start {
        Start::Complete => 0,
        Start::Truncated => 1,
    };
    let mut at = first;
    let complete = lines.into_iter().skip(skipped);
    complete
        .map(|line| {
            let (time, text) = split_time(line);
            at = time.unwrap_or(at);
            Line {
                at,
                text: sanitize(text),
            }
        })
        .collect()
}

fn split_time(line: &[u8]) -> (Option<Micros>, &[u8]) {
    /// `2026-11-22T01:35:11.872215Z`
    const MAX_TIME_LEN: usize = 27;
    let end = line
        .iter()
        .take(MAX_TIME_LEN + 1)
        .position(|byte| *byte == b' ');
    let end = end.unwrap_or(line.len());
    let prefix = line.get(..end).filter(|prefix| prefix.ends_with(b"Z"));
    let time = prefix
        .and_then(|prefix| std::str::from_utf8(prefix).ok())
        .and_then(Micros::parse);
    match time {
        Some(_) => (time, line.get(end + 1..).unwrap_or_default()),
        None => (None, line),
    }
}

fn sanitize(text: &[u8]) -> String {
    let printable = |c: &char| *c == '\t' || !c.is_control();
    String::from_utf8_lossy(text)
        .chars()
        .filter(printable)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST: Micros = Micros(7);

    #[test]
    fn lines_without_a_time_inherit_the_previous_one() {
        let console = b"early\n2026-11-22T01:35:11.872215Z Welcome\r\n\tmore \x1b[31mred\xff\n\
                        2026-11-22T01:35:12.000001Z\n2026-11-22T01:35:13Z last";
        let lines = parse(console, Start::Complete, FIRST);
        let parsed: Vec<(String, &str)> = lines
            .iter()
            .map(|line| (line.at.to_string(), line.text.as_str()))
            .collect();
        let expected = [
            ("1970-01-01T00:00:00.000007Z", "early"),
            ("2026-11-22T01:35:11.872215Z", "Welcome"),
            ("2026-11-22T01:35:11.872215Z", "\tmore [31mred\u{fffd}"),
            ("2026-11-22T01:35:12.000001Z", ""),
            ("2026-11-22T01:35:13.000000Z", "last"),
        ];
        assert_eq!(parsed, expected.map(|(at, text)| (at.to_owned(), text)));
        assert_eq!(parse(console, Start::Truncated, FIRST).len(), 4);
        assert_eq!(parse(b"", Start::Complete, FIRST), []);
    }

    proptest! {
        #[test]
        fn any_console_is_sanitized(bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in any::<bool>()) {
            let start = if cut { Start::Truncated } else { Start::Complete };
            for line in parse(&bytes, start, FIRST) {
                prop_assert!(line.text.chars().all(|c| c == '\t' || !c.is_control()));
            }
        }
    }
}
