//! Authorizes requests.
//!
//! If a token is set, callers present it in `X-Access-Token`. For `/files`, the query may contain a signature made with
//! the token instead, so that URLs can be shared. Secrets are compared in constant time.

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use guest_api::Token;
use http::HeaderMap;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const TOKEN_HEADER: &str = "x-access-token";

/// A reason to refuse a request. The texts are those of E2B's agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AccessDenied {
    #[error("{}", guest_api::envd::UNAUTHORIZED)]
    Unauthorized,
    #[error("missing signature query parameter")]
    MissingSignature,
    #[error("invalid signature")]
    InvalidSignature,
    #[error("signature is already expired")]
    Expired,
    #[error("access token present in header but does not match")]
    WrongToken,
}

/// The operation that a signature permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Read,
    Write,
}

/// The signed parameters of a `/files` query, and the signature.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SignedQuery {
    pub(crate) path: String,
    pub(crate) username: String,
    pub(crate) signature: Option<String>,
    /// Unix seconds, as text.
    pub(crate) expiration: Option<String>,
}

/// Checks the token of a request. Without a token set, every request is allowed.
pub(crate) fn check_token(token: &Token, headers: &HeaderMap) -> Result<(), AccessDenied> {
    match (token.expose(), headers.get(TOKEN_HEADER)) {
        ("", _) => Ok(()),
        (expected, Some(presented))
            if constant_time_eq(expected.as_bytes(), presented.as_bytes()) =>
        {
            Ok(())
        }
        _ => Err(AccessDenied::Unauthorized),
    }
}

/// Checks the token or the signature of a `/files` request. `now` is in Unix seconds.
pub(crate) fn check_files(
    token: &Token,
    headers: &HeaderMap,
    signed: &SignedQuery,
    operation: Operation,
    now: i64,
) -> Result<(), AccessDenied> {
    let expected = token.expose();
    if expected.is_empty() {
        return Ok(());
    }
    if let Some(presented) = headers.get(TOKEN_HEADER) {
        let matches = constant_time_eq(expected.as_bytes(), presented.as_bytes());
        return if matches {
            Ok(())
        } else {
            Err(AccessDenied::WrongToken)
        };
    }
    let presented = signed
        .signature
        .as_deref()
        .ok_or(AccessDenied::MissingSignature)?;
    if !constant_time_eq(
        signature(token, signed, operation).as_bytes(),
        presented.as_bytes(),
    ) {
        return Err(AccessDenied::InvalidSignature);
    }
    match signed.expiration.as_deref().map(str::parse::<i64>) {
        None => Ok(()),
        Some(Ok(end)) if end >= now => Ok(()),
        Some(Ok(_)) => Err(AccessDenied::Expired),
        Some(Err(_)) => Err(AccessDenied::InvalidSignature),
    }
}

fn signature(token: &Token, signed: &SignedQuery, operation: Operation) -> String {
    let operation = match operation {
        Operation::Read => "read",
        Operation::Write => "write",
    };
    let mut hash = Sha256::new();
    for part in [
        signed.path.as_str(),
        ":",
        operation,
        ":",
        &signed.username,
        ":",
        token.expose(),
    ] {
        hash.update(part);
    }
    if let Some(end) = &signed.expiration {
        hash.update(":");
        hash.update(end);
    }
    format!("v1_{}", STANDARD_NO_PAD.encode(hash.finalize()))
}

fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> Token {
        Token::new("0tQG31xiMp0IOQfaz9dcwi72L1CPo8e0")
    }

    fn signed() -> SignedQuery {
        SignedQuery {
            path: "hello.txt".to_owned(),
            username: "user".to_owned(),
            signature: Some("v1_gUtH/s9YCJWgCizjfUxuWfhFE4QSydOWEIIvfLwDr6E".to_owned()),
            expiration: None,
        }
    }

    fn check(signed: &SignedQuery, operation: Operation) -> Result<(), AccessDenied> {
        check_files(&token(), &HeaderMap::new(), signed, operation, 1000)
    }

    #[test]
    fn published_signature_is_accepted() {
        assert_eq!(check(&signed(), Operation::Read), Ok(()));
        assert_eq!(
            check(&signed(), Operation::Write),
            Err(AccessDenied::InvalidSignature)
        );
        let other = SignedQuery {
            path: "other.txt".to_owned(),
            ..signed()
        };
        assert_eq!(
            check(&other, Operation::Read),
            Err(AccessDenied::InvalidSignature)
        );
        assert_eq!(
            check(&SignedQuery::default(), Operation::Read),
            Err(AccessDenied::MissingSignature)
        );
    }

    #[test]
    fn signature_expires_and_covers_its_expiration() {
        let until = |end: &str| {
            let mut signed = SignedQuery {
                expiration: Some(end.to_owned()),
                ..signed()
            };
            signed.signature = Some(signature(&token(), &signed, Operation::Read));
            signed
        };
        assert_eq!(check(&until("1000"), Operation::Read), Ok(()));
        assert_eq!(
            check(&until("999"), Operation::Read),
            Err(AccessDenied::Expired)
        );
        let extended = SignedQuery {
            expiration: Some("2000".to_owned()),
            ..until("999")
        };
        assert_eq!(
            check(&extended, Operation::Read),
            Err(AccessDenied::InvalidSignature)
        );
    }

    #[test]
    fn header_token_has_precedence_over_signature() {
        let mut headers = HeaderMap::new();
        headers.insert(TOKEN_HEADER, "wrong".parse().unwrap());
        assert_eq!(
            check_token(&token(), &headers),
            Err(AccessDenied::Unauthorized)
        );
        assert_eq!(
            check_files(&token(), &headers, &signed(), Operation::Read, 0),
            Err(AccessDenied::WrongToken)
        );
        headers.insert(TOKEN_HEADER, token().expose().parse().unwrap());
        assert_eq!(check_token(&token(), &headers), Ok(()));
        assert_eq!(
            check_files(
                &token(),
                &headers,
                &SignedQuery::default(),
                Operation::Write,
                0
            ),
            Ok(())
        );
        assert_eq!(
            check_token(&token(), &HeaderMap::new()),
            Err(AccessDenied::Unauthorized)
        );
        assert_eq!(check_token(&Token::default(), &HeaderMap::new()), Ok(()));
    }

    proptest! {
        #[test]
        fn other_signatures_are_refused(text in "(v1_)?[A-Za-z0-9+/=_-]{0,50}", end in prop::option::of(".{0,20}")) {
            let is_valid = end.is_none() && Some(&text) == signed().signature.as_ref();
            let query = SignedQuery { signature: Some(text), expiration: end, ..signed() };
            prop_assert_eq!(check(&query, Operation::Read).is_ok(), is_valid);
        }
    }
}
