//! What a caller notes on a file: `X-Metadata-NAME: value` of an upload, kept in the file's extended attributes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    path::Path,
};

use http::{HeaderMap, HeaderName};
use rustix::{
    fs::{XattrFlags, flistxattr, fremovexattr, fsetxattr, lgetxattr, llistxattr},
    io::Errno,
};

/// What a header's name begins with.
const HEADER: &str = "x-metadata-";
/// What an attribute's name begins with.
const ATTRIBUTE: &str = "user.e2b.";
/// Most bytes of the names of a file's attributes, and of one value, that are looked at: what the kernel has at most.
const LONGEST: usize = 64 * 1024;

/// Notes by name.
pub(crate) type Notes = BTreeMap<String, String>;

/// A header that is no note.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidNote {
    #[error("metadata key is empty")]
    Name,
    #[error("metadata key '{0}' is given more than once")]
    Twice(String),
    #[error("metadata value of '{0}' is not printable ASCII")]
    Value(String),
    #[error("metadata key '{0}' is too long")]
    TooLong(String),
}

/// The notes that the headers of an upload hold.
pub(crate) fn of_headers(headers: &HeaderMap) -> Result<Notes, InvalidNote> {
    let mut notes = Notes::new();
    for (name, value) in headers {
        let Some(key) = key(name) else { continue };
        if key.is_empty() {
            return Err(InvalidNote::Name);
        }
        // The kernel has 255 bytes for a name.
        if key.len() + ATTRIBUTE.len() > 255 {
            return Err(InvalidNote::TooLong(key.to_owned()));
        }
        let text = value
            .to_str()
            .ok()
            .filter(|text| text.bytes().all(|byte| matches!(byte, 0x20..=0x7e)))
            .ok_or_else(|| InvalidNote::Value(key.to_owned()))?;
        if notes.insert(key.to_owned(), text.to_owned()).is_some() {
            return Err(InvalidNote::Twice(key.to_owned()));
        }
    }
    Ok(notes)
}

fn key(name: &HeaderName) -> Option<&str> {
    name.as_str().strip_prefix(HEADER)
}

/// Makes `notes` all that a file has. A file that has none and gets none is not touched, so that no watcher is told.
pub(crate) fn replace(file: &File, notes: &Notes) -> io::Result<()> {
    let wanted: BTreeSet<String> = notes
        .keys()
        .map(|key| format!("{ATTRIBUTE}{key}"))
        .collect();
    let mut names = Vec::with_capacity(LONGEST);
    match flistxattr(file, rustix::buffer::spare_capacity(&mut names)) {
        Ok(_) => {}
        Err(Errno::OPNOTSUPP) if notes.is_empty() => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    for old in ours(&names).filter(|old| !wanted.contains(*old)) {
        fremovexattr(file, old)?;
    }
    for (key, value) in notes {
        let name = format!("{ATTRIBUTE}{key}");
        fsetxattr(file, name, value.as_bytes(), XattrFlags::empty())?;
    }
    Ok(())
}

/// The notes on what is at `path`. Those that cannot be read are left out.
pub(crate) fn of_path(path: &Path) -> Notes {
    // Most files have none, and that is one short call.
    let mut names = Vec::with_capacity(512);
    loop {
        match llistxattr(path, rustix::buffer::spare_capacity(&mut names)) {
            Ok(_) => break,
            Err(Errno::RANGE) if names.capacity() < LONGEST => {
                names.clear();
                names.reserve(LONGEST);
            }
            Err(_) => return Notes::new(),
        }
    }
    let mut notes = Notes::new();
    for name in ours(&names) {
        let mut value = Vec::with_capacity(LONGEST);
        if lgetxattr(path, name, rustix::buffer::spare_capacity(&mut value)).is_ok() {
            let key = name.strip_prefix(ATTRIBUTE).unwrap_or(name);
            notes.insert(key.to_owned(), String::from_utf8_lossy(&value).into_owned());
        }
    }
    notes
}

/// The attributes of a list of names, each ended by a zero, that are notes.
fn ours(names: &[u8]) -> impl Iterator<Item = &str> {
    names
        .split(|byte| *byte == 0)
        .filter_map(|name| std::str::from_utf8(name).ok())
        .filter(|name| name.starts_with(ATTRIBUTE))
}

#[cfg(test)]
mod test {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(pairs: &[(&str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn headers_hold_notes_in_lower_case() {
        let read = of_headers(&headers(&[
            ("X-Metadata-Owner", b"me too"),
            ("accept", b"*"),
            ("x-metadata-b", b""),
        ]));
        let expected = [("owner", "me too"), ("b", "")];
        assert_eq!(
            read.unwrap(),
            expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into()
        );
        for bad in [
            &[("x-metadata-", &b"x"[..])][..],
            &[("x-metadata-a", b"\xff")],
            &[("x-metadata-a", b"1"), ("X-Metadata-A", b"2")],
            &[(&format!("x-metadata-{}", "a".repeat(250)), b"1")],
        ] {
            assert!(of_headers(&headers(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_file_keeps_the_last_notes_alone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let notes = |pairs: &[(&str, &str)]| -> Notes {
            let owned = pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            owned.collect()
        };
        for set in [
            notes(&[("a", "1"), ("b", "")]),
            notes(&[("b", "2")]),
            notes(&[]),
        ] {
            replace(file.as_file(), &set).unwrap();
            assert_eq!(of_path(file.path()), set);
        }
    }

    proptest! {
        #[test]
        fn any_header_is_a_note_or_is_refused(name in "[!-~]{0,20}", value: Vec<u8>) {
            let name = HeaderName::from_bytes(format!("x-metadata-{name}").as_bytes());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(&value)) {
                let mut headers = HeaderMap::new();
                headers.insert(name, value);
                if let Ok(notes) = of_headers(&headers) {
                    prop_assert_eq!(notes.len(), 1);
                }
            }
        }

        #[test]
        fn any_list_of_names_is_read(names: Vec<u8>) {
            prop_assert!(ours(&names).all(|name| name.starts_with(ATTRIBUTE)));
        }
    }
}
