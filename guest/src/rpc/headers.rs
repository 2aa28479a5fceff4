//! Parses the headers of a call.

use std::time::Duration;

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::{HeaderMap, HeaderName, header};

use super::{
    codec::CallKind,
    error::{Code, RpcError},
};

/// The keepalive interval of streams whose caller gives none.
const DEFAULT_KEEPALIVE: Duration = Duration::from_secs(90);

/// Standard base64 with optional padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Parses `Connect-Timeout-Ms`: milliseconds in at most ten digits.
pub(super) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, RpcError> {
    let Some(value) = headers.get("connect-timeout-ms") else {
        return Ok(None);
    };
    let digits = value.to_str().ok().filter(|text| {
        (1..=10).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_digit())
    });
    let millis = digits
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| RpcError::invalid_argument("connect-timeout-ms is not 1 to 10 digits"))?;
    Ok(Some(Duration::from_millis(millis)))
}

/// Parses `Keepalive-Ping-Interval` in seconds. Anything but a positive number is ignored.
pub(super) fn keepalive(headers: &HeaderMap) -> Duration {
    headers
        .get("keepalive-ping-interval")
        .and_then(|value| value.to_str().ok()?.parse::<u32>().ok())
        .filter(|seconds| *seconds > 0)
        .map_or(DEFAULT_KEEPALIVE, |seconds| {
            Duration::from_secs(seconds.into())
        })
}

/// Parses the user of `Authorization: Basic`; `None` without the header.
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

/// Rejects compressed messages and other versions of the protocol.
pub(super) fn check_protocol(headers: &HeaderMap, kind: CallKind) -> Result<(), RpcError> {
    if let Some(version) = headers.get("connect-protocol-version")
        && version != "1"
    {
        return Err(RpcError::invalid_argument(
            "connect-protocol-version must be \"1\"",
        ));
    }
    let name = match kind {
        CallKind::Unary => header::CONTENT_ENCODING,
        CallKind::Streaming => HeaderName::from_static("connect-content-encoding"),
    };
    match headers.get(name).map(|value| value.as_bytes()) {
        None | Some(b"" | b"identity") => Ok(()),
        Some(_) => Err(unsupported_compression()),
    }
}

/// The error for compressed messages.
pub(super) fn unsupported_compression() -> RpcError {
    RpcError::new(
        Code::Unimplemented,
        "unknown compression: supported encodings are identity",
    )
}

#[cfg(test)]
mod tests {
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
    fn basic_authorization_names_the_user() {
        let user = |text: &str| basic_user(&with("authorization", text.as_bytes()));
        assert_eq!(user("Basic cm9vdDo=").unwrap().as_deref(), Some("root"));
        assert_eq!(user("basic cm9vdDo").unwrap().as_deref(), Some("root"));
        assert_eq!(basic_user(&HeaderMap::new()), Ok(None));
        for bad in ["Bearer cm9vdDo=", "Basic", "Basic ???", "Basic cm9vdA=="] {
            assert_eq!(user(bad).unwrap_err().code, Code::Unauthenticated, "{bad}");
        }
    }

    #[test]
    fn timeout_accepts_one_to_ten_digits() {
        let read = |text: &str| timeout(&with("connect-timeout-ms", text.as_bytes()));
        assert_eq!(read("1500"), Ok(Some(Duration::from_millis(1500))));
        for bad in ["", "-1", "+1", "1s", "12345678901"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn keepalive_is_seconds_or_the_default() {
        let read = |text: &str| keepalive(&with("keepalive-ping-interval", text.as_bytes()));
        assert_eq!(read("50"), Duration::from_secs(50));
        for odd in ["0", "-1", "x", ""] {
            assert_eq!(read(odd), DEFAULT_KEEPALIVE, "{odd}");
        }
    }

    #[test]
    fn compression_and_other_versions_are_refused() {
        assert_eq!(
            check_protocol(&with("content-encoding", b"identity"), CallKind::Unary),
            Ok(())
        );
        assert_eq!(
            check_protocol(&with("content-encoding", b"gzip"), CallKind::Streaming),
            Ok(())
        );
        let refused = [
            ("content-encoding", CallKind::Unary),
            ("connect-content-encoding", CallKind::Streaming),
        ];
        for (name, kind) in refused {
            let error = check_protocol(&with(name, b"gzip"), kind).unwrap_err();
            assert_eq!(error.code, Code::Unimplemented);
        }
        assert!(check_protocol(&with("connect-protocol-version", b"2"), CallKind::Unary).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_headers_do_not_panic(value: Vec<u8>) {
            let _user = basic_user(&with("authorization", &value));
            let _timeout = timeout(&with("connect-timeout-ms", &value));
            let _checked = check_protocol(&with("connect-content-encoding", &value), CallKind::Streaming);
            prop_assert!(keepalive(&with("keepalive-ping-interval", &value)) > Duration::ZERO);
        }
    }
}
