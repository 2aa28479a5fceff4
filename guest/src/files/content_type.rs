//! Detects the content type of a file.

use std::path::Path;

/// Content types by file extension.
const BY_EXTENSION: &[(&str, &str)] = &[
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
/// Bytes that are examined if the extension is unknown.
const SNIFF_LEN: usize = 512;

/// Detects the content type by the extension, or else by the first bytes of the file.
pub(super) fn detect(path: &Path, start: &[u8]) -> &'static str {
    let extension = path
        .extension()
        .map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    let known =
        extension.and_then(|extension| BY_EXTENSION.iter().find(|(known, _)| *known == extension));
    match known {
        Some((_, content_type)) => content_type,
        None if is_text(start) => "text/plain; charset=utf-8",
        None => "application/octet-stream",
    }
}

/// Returns whether the bytes are UTF-8 without unusual control characters. A truncated last character is allowed.
fn is_text(start: &[u8]) -> bool {
    let start = start.get(..SNIFF_LEN).unwrap_or(start);
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn extension_has_precedence_over_content() {
        assert_eq!(detect(Path::new("/a/B.PNG"), b"text"), "image/png");
        assert_eq!(
            detect(Path::new("/a"), b"text\n"),
            "text/plain; charset=utf-8"
        );
        assert_eq!(
            detect(Path::new("/a.bin"), b"\0\x01"),
            "application/octet-stream"
        );
        assert_eq!(
            detect(Path::new("/a"), &b"a\xc3"[..]),
            "text/plain; charset=utf-8"
        );
        assert_eq!(
            detect(Path::new("/a"), &b"\xc3a"[..]),
            "application/octet-stream"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_have_a_content_type(bytes: Vec<u8>) {
            prop_assert!(!detect(Path::new("/x"), &bytes).is_empty());
        }
    }
}
