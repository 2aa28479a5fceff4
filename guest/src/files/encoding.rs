//! How a caller wants bytes encoded.

use http::{HeaderMap, header};

/// What this can encode in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
}

/// A caller that takes neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no acceptable encoding found, supported: [gzip, identity]")]
pub(super) struct NotAcceptable;

/// What `Accept-Encoding` likes best, the first of equals. Without `gzip` only if `plain`.
pub(super) fn choose(headers: &HeaderMap, plain: bool) -> Result<Encoding, NotAcceptable> {
    let mut liked: Vec<(u16, &str)> = headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .filter_map(one)
        .collect();
    let refused = |name: &str| {
        liked
            .iter()
            .any(|(weight, liked)| *weight == 0 && liked.eq_ignore_ascii_case(name))
    };
    let named = |name: &str| {
        liked
            .iter()
            .any(|(_, liked)| liked.eq_ignore_ascii_case(name))
    };
    let no_identity = refused("identity") || (refused("*") && !named("identity"));
    if plain {
        return if no_identity {
            Err(NotAcceptable)
        } else {
            Ok(Encoding::Identity)
        };
    }
    let no_gzip = refused("gzip");
    liked.retain(|(weight, _)| *weight > 0);
    // Stable: of equals the first stays the first.
    liked.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    for (_, name) in &liked {
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

/// A name and its weight in thousandths; `None` when it is no such thing.
fn one(text: &str) -> Option<(u16, &str)> {
    let mut parts = text.split(';');
    let name = parts.next()?.trim();
    if name.is_empty() {
        return None;
    }
    let mut weight = 1000;
    for part in parts {
        if let Some((key, value)) = part.split_once('=')
            && key.trim().eq_ignore_ascii_case("q")
        {
            weight = thousandths(value.trim())?;
        }
    }
    Some((weight, name))
}

/// `0`, `0.5`, `1.000`.
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
mod test {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::{Encoding::*, *};

    fn chosen(text: &str, plain: bool) -> Result<Encoding, NotAcceptable> {
        let mut headers = HeaderMap::new();
        headers.insert("accept-encoding", HeaderValue::from_str(text).unwrap());
        choose(&headers, plain)
    }

    #[test]
    fn what_is_liked_best_is_chosen() {
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
            assert_eq!(chosen(text, false), expected, "{text}");
        }
        assert_eq!(choose(&HeaderMap::new(), false), Ok(Identity));
        assert_eq!(chosen("gzip", true), Ok(Identity));
        assert_eq!(chosen("gzip, identity;q=0", true), Err(NotAcceptable));
    }

    proptest! {
        #[test]
        fn any_header_is_read(text in "[ -~]{0,40}", listed in "([a-z*]{0,8}(;q=[01](\\.[0-9]{0,4})?)?,?){0,5}") {
            let _any = chosen(&text, false);
            if chosen(&listed, true).is_ok() {
                prop_assert!(chosen(&listed, false).is_ok());
            }
        }
    }
}
