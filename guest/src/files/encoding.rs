//! Negotiates the content encoding (RFC 9110).

use http::{HeaderMap, header};

/// A supported content encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
}

/// The caller accepts none of the offered encodings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no acceptable encoding found, supported: [gzip, identity]")]
pub(super) struct NotAcceptable;

/// The encodings that the server offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    GzipAndIdentity,
    IdentityOnly,
}

/// Selects the offered encoding with the highest weight in `Accept-Encoding`, and of equal ones the first.
pub(super) fn negotiate(headers: &HeaderMap, offer: Offer) -> Result<Encoding, NotAcceptable> {
    let mut codings: Vec<(u16, &str)> = headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .filter_map(parse_coding)
        .collect();
    let refused = |name: &str| {
        codings
            .iter()
            .any(|(weight, coding)| *weight == 0 && coding.eq_ignore_ascii_case(name))
    };
    let named = |name: &str| {
        codings
            .iter()
            .any(|(_, coding)| coding.eq_ignore_ascii_case(name))
    };
    let no_identity = refused("identity") || (refused("*") && !named("identity"));
    if offer == Offer::IdentityOnly {
        return if no_identity {
            Err(NotAcceptable)
        } else {
            Ok(Encoding::Identity)
        };
    }
    let no_gzip = refused("gzip");
    codings.retain(|(weight, _)| *weight > 0);
    // The sort is stable, so equal weights keep their order.
    codings.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    for (_, name) in &codings {
        match name.to_ascii_lowercase().as_str() {
            "gzip" => return Ok(Encoding::Gzip),
            "identity" => return Ok(Encoding::Identity),
            "*" if !no_identity => return Ok(Encoding::Identity),
            "*" if !no_gzip => return Ok(Encoding::Gzip),
            _ => {}
        }
    }
    if no_identity {
        Err(NotAcceptable)
    } else {
        Ok(Encoding::Identity)
    }
}

/// Parses a coding and its weight in thousandths; `None` if it is malformed.
fn parse_coding(text: &str) -> Option<(u16, &str)> {
    let mut parts = text.split(';');
    let name = parts.next()?.trim();
    if name.is_empty() {
        return None;
    }
    let mut weight = 1000;
    for parameter in parts {
        if let Some((key, value)) = parameter.split_once('=')
            && key.trim().eq_ignore_ascii_case("q")
        {
            weight = thousandths(value.trim())?;
        }
    }
    Some((weight, name))
}

/// Parses a weight such as `0`, `0.5` or `1.000`.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|digit| digit.is_ascii_digit());
    if !matches!(whole, "0" | "1") || rest.len() > 3 || !digits(rest) {
        return None;
    }
    let thousandths: u16 = format!("{rest:0<3}").parse().ok()?;
    let whole: u16 = whole.parse().ok()?;
    Some((whole * 1000 + thousandths).min(1000))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::{Encoding::*, Offer::*, *};

    fn negotiated(text: &str, offer: Offer) -> Result<Encoding, NotAcceptable> {
        let mut headers = HeaderMap::new();
        headers.insert("accept-encoding", HeaderValue::from_str(text).unwrap());
        negotiate(&headers, offer)
    }

    #[test]
    fn highest_weight_is_selected() {
        for (text, expected) in [
            ("gzip, deflate", Ok(Gzip)),
            ("", Ok(Identity)),
            ("br", Ok(Identity)),
            ("identity, gzip", Ok(Identity)),
            ("gzip;q=0.5, identity;q=0.4", Ok(Gzip)),
            ("gzip;q=0.5, identity", Ok(Identity)),
            ("GZIP;Q=1.0", Ok(Gzip)),
            ("*", Ok(Identity)),
            ("*, identity;q=0", Ok(Gzip)),
            ("gzip;q=0, *", Ok(Identity)),
            ("identity;q=0", Err(NotAcceptable)),
            ("br, *;q=0", Err(NotAcceptable)),
            ("*;q=0, identity", Ok(Identity)),
            ("gzip;q=x, br", Ok(Identity)),
        ] {
            assert_eq!(negotiated(text, GzipAndIdentity), expected, "{text}");
        }
        assert_eq!(negotiate(&HeaderMap::new(), GzipAndIdentity), Ok(Identity));
        assert_eq!(negotiated("gzip", IdentityOnly), Ok(Identity));
        assert_eq!(
            negotiated("gzip, identity;q=0", IdentityOnly),
            Err(NotAcceptable)
        );
    }

    proptest! {
        #[test]
        fn arbitrary_headers_do_not_panic(text in "[ -~]{0,40}", listed in "([a-z*]{0,8}(;q=[01](\\.[0-9]{0,4})?)?,?){0,5}") {
            let _any = negotiated(&text, GzipAndIdentity);
            if negotiated(&listed, IdentityOnly).is_ok() {
                prop_assert!(negotiated(&listed, GzipAndIdentity).is_ok());
            }
        }
    }
}
