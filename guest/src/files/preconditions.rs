//! Evaluates range and conditional request headers (RFC 9110).
//!
//! The only validator of a file is its modification time in whole seconds; there are no entity tags.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, header};

/// The result of the conditions of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Precondition {
    Passed,
    /// 304: the caller has the current file.
    NotModified,
    /// 412: the file is not the version that the caller requires.
    Failed,
}

/// The range of a file that a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ByteRange {
    Full,
    /// `len` is at least 1, and the range lies within the file.
    Partial {
        start: u64,
        len: u64,
    },
    Unsatisfiable,
}

const CONDITIONAL_HEADERS: [HeaderName; 6] = [
    header::RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
];

/// Returns whether a request has a range or a condition.
pub(super) fn is_conditional(headers: &HeaderMap) -> bool {
    CONDITIONAL_HEADERS
        .iter()
        .any(|name| headers.contains_key(name))
}

/// Evaluates the conditions against the modification time of the file.
pub(super) fn evaluate(headers: &HeaderMap, modified: SystemTime) -> Precondition {
    let modified = whole_seconds(modified);
    let since = |name| date(headers, name);
    if let Some(tags) = headers.get(header::IF_MATCH) {
        if tags.as_bytes().trim_ascii() != b"*" {
            return Precondition::Failed;
        }
    } else if since(header::IF_UNMODIFIED_SINCE).is_some_and(|since| modified > since) {
        return Precondition::Failed;
    }
    if let Some(tags) = headers.get(header::IF_NONE_MATCH) {
        if tags.as_bytes().trim_ascii() == b"*" {
            return Precondition::NotModified;
        }
    } else if since(header::IF_MODIFIED_SINCE).is_some_and(|since| modified <= since) {
        return Precondition::NotModified;
    }
    Precondition::Passed
}

/// Resolves the `Range` of a request for a file of `size` bytes. Multiple ranges are served as the full file.
pub(super) fn requested_range(headers: &HeaderMap, modified: SystemTime, size: u64) -> ByteRange {
    let Some(range) = headers.get(header::RANGE) else {
        return ByteRange::Full;
    };
    if headers.contains_key(header::IF_RANGE)
        && date(headers, header::IF_RANGE) != Some(whole_seconds(modified))
    {
        return ByteRange::Full;
    }
    // An empty file has no satisfiable range; clients that always send one get 200.
    if size == 0 {
        return ByteRange::Full;
    }
    range
        .to_str()
        .map_or(ByteRange::Unsatisfiable, |range| parse_range(range, size))
}

/// Parses `bytes=first-last`, `bytes=first-` or `bytes=-suffix`. Never panics.
fn parse_range(range: &str, size: u64) -> ByteRange {
    let Some(ranges) = range.strip_prefix("bytes=") else {
        return ByteRange::Unsatisfiable;
    };
    if ranges.contains(',') {
        return ByteRange::Full;
    }
    let Some((first, last)) = ranges.trim().split_once('-') else {
        return ByteRange::Unsatisfiable;
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
        // A number beyond u64 is beyond every file.
        digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    let (start, end) = match (first.trim(), last.trim()) {
        ("", suffix) => match number(suffix) {
            None | Some(0) => return ByteRange::Unsatisfiable,
            Some(suffix) => (size.saturating_sub(suffix), size),
        },
        (first, "") => match number(first) {
            Some(start) => (start, size),
            None => return ByteRange::Unsatisfiable,
        },
        (first, last) => match (number(first), number(last)) {
            (Some(start), Some(last)) if start <= last => (start, last.saturating_add(1).min(size)),
            _ => return ByteRange::Unsatisfiable,
        },
    };
    match end.checked_sub(start) {
        None | Some(0) => ByteRange::Unsatisfiable,
        Some(len) => ByteRange::Partial { start, len },
    }
}

fn date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

fn whole_seconds(time: SystemTime) -> SystemTime {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs()),
        Err(_) => SystemTime::UNIX_EPOCH,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";

    fn modified() -> SystemTime {
        httpdate::parse_http_date(THEN).unwrap() + Duration::from_millis(900)
    }

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let pair = |(name, value): &(HeaderName, &str)| {
            (name.clone(), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn range_is_clamped_to_the_file() {
        let partial = |start, len| ByteRange::Partial { start, len };
        for (range, expected) in [
            ("bytes=0-4", partial(0, 5)),
            ("bytes=3-", partial(3, 7)),
            ("bytes=-4", partial(6, 4)),
            ("bytes=-99", partial(0, 10)),
            ("bytes=9-99999999999999999999999", partial(9, 1)),
            ("bytes=0-1,3-4", ByteRange::Full),
            ("bytes=10-", ByteRange::Unsatisfiable),
            ("bytes=-0", ByteRange::Unsatisfiable),
            ("bytes=4-3", ByteRange::Unsatisfiable),
            ("bytes=+1-2", ByteRange::Unsatisfiable),
            ("lines=1-2", ByteRange::Unsatisfiable),
            ("bytes=", ByteRange::Unsatisfiable),
        ] {
            assert_eq!(parse_range(range, 10), expected, "{range}");
        }
    }

    #[test]
    fn conditions_compare_whole_seconds() {
        let evaluated = |name, value| evaluate(&headers(&[(name, value)]), modified());
        assert_eq!(
            evaluated(header::IF_MODIFIED_SINCE, THEN),
            Precondition::NotModified
        );
        assert_eq!(
            evaluated(header::IF_MODIFIED_SINCE, BEFORE),
            Precondition::Passed
        );
        assert_eq!(
            evaluated(header::IF_UNMODIFIED_SINCE, THEN),
            Precondition::Passed
        );
        assert_eq!(
            evaluated(header::IF_UNMODIFIED_SINCE, BEFORE),
            Precondition::Failed
        );
        assert_eq!(evaluated(header::IF_MATCH, "\"x\""), Precondition::Failed);
        assert_eq!(evaluated(header::IF_MATCH, "*"), Precondition::Passed);
        assert_eq!(
            evaluated(header::IF_NONE_MATCH, "*"),
            Precondition::NotModified
        );
        assert_eq!(
            evaluated(header::IF_NONE_MATCH, "\"x\""),
            Precondition::Passed
        );
        assert_eq!(
            evaluated(header::IF_MODIFIED_SINCE, "yesterday"),
            Precondition::Passed
        );
        let both = [
            (header::IF_NONE_MATCH, "\"x\""),
            (header::IF_MODIFIED_SINCE, THEN),
        ];
        assert_eq!(evaluate(&headers(&both), modified()), Precondition::Passed);
    }

    #[test]
    fn if_range_mismatch_returns_full_body() {
        let range_of = |since| {
            let both = [(header::RANGE, "bytes=0-0"), (header::IF_RANGE, since)];
            requested_range(&headers(&both), modified(), 10)
        };
        assert_eq!(range_of(THEN), ByteRange::Partial { start: 0, len: 1 });
        assert_eq!(range_of(BEFORE), ByteRange::Full);
        assert_eq!(range_of("\"tag\""), ByteRange::Full);
    }

    proptest! {
        #[test]
        fn arbitrary_range_lies_within_the_file(range in "(bytes=)?[0-9, -]{0,24}", size: u64) {
            if let ByteRange::Partial { start, len } = parse_range(&range, size) {
                prop_assert!(len > 0 && start.checked_add(len).is_some_and(|end| end <= size));
            }
        }

        #[test]
        fn arbitrary_headers_do_not_panic(value: Vec<u8>, size: u64) {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                for name in CONDITIONAL_HEADERS {
                    headers.insert(name, value.clone());
                }
            }
            let _result = evaluate(&headers, modified());
            let _range = requested_range(&headers, modified(), size);
        }
    }
}
