//! Lines of a console.
//!
//! The monitor begins each with the time it came and a space. What follows is the guest's own and may be anything.

use crate::time::Micros;

/// A line, harmless to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// When it came.
    pub(super) at: Micros,
    /// What it says: no control characters but tabs.
    pub(super) text: String,
}

/// Reads what a console has. `cut`: its beginning is missing, and so is that of its first line. A line without a time
/// came when the one before it came, and the first of them at `first`.
pub(super) fn read(bytes: &[u8], cut: bool, first: Micros) -> Vec<Line> {
    let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    if lines.last().is_some_and(|last| last.is_empty()) {
        lines.pop();
    }
    let mut at = first;
    let whole = lines.into_iter().skip(usize::from(cut));
    whole
        .map(|line| {
            let (time, rest) = stamped(line);
            at = time.unwrap_or(at);
            Line {
                at,
                text: harmless(rest),
            }
        })
        .collect()
}

fn stamped(line: &[u8]) -> (Option<Micros>, &[u8]) {
    /// `2026-11-22T01:35:11.872215Z`
    const LONGEST: usize = 27;
    let end = line.iter().take(LONGEST + 1).position(|byte| *byte == b' ');
    let end = end.unwrap_or(line.len());
    let stamp = line.get(..end).filter(|stamp| stamp.ends_with(b"Z"));
    let time = stamp
        .and_then(|stamp| std::str::from_utf8(stamp).ok())
        .and_then(Micros::parse);
    match time {
        Some(_) => (time, line.get(end + 1..).unwrap_or_default()),
        None => (None, line),
    }
}

fn harmless(text: &[u8]) -> String {
    let shown = |c: &char| *c == '\t' || !c.is_control();
    String::from_utf8_lossy(text)
        .chars()
        .filter(shown)
        .collect()
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::*;

    const FIRST: Micros = Micros(7);

    #[test]
    fn lines_have_the_time_they_came_or_that_of_the_one_before() {
        let console = b"early\n2026-11-22T01:35:11.872215Z Welcome\r\n\tmore \x1b[31mred\xff\n\
                        2026-11-22T01:35:12.000001Z\n2026-11-22T01:35:13Z last";
        let lines = read(console, false, FIRST);
        let got: Vec<(String, &str)> = lines
            .iter()
            .map(|line| (line.at.to_string(), line.text.as_str()))
            .collect();
        let want = [
            ("1970-01-01T00:00:00.000007Z", "early"),
            ("2026-11-22T01:35:11.872215Z", "Welcome"),
            ("2026-11-22T01:35:11.872215Z", "\tmore [31mred\u{fffd}"),
            ("2026-11-22T01:35:12.000001Z", ""),
            ("2026-11-22T01:35:13.000000Z", "last"),
        ];
        assert_eq!(got, want.map(|(at, text)| (at.to_owned(), text)));
        assert_eq!(read(console, true, FIRST).len(), 4);
        assert_eq!(read(b"", false, FIRST), []);
    }

    proptest! {
        #[test]
        fn any_console_is_harmless(bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in any::<bool>()) {
            for line in read(&bytes, cut, FIRST) {
                prop_assert!(line.text.chars().all(|c| c == '\t' || !c.is_control()));
            }
        }
    }
}
