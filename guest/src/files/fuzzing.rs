//! Parsers of `/files` requests, as fuzz targets.

use std::time::{Duration, UNIX_EPOCH};

use http::HeaderMap;

use super::{
    encoding::{self, Offer},
    preconditions::{self, ByteRange},
    target,
};
use crate::access::SignedQuery;

/// Parses the headers of a download.
pub(crate) fn parse_headers(headers: &HeaderMap) {
    let modified = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let _conditional = preconditions::is_conditional(headers);
    let _result = preconditions::evaluate(headers, modified);
    for size in [0, 1, 4096, u64::MAX] {
        let range = preconditions::requested_range(headers, modified, size);
        if let ByteRange::Partial { start, len } = range {
            assert!(len > 0 && start.checked_add(len).is_some_and(|end| end <= size));
        }
    }
    for offer in [Offer::GzipAndIdentity, Offer::IdentityOnly] {
        let _encoding = encoding::negotiate(headers, offer);
    }
}

/// Parses a query.
pub(crate) fn parse_query(query: &str) -> SignedQuery {
    target::parse_query(query)
}
