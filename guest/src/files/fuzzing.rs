//! The readers of calls of `/files`, for a fuzzer.

use std::time::{Duration, UNIX_EPOCH};

use http::HeaderMap;

use super::{condition, encoding};
use crate::access::Signed;

/// Reads the header fields of a download.
pub(crate) fn head(headers: &HeaderMap) {
    let changed = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let _there = condition::are_there(headers);
    let _verdict = condition::judge(headers, changed);
    for size in [0, 1, 4096, u64::MAX] {
        if let condition::Part::Bytes { start, len } = condition::part(headers, changed, size) {
            assert!(len > 0 && start.checked_add(len).is_some_and(|end| end <= size));
        }
    }
    for plain in [false, true] {
        let _encoding = encoding::choose(headers, plain);
    }
}

/// Reads a query.
pub(crate) fn query(query: &str) -> Signed {
    super::parse_query(query)
}
