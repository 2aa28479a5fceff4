//! Who may call the agent.
//!
//! With a token set, a caller shows it in `X-Access-Token`; `/files` takes a signature made with it instead, so that a
//! URL can be handed on. Secrets are compared in constant time.

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use guest_api::Token;
use http::HeaderMap;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const HEADER: &str = "x-access-token";

/// A caller that is not let in. The texts are those of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error(
        "unauthorized access, please provide a valid access token or method signing if supported"
    )]
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

/// What a signature allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Read,
    Write,
}

/// The part of a `/files` query that a signature speaks of, as it stands in the query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Signed {
    pub(crate) path: String,
    pub(crate) username: String,
    pub(crate) signature: Option<String>,
    /// Seconds of 1970, as text.
    pub(crate) expiration: Option<String>,
}

/// Checks the token of a request; with no token set everybody is let in.
pub(crate) fn check_token(token: &Token, headers: &HeaderMap) -> Result<(), Denied> {
    match (token.expose(), headers.get(HEADER)) {
        ("", _) => Ok(()),
        (expected, Some(shown)) if equal(expected.as_bytes(), shown.as_bytes()) => Ok(()),
        _ => Err(Denied::Unauthorized),
    }
}

/// Checks the token or the signature of a request for `/files`. `now` is in seconds of 1970.
pub(crate) fn check_files(
    token: &Token,
    headers: &HeaderMap,
    signed: &Signed,
    operation: Operation,
    now: i64,
) -> Result<(), Denied> {
    let expected = token.expose();
    if expected.is_empty() {
        return Ok(());
    }
    if let Some(shown) = headers.get(HEADER) {
        let right = equal(expected.as_bytes(), shown.as_bytes());
        return if right {
            Ok(())
        } else {
            Err(Denied::WrongToken)
        };
    }
    let shown = signed
        .signature
        .as_deref()
        .ok_or(Denied::MissingSignature)?;
    if !equal(
        signature(token, signed, operation).as_bytes(),
        shown.as_bytes(),
    ) {
        return Err(Denied::InvalidSignature);
    }
    match signed.expiration.as_deref().map(str::parse::<i64>) {
        None => Ok(()),
        Some(Ok(end)) if end >= now => Ok(()),
        Some(Ok(_)) => Err(Denied::Expired),
        Some(Err(_)) => Err(Denied::InvalidSignature),
    }
}

fn signature(token: &Token, signed: &Signed, operation: Operation) -> String {
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

fn equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::*;

    fn token() -> Token {
        Token::new("0tQG31xiMp0IOQfaz9dcwi72L1CPo8e0")
    }

    fn signed() -> Signed {
        Signed {
            path: "hello.txt".to_owned(),
            username: "user".to_owned(),
            signature: Some("v1_gUtH/s9YCJWgCizjfUxuWfhFE4QSydOWEIIvfLwDr6E".to_owned()),
            expiration: None,
        }
    }

    fn check(signed: &Signed, operation: Operation) -> Result<(), Denied> {
        check_files(&token(), &HeaderMap::new(), signed, operation, 1000)
    }

    #[test]
    fn the_published_vector_is_let_in() {
        assert_eq!(check(&signed(), Operation::Read), Ok(()));
        assert_eq!(
            check(&signed(), Operation::Write),
            Err(Denied::InvalidSignature)
        );
        let other = Signed {
            path: "other.txt".to_owned(),
            ..signed()
        };
        assert_eq!(
            check(&other, Operation::Read),
            Err(Denied::InvalidSignature)
        );
        assert_eq!(
            check(&Signed::default(), Operation::Read),
            Err(Denied::MissingSignature)
        );
    }

    #[test]
    fn a_signature_ends_and_its_end_is_signed() {
        let until = |end: &str| {
            let mut signed = Signed {
                expiration: Some(end.to_owned()),
                ..signed()
            };
            signed.signature = Some(signature(&token(), &signed, Operation::Read));
            signed
        };
        assert_eq!(check(&until("1000"), Operation::Read), Ok(()));
        assert_eq!(check(&until("999"), Operation::Read), Err(Denied::Expired));
        let stretched = Signed {
            expiration: Some("2000".to_owned()),
            ..until("999")
        };
        assert_eq!(
            check(&stretched, Operation::Read),
            Err(Denied::InvalidSignature)
        );
    }

    #[test]
    fn a_token_in_the_header_decides_alone() {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, "wrong".parse().unwrap());
        assert_eq!(check_token(&token(), &headers), Err(Denied::Unauthorized));
        assert_eq!(
            check_files(&token(), &headers, &signed(), Operation::Read, 0),
            Err(Denied::WrongToken)
        );
        headers.insert(HEADER, token().expose().parse().unwrap());
        assert_eq!(check_token(&token(), &headers), Ok(()));
        assert_eq!(
            check_files(&token(), &headers, &Signed::default(), Operation::Write, 0),
            Ok(())
        );
        assert_eq!(
            check_token(&token(), &HeaderMap::new()),
            Err(Denied::Unauthorized)
        );
        assert_eq!(check_token(&Token::default(), &HeaderMap::new()), Ok(()));
    }

    proptest! {
        #[test]
        fn no_other_signature_is_let_in(text in "(v1_)?[A-Za-z0-9+/=_-]{0,50}", end in prop::option::of(".{0,20}")) {
            let right = end.is_none() && Some(&text) == signed().signature.as_ref();
            let tried = Signed { signature: Some(text), expiration: end, ..signed() };
            prop_assert_eq!(check(&tried, Operation::Read).is_ok(), right);
        }
    }
}
