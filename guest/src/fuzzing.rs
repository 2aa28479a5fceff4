//! What a fuzzer calls: the readers of what callers of the agent send, without a socket, a file or a process. Each must
//! return, whatever it is given.

use std::path::Path;

use guest_api::Token;
use http::{HeaderMap, HeaderName, HeaderValue};

pub use crate::rpc::fuzzing::{envelopes, message};
use crate::{
    access::{self, Operation},
    files, metadata, path, rpc,
};

/// Reads the query of a call, which is the first line of the input, and its header fields, a line each.
pub fn head(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let query = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let mut headers = HeaderMap::new();
    for line in lines.take(64) {
        let at = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(at.unwrap_or(line.len()));
        let value = value.strip_prefix(b":").unwrap_or_default();
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name),
            HeaderValue::from_bytes(value.trim_ascii()),
        ) {
            headers.append(name, value);
        }
    }
    rpc::fuzzing::head(&headers);
    files::fuzzing::head(&headers);
    let _notes = metadata::of_headers(&headers);
    let signed = files::fuzzing::query(&query);
    let token = Token::new("secret");
    let now = 1_800_000_000;
    let let_in = access::check_files(&token, &headers, &signed, Operation::Read, now).is_ok();
    // The digest of a secret is not found by chance.
    let shown = headers.get("x-access-token");
    assert!(!let_in || shown.is_some_and(|shown| shown == "secret"));
    let (home, workdir) = (Path::new("/home/user"), Path::new("/work"));
    if let Ok(clean) = path::resolve(Path::new(&signed.path), home, workdir) {
        assert!(clean.is_absolute() && !clean.components().any(|part| part.as_os_str() == ".."));
    }
}
