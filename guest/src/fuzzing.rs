//! Entry points of fuzz targets: parsers of client requests, without sockets, files and processes. None may panic.

use std::path::Path;

use guest_api::Token;
use http::{HeaderMap, HeaderName, HeaderValue};

pub use crate::rpc::fuzzing::{envelopes, message};
use crate::{
    access::{self, Operation},
    file_metadata, files, path, rpc,
};

/// Parses a query, which is the first line of the input, and headers, one per further line.
pub fn head(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let query = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let mut headers = HeaderMap::new();
    for line in lines.take(64) {
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.unwrap_or(line.len()));
        let value = value.strip_prefix(b":").unwrap_or_default();
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name),
            HeaderValue::from_bytes(value.trim_ascii()),
        ) {
            headers.append(name, value);
        }
    }
    rpc::fuzzing::parse_headers(&headers);
    files::fuzzing::parse_headers(&headers);
    let _metadata = file_metadata::parse_headers(&headers);
    let signed = files::fuzzing::parse_query(&query);
    let token = Token::new("secret");
    let now = 1_800_000_000;
    let allowed = access::check_files(&token, &headers, &signed, Operation::Read, now).is_ok();
    // A fuzzer cannot guess the digest of the secret.
    let presented = headers.get("x-access-token");
    assert!(!allowed || presented.is_some_and(|token| token == "secret"));
    let (home, workdir) = (Path::new("/home/user"), Path::new("/work"));
    if let Ok(resolved) = path::resolve(Path::new(&signed.path), home, workdir) {
        assert!(
            resolved.is_absolute() && !resolved.components().any(|part| part.as_os_str() == "..")
        );
    }
}
