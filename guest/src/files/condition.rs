//! Which part of a file a caller wants, and whether it wants it at all.
//!
//! A file's only mark is when it was last changed, in whole seconds: it has no entity tag.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, header};

/// What the conditions of a request come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Answer with the file.
    Serve,
    /// The caller has it already.
    NotModified,
    /// It is not the one the caller means.
    Failed,
}

/// The part of a file that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    /// These bytes; there is at least one.
    Bytes {
        start: u64,
        len: u64,
    },
    /// None of the file's.
    None,
}

const CONDITIONS: [HeaderName; 6] = [
    header::RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
];

/// Whether a request asks for a part, or on a condition.
pub(super) fn are_there(headers: &HeaderMap) -> bool {
    CONDITIONS.iter().any(|name| headers.contains_key(name))
}

/// Holds the conditions against when the file was changed.
pub(super) fn judge(headers: &HeaderMap, changed: SystemTime) -> Verdict {
    let changed = whole_seconds(changed);
    let since = |name| date(headers, name);
    if let Some(tags) = headers.get(header::IF_MATCH) {
        if tags.as_bytes().trim_ascii() != b"*" {
            return Verdict::Failed;
        }
    } else if since(header::IF_UNMODIFIED_SINCE).is_some_and(|since| changed > since) {
        return Verdict::Failed;
    }
    if let Some(tags) = headers.get(header::IF_NONE_MATCH) {
        if tags.as_bytes().trim_ascii() == b"*" {
            return Verdict::NotModified;
        }
    } else if since(header::IF_MODIFIED_SINCE).is_some_and(|since| changed <= since) {
        return Verdict::NotModified;
    }
    Verdict::Serve
}

/// The part that is asked for of a file of `size` bytes. More than one part at once is answered with the whole.
pub(super) fn part(headers: &HeaderMap, changed: SystemTime, size: u64) -> Part {
    let Some(range) = headers.get(header::RANGE) else {
        return Part::Whole;
    };
    if headers.contains_key(header::IF_RANGE)
        && date(headers, header::IF_RANGE) != Some(whole_seconds(changed))
    {
        return Part::Whole;
    }
    // A caller that always asks for a part gets the whole of nothing.
    if size == 0 {
        return Part::Whole;
    }
    range
        .to_str()
        .map_or(Part::None, |range| parse(range, size))
}

/// `bytes=from-to`, `bytes=from-` or `bytes=-last`. Total.
fn parse(range: &str, size: u64) -> Part {
    let Some(ranges) = range.strip_prefix("bytes=") else {
        return Part::None;
    };
    if ranges.contains(',') {
        return Part::Whole;
    }
    let Some((from, to)) = ranges.trim().split_once('-') else {
        return Part::None;
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
        // One too long to be told is beyond every file.
        digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    let (start, end) = match (from.trim(), to.trim()) {
        ("", last) => match number(last) {
            None | Some(0) => return Part::None,
            Some(last) => (size.saturating_sub(last), size),
        },
        (from, "") => match number(from) {
            Some(start) => (start, size),
            None => return Part::None,
        },
        (from, to) => match (number(from), number(to)) {
            (Some(start), Some(to)) if start <= to => (start, to.saturating_add(1).min(size)),
            _ => return Part::None,
        },
    };
    match end.checked_sub(start) {
        None | Some(0) => Part::None,
        Some(len) => Part::Bytes { start, len },
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
mod test {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";

    fn changed() -> SystemTime {
        httpdate::parse_http_date(THEN).unwrap() + Duration::from_millis(900)
    }

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let pair = |(name, value): &(HeaderName, &str)| {
            (name.clone(), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn a_part_is_cut_to_the_file() {
        let bytes = |start, len| Part::Bytes { start, len };
        for (range, part) in [
            ("bytes=0-4", bytes(0, 5)),
            ("bytes=3-", bytes(3, 7)),
            ("bytes=-4", bytes(6, 4)),
            ("bytes=-99", bytes(0, 10)),
            ("bytes=9-99999999999999999999999", bytes(9, 1)),
            ("bytes=0-1,3-4", Part::Whole),
            ("bytes=10-", Part::None),
            ("bytes=-0", Part::None),
            ("bytes=4-3", Part::None),
            ("bytes=+1-2", Part::None),
            ("lines=1-2", Part::None),
            ("bytes=", Part::None),
        ] {
            assert_eq!(parse(range, 10), part, "{range}");
        }
    }

    #[test]
    fn conditions_speak_of_whole_seconds() {
        let judged = |name, value| judge(&headers(&[(name, value)]), changed());
        assert_eq!(
            judged(header::IF_MODIFIED_SINCE, THEN),
            Verdict::NotModified
        );
        assert_eq!(judged(header::IF_MODIFIED_SINCE, BEFORE), Verdict::Serve);
        assert_eq!(judged(header::IF_UNMODIFIED_SINCE, THEN), Verdict::Serve);
        assert_eq!(judged(header::IF_UNMODIFIED_SINCE, BEFORE), Verdict::Failed);
        assert_eq!(judged(header::IF_MATCH, "\"x\""), Verdict::Failed);
        assert_eq!(judged(header::IF_MATCH, "*"), Verdict::Serve);
        assert_eq!(judged(header::IF_NONE_MATCH, "*"), Verdict::NotModified);
        assert_eq!(judged(header::IF_NONE_MATCH, "\"x\""), Verdict::Serve);
        assert_eq!(
            judged(header::IF_MODIFIED_SINCE, "yesterday"),
            Verdict::Serve
        );
        let both = [
            (header::IF_NONE_MATCH, "\"x\""),
            (header::IF_MODIFIED_SINCE, THEN),
        ];
        assert_eq!(judge(&headers(&both), changed()), Verdict::Serve);
    }

    #[test]
    fn a_part_of_another_version_is_the_whole() {
        let asked = |since| {
            let both = [(header::RANGE, "bytes=0-0"), (header::IF_RANGE, since)];
            part(&headers(&both), changed(), 10)
        };
        assert_eq!(asked(THEN), Part::Bytes { start: 0, len: 1 });
        assert_eq!(asked(BEFORE), Part::Whole);
        assert_eq!(asked("\"tag\""), Part::Whole);
    }

    proptest! {
        #[test]
        fn any_range_is_within_the_file(range in "(bytes=)?[0-9, -]{0,24}", size: u64) {
            if let Part::Bytes { start, len } = parse(&range, size) {
                prop_assert!(len > 0 && start.checked_add(len).is_some_and(|end| end <= size));
            }
        }

        #[test]
        fn any_header_is_judged(value: Vec<u8>, size: u64) {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                for name in CONDITIONS {
                    headers.insert(name, value.clone());
                }
            }
            let _verdict = judge(&headers, changed());
            let _part = part(&headers, changed(), size);
        }
    }
}
