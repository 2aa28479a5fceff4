//! What kind of content a file holds, for those who show it.

use std::path::Path;

/// By the ending of its name.
const KINDS: &[(&str, &str)] = &[
    ("css", "text/css; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("gif", "image/gif"),
    ("htm", "text/html; charset=utf-8"),
    ("html", "text/html; charset=utf-8"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("svg", "image/svg+xml"),
    ("wasm", "application/wasm"),
    ("webp", "image/webp"),
    ("xml", "text/xml; charset=utf-8"),
];
/// Bytes that are looked at when the name says nothing.
const LOOKED_AT: usize = 512;

/// The content type of a file that begins with `start`.
pub(super) fn of(path: &Path, start: &[u8]) -> &'static str {
    let ending = path
        .extension()
        .map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    let named = ending.and_then(|ending| KINDS.iter().find(|(kind, _)| *kind == ending));
    match named {
        Some((_, kind)) => kind,
        None if is_text(start) => "text/plain; charset=utf-8",
        None => "application/octet-stream",
    }
}

/// Whether it is UTF-8 without what no text holds; a character that is cut at the end does not count.
fn is_text(start: &[u8]) -> bool {
    let start = start.get(..LOOKED_AT).unwrap_or(start);
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => start
            .get(..error.valid_up_to())
            .and_then(|valid| std::str::from_utf8(valid).ok())
            .unwrap_or_default(),
        Err(_) => return false,
    };
    text.chars()
        .all(|c| !c.is_control() || matches!(c, '\t' | '\n' | '\r' | '\x0c' | '\x1b'))
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_name_wins_over_the_bytes() {
        assert_eq!(of(Path::new("/a/B.PNG"), b"text"), "image/png");
        assert_eq!(of(Path::new("/a"), b"text\n"), "text/plain; charset=utf-8");
        assert_eq!(
            of(Path::new("/a.bin"), b"\0\x01"),
            "application/octet-stream"
        );
        assert_eq!(
            of(Path::new("/a"), &b"a\xc3"[..]),
            "text/plain; charset=utf-8"
        );
        assert_eq!(
            of(Path::new("/a"), &b"\xc3a"[..]),
            "application/octet-stream"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_kind(bytes: Vec<u8>) {
            prop_assert!(!of(Path::new("/x"), &bytes).is_empty());
        }
    }
}
