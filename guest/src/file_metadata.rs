//! User-defined metadata of files: `X-Metadata-KEY: value` headers of an upload, stored as extended attributes.

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

/// The prefix of header names.
const HEADER_PREFIX: &str = "x-metadata-";
/// The prefix of attribute names.
const XATTR_PREFIX: &str = "user.e2b.";
/// The kernel's limit for the list of attribute names, and for one value.
const MAX_XATTR_LEN: usize = 64 * 1024;

/// Values by key.
pub(crate) type FileMetadata = BTreeMap<String, String>;

/// An invalid metadata header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidMetadata {
    #[error("metadata key is empty")]
    EmptyKey,
    #[error("metadata key '{0}' is given more than once")]
    DuplicateKey(String),
    #[error("metadata value of '{0}' is not printable ASCII")]
    InvalidValue(String),
    #[error("metadata key '{0}' is too long")]
    KeyTooLong(String),
}

/// Parses the metadata headers of an upload.
pub(crate) fn parse_headers(headers: &HeaderMap) -> Result<FileMetadata, InvalidMetadata> {
    let mut metadata = FileMetadata::new();
    for (name, value) in headers {
        let Some(key) = key(name) else { continue };
        if key.is_empty() {
            return Err(InvalidMetadata::EmptyKey);
        }
        // The kernel limits attribute names to 255 bytes.
        if key.len() + XATTR_PREFIX.len() > 255 {
            return Err(InvalidMetadata::KeyTooLong(key.to_owned()));
        }
        let text = value
            .to_str()
            .ok()
            .filter(|text| text.bytes().all(|byte| matches!(byte, 0x20..=0x7e)))
            .ok_or_else(|| InvalidMetadata::InvalidValue(key.to_owned()))?;
        if metadata.insert(key.to_owned(), text.to_owned()).is_some() {
            return Err(InvalidMetadata::DuplicateKey(key.to_owned()));
        }
    }
    Ok(metadata)
}

fn key(name: &HeaderName) -> Option<&str> {
    name.as_str().strip_prefix(HEADER_PREFIX)
}

/// Replaces the metadata of a file. Without old and new metadata the file is not modified, so watchers see no event.
pub(crate) fn replace(file: &File, metadata: &FileMetadata) -> io::Result<()> {
    let kept: BTreeSet<String> = metadata
        .keys()
        .map(|key| format!("{XATTR_PREFIX}{key}"))
        .collect();
    let mut names = Vec::with_capacity(MAX_XATTR_LEN);
    match flistxattr(file, rustix::buffer::spare_capacity(&mut names)) {
        Ok(_) => {}
        Err(Errno::OPNOTSUPP) if metadata.is_empty() => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    for old in metadata_names(&names).filter(|old| !kept.contains(*old)) {
        fremovexattr(file, old)?;
    }
    for (key, value) in metadata {
        let name = format!("{XATTR_PREFIX}{key}");
        fsetxattr(file, name, value.as_bytes(), XattrFlags::empty())?;
    }
    Ok(())
}

/// Reads the metadata of a file. Unreadable attributes are omitted.
pub(crate) fn read(path: &Path) -> FileMetadata {
    // Most files have no attributes, and need one short system call.
    let mut names = Vec::with_capacity(512);
    loop {
        match llistxattr(path, rustix::buffer::spare_capacity(&mut names)) {
            Ok(_) => break,
            Err(Errno::RANGE) if names.capacity() < MAX_XATTR_LEN => {
                names.clear();
                names.reserve(MAX_XATTR_LEN);
            }
            Err(_) => return FileMetadata::new(),
        }
    }
    let mut metadata = FileMetadata::new();
    for name in metadata_names(&names) {
        let mut value = Vec::with_capacity(MAX_XATTR_LEN);
        if lgetxattr(path, name, rustix::buffer::spare_capacity(&mut value)).is_ok() {
            let key = name.strip_prefix(XATTR_PREFIX).unwrap_or(name);
            metadata.insert(key.to_owned(), String::from_utf8_lossy(&value).into_owned());
        }
    }
    metadata
}

/// Selects metadata attributes from a zero-separated list of attribute names.
fn metadata_names(names: &[u8]) -> impl Iterator<Item = &str> {
    names
        .split(|byte| *byte == 0)
        .filter_map(|name| std::str::from_utf8(name).ok())
        .filter(|name| name.starts_with(XATTR_PREFIX))
}

#[cfg(test)]
mod tests {
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
    fn headers_are_parsed_with_lower_case_keys() {
        let parsed = parse_headers(&headers(&[
            ("X-Metadata-Owner", b"me too"),
            ("accept", b"*"),
            ("x-metadata-b", b""),
        ]));
        let expected = [("owner", "me too"), ("b", "")];
        assert_eq!(
            parsed.unwrap(),
            expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into()
        );
        for bad in [
            &[("x-metadata-", &b"x"[..])][..],
            &[("x-metadata-a", b"\xff")],
            &[("x-metadata-a", b"1"), ("X-Metadata-A", b"2")],
            &[(&format!("x-metadata-{}", "a".repeat(250)), b"1")],
        ] {
            assert!(parse_headers(&headers(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn file_keeps_only_the_last_metadata() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let metadata = |pairs: &[(&str, &str)]| -> FileMetadata {
            let owned = pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            owned.collect()
        };
        for set in [
            metadata(&[("a", "1"), ("b", "")]),
            metadata(&[("b", "2")]),
            metadata(&[]),
        ] {
            replace(file.as_file(), &set).unwrap();
            assert_eq!(super::read(file.path()), set);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_header_is_one_entry_or_refused(name in "[!-~]{0,20}", value: Vec<u8>) {
            let name = HeaderName::from_bytes(format!("x-metadata-{name}").as_bytes());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(&value)) {
                let mut headers = HeaderMap::new();
                headers.insert(name, value);
                if let Ok(metadata) = parse_headers(&headers) {
                    prop_assert_eq!(metadata.len(), 1);
                }
            }
        }

        #[test]
        fn arbitrary_attribute_lists_do_not_panic(names: Vec<u8>) {
            prop_assert!(metadata_names(&names).all(|name| name.starts_with(XATTR_PREFIX)));
        }
    }
}
