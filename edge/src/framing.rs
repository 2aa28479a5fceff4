//! The framing of messages: lengths, codings and the fields that belong to one connection (RFC 9110 7.6, RFC 9112 6).

use http::{HeaderMap, HeaderName, StatusCode, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};

/// Fields of a response that belong to the connection into the guest.
const CONNECTION_FIELDS: [HeaderName; 5] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::UPGRADE,
];

/// A message whose framing is not usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidFraming {
    /// Its lengths contradict each other, or are no numbers.
    #[error("Content-Length is not one number")]
    Length,
    /// Its coding is not `chunked`.
    #[error("Transfer-Encoding is not chunked")]
    Coding,
    /// It switches to another protocol, which the client did not ask for.
    #[error("the protocol was switched without a request")]
    Unasked,
}

/// Returns the length that a head declares: one number, or the same one several times.
pub(crate) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, InvalidFraming> {
    let mut length = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        let text = value.to_str().map_err(|_| InvalidFraming::Length)?;
        for number in text.split(',').map(str::trim) {
            let is_number = !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit());
            let parsed = number.parse::<u64>().ok().filter(|_| is_number);
            let parsed = parsed.ok_or(InvalidFraming::Length)?;
            if length.is_some_and(|length| length != parsed) {
                return Err(InvalidFraming::Length);
            }
            length = Some(parsed);
        }
    }
    Ok(length)
}

/// Returns whether a request is gRPC, which needs HTTP/2 up to the server: its status is a trailer.
pub(crate) fn is_grpc(request: &RequestHeader) -> bool {
    let content_type = request.headers.get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    let rest = content_type.and_then(|value| value.strip_prefix("application/grpc"));
    request.version == Version::HTTP_2
        && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']))
}

/// Gives a request one length at most.
pub(crate) fn normalize_request(request: &mut RequestHeader) -> pingora::Result<()> {
    // Pingora has refused the request if its lengths contradict each other.
    if let Ok(Some(length)) = content_length(&request.headers)
        && request
            .headers
            .get_all(header::CONTENT_LENGTH)
            .iter()
            .count()
            > 0
    {
        request.insert_header(header::CONTENT_LENGTH, length)?;
    }
    Ok(())
}

/// Joins the cookies of an HTTP/2 request, as RFC 9113 8.2.3 demands for HTTP/1.1.
pub(crate) fn join_cookies(request: &mut RequestHeader) -> pingora::Result<()> {
    let cookies: Vec<&[u8]> = request
        .headers
        .get_all(header::COOKIE)
        .iter()
        .map(http::HeaderValue::as_bytes)
        .collect();
    if cookies.len() > 1 {
        let joined = cookies.join(&b"; "[..]);
        request.insert_header(header::COOKIE, joined)?;
    }
    Ok(())
}

/// Checks and normalizes a response of a guest. `upgrade`: the client asked for another protocol.
pub(crate) fn normalize_response(
    response: &mut ResponseHeader,
    upgrade: bool,
) -> Result<(), InvalidFraming> {
    let switches = response.status == StatusCode::SWITCHING_PROTOCOLS;
    if switches && !upgrade {
        return Err(InvalidFraming::Unasked);
    }
    if !switches {
        remove_connection_fields(response);
    }
    if response.status.is_informational() || response.status == StatusCode::NO_CONTENT {
        response.remove_header(&header::CONTENT_LENGTH);
        response.remove_header(&header::TRANSFER_ENCODING);
        return Ok(());
    }
    check_coding(response)?;
    if let Some(length) = content_length(&response.headers)? {
        response
            .insert_header(header::CONTENT_LENGTH, length)
            .map_err(|_| InvalidFraming::Length)?;
    }
    Ok(())
}

/// Removes the fields of one connection and those that `Connection` names.
fn remove_connection_fields(response: &mut ResponseHeader) {
    let named: Vec<HeaderName> = response
        .headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // Its framing is not the connection's.
        .filter(|name| *name != header::TRANSFER_ENCODING && *name != header::CONTENT_LENGTH)
        .collect();
    for name in CONNECTION_FIELDS.iter().chain(&named) {
        response.remove_header(name);
    }
}

fn check_coding(response: &ResponseHeader) -> Result<(), InvalidFraming> {
    let codings = response.headers.get_all(header::TRANSFER_ENCODING);
    let codings: Vec<&str> = codings
        .iter()
        .map(|value| value.to_str().map_err(|_| InvalidFraming::Coding))
        .collect::<Result<_, _>>()?;
    let mut codings = codings
        .iter()
        .flat_map(|value| value.split(','))
        .map(str::trim);
    match codings.next() {
        None => Ok(()),
        Some(only) if only.eq_ignore_ascii_case("chunked") && codings.next().is_none() => Ok(()),
        Some(_) => Err(InvalidFraming::Coding),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, fields: &[(&'static str, &str)]) -> ResponseHeader {
        let mut response = ResponseHeader::build(status, None).unwrap();
        for (name, value) in fields {
            response.append_header(*name, *value).unwrap();
        }
        response
    }

    #[test]
    fn equal_lengths_become_one_and_others_are_refused() {
        let mut same = response(200, &[("content-length", "4, 4"), ("content-length", "4")]);
        normalize_response(&mut same, false).unwrap();
        let lengths: Vec<_> = same.headers.get_all("content-length").iter().collect();
        assert_eq!(lengths, ["4"]);
        for length in ["4, 5", "+4", "-4", "0x4", "", "4,", "99999999999999999999"] {
            let mut other = response(200, &[("content-length", length)]);
            let outcome = normalize_response(&mut other, false);
            assert_eq!(outcome, Err(InvalidFraming::Length), "{length:?}");
        }
    }

    #[test]
    fn other_codings_than_chunked_are_refused() {
        for (codings, expected) in [
            (&["chunked"][..], Ok(())),
            (&["Chunked"], Ok(())),
            (&["gzip"], Err(InvalidFraming::Coding)),
            (&["chunked, gzip"], Err(InvalidFraming::Coding)),
            (&["chunked", "chunked"], Err(InvalidFraming::Coding)),
            (&["xchunked"], Err(InvalidFraming::Coding)),
        ] {
            let fields: Vec<_> = codings.iter().map(|c| ("transfer-encoding", *c)).collect();
            let mut coded = response(200, &fields);
            assert_eq!(
                normalize_response(&mut coded, false),
                expected,
                "{codings:?}"
            );
        }
    }

    #[test]
    fn connection_fields_and_needless_lengths_are_removed() {
        let mut plain = response(
            200,
            &[
                ("connection", "x-hop, close"),
                ("x-hop", "1"),
                ("keep-alive", "timeout=5"),
                ("te", "x"),
                ("upgrade", "h2c"),
                ("x-end", "1"),
            ],
        );
        normalize_response(&mut plain, false).unwrap();
        for name in ["x-hop", "keep-alive", "te", "upgrade"] {
            assert!(!plain.headers.contains_key(name), "{name}");
        }
        assert!(plain.headers.contains_key("x-end"));
        for status in [103, 204] {
            let mut empty = response(status, &[("content-length", "60")]);
            normalize_response(&mut empty, false).unwrap();
            assert!(!empty.headers.contains_key("content-length"));
        }
    }

    #[test]
    fn protocol_switches_only_on_request() {
        let fields = [("connection", "upgrade"), ("upgrade", "websocket")];
        let mut switched = response(101, &fields);
        assert_eq!(
            normalize_response(&mut switched, false),
            Err(InvalidFraming::Unasked)
        );
        normalize_response(&mut switched, true).unwrap();
        assert!(switched.headers.contains_key("upgrade"));
    }
}
