//! What the headers of a call say.

use std::time::Duration;

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::{HeaderMap, HeaderName, header};

use super::{Code, RpcError};

/// How often a stream without events says that it is alive, when its caller does not say.
const KEEPALIVE: Duration = Duration::from_secs(90);

/// Standard base64, padded or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What `Connect-Timeout-Ms` says: at most ten digits of milliseconds.
pub(super) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, RpcError> {
    let Some(value) = headers.get("connect-timeout-ms") else {
        return Ok(None);
    };
    let digits = value.to_str().ok().filter(|text| {
        (1..=10).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_digit())
    });
    let millis = digits
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| RpcError::invalid("connect-timeout-ms is not 1 to 10 digits"))?;
    Ok(Some(Duration::from_millis(millis)))
}

/// What `Keepalive-Ping-Interval` says, in seconds; what is no number above zero is as if it were absent.
pub(super) fn keepalive(headers: &HeaderMap) -> Duration {
    headers
        .get("keepalive-ping-interval")
        .and_then(|value| value.to_str().ok()?.parse::<u32>().ok())
        .filter(|seconds| *seconds > 0)
        .map_or(KEEPALIVE, |seconds| Duration::from_secs(seconds.into()))
}

/// The user that `Authorization: Basic` names, if there is one.
pub(super) fn basic_user(headers: &HeaderMap) -> Result<Option<String>, RpcError> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Ok(None);
    };
    let user = value.to_str().ok().and_then(|text| {
        let (scheme, credentials) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("basic").then_some(())?;
        let decoded = String::from_utf8(BASE64.decode(credentials.trim()).ok()?).ok()?;
        Some(decoded.split_once(':')?.0.to_owned())
    });
    match user {
        Some(user) => Ok(Some(user)),
        None => Err(RpcError::new(
            Code::Unauthenticated,
            "authorization is not Basic with a user name",
        )),
    }
}

/// Refuses a call whose messages are compressed, or of another version of the protocol.
pub(super) fn check(headers: &HeaderMap, streams: bool) -> Result<(), RpcError> {
    if let Some(version) = headers.get("connect-protocol-version")
        && version != "1"
    {
        return Err(RpcError::invalid("connect-protocol-version must be \"1\""));
    }
    let name = if streams {
        HeaderName::from_static("connect-content-encoding")
    } else {
        header::CONTENT_ENCODING
    };
    match headers.get(name).map(|value| value.as_bytes()) {
        None | Some(b"" | b"identity") => Ok(()),
        Some(_) => Err(compressed()),
    }
}

/// A message that is compressed.
pub(super) fn compressed() -> RpcError {
    RpcError::new(
        Code::Unimplemented,
        "unknown compression: supported encodings are identity",
    )
}

#[cfg(test)]
mod test {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn with(name: &'static str, value: &[u8]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.insert(name, value);
        }
        headers
    }

    #[test]
    fn a_user_is_named_by_basic_authorization() {
        let user = |text: &str| basic_user(&with("authorization", text.as_bytes()));
        assert_eq!(user("Basic cm9vdDo=").unwrap().as_deref(), Some("root"));
        assert_eq!(user("basic cm9vdDo").unwrap().as_deref(), Some("root"));
        assert_eq!(basic_user(&HeaderMap::new()), Ok(None));
        for bad in ["Bearer cm9vdDo=", "Basic", "Basic ???", "Basic cm9vdA=="] {
            assert_eq!(user(bad).unwrap_err().code, Code::Unauthenticated, "{bad}");
        }
    }

    #[test]
    fn a_timeout_is_digits() {
        let read = |text: &str| timeout(&with("connect-timeout-ms", text.as_bytes()));
        assert_eq!(read("1500"), Ok(Some(Duration::from_millis(1500))));
        for bad in ["", "-1", "+1", "1s", "12345678901"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_keepalive_is_seconds() {
        let read = |text: &str| keepalive(&with("keepalive-ping-interval", text.as_bytes()));
        assert_eq!(read("50"), Duration::from_secs(50));
        for odd in ["0", "-1", "x", ""] {
            assert_eq!(read(odd), KEEPALIVE, "{odd}");
        }
    }

    #[test]
    fn only_plain_messages_are_taken() {
        assert_eq!(check(&with("content-encoding", b"identity"), false), Ok(()));
        assert_eq!(check(&with("content-encoding", b"gzip"), true), Ok(()));
        let refused = [
            ("content-encoding", false),
            ("connect-content-encoding", true),
        ];
        for (name, streams) in refused {
            let error = check(&with(name, b"gzip"), streams).unwrap_err();
            assert_eq!(error.code, Code::Unimplemented);
        }
        assert!(check(&with("connect-protocol-version", b"2"), false).is_err());
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_refused(value: Vec<u8>) {
            let _user = basic_user(&with("authorization", &value));
            let _timeout = timeout(&with("connect-timeout-ms", &value));
            let _checked = check(&with("connect-content-encoding", &value), true);
            prop_assert!(keepalive(&with("keepalive-ping-interval", &value)) > Duration::ZERO);
        }
    }
}
