//! The HTTP client of the host for the guest agent.
//!
//! Each function sends one request over a connected stream. The agent is untrusted: the length of its response is bounded,
//! and only the status is used, except for metrics. There are no timeouts: the caller must set them.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::{InitRequest, Metrics};

/// The longest response, head and body together.
const MAX_RESPONSE_LEN: usize = 16 * 1024;
const MAX_HEADERS: usize = 32;
/// The most characters of an error response that are kept.
const MAX_REASON_LEN: usize = 400;

/// An error of a request to the guest agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The agent returned an error status.
    #[error("guest agent answered {status}: {reason}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The beginning of the untrusted response body, without control characters.
        reason: String,
    },
    /// The response is invalid or too long.
    #[error("invalid response of the guest agent: {0}")]
    Malformed(&'static str),
    /// The stream failed, or ended before the response was complete.
    #[error("connection to the guest agent failed")]
    Io(#[source] io::Error),
    /// The request cannot be encoded.
    #[error("failed to encode init request")]
    Encode(#[source] serde_json::Error),
}

/// Assigns clock, entropy and identity, and returns once they are in effect. Thaws a frozen disk.
pub async fn init(stream: UnixStream, request: &InitRequest) -> Result<(), AgentError> {
    let body = serde_json::to_vec(request).map_err(AgentError::Encode)?;
    let head = format!(
        "POST /init HTTP/1.1\r\nhost: guest\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        body.len()
    );
    let mut message = head.into_bytes();
    message.extend_from_slice(&body);
    exchange(stream, &message).await?;
    Ok(())
}

/// Succeeds if the agent is healthy.
pub async fn health(stream: UnixStream) -> Result<(), AgentError> {
    exchange(stream, &request("GET", "/health")).await?;
    Ok(())
}

/// Syncs and freezes the guest's root disk until [`unfreeze`] or [`init`]. Succeeds if it is frozen already. Writes of
/// clients and of programs in the guest block meanwhile.
pub async fn freeze(stream: UnixStream) -> Result<(), AgentError> {
    exchange(stream, &request("POST", "/freeze")).await?;
    Ok(())
}

/// Runs the template's hooks that load programs into memory before its snapshot, and waits for them.
pub async fn warm(stream: UnixStream) -> Result<(), AgentError> {
    exchange(stream, &request("POST", "/warm")).await?;
    Ok(())
}

/// Thaws the guest's root disk. Succeeds if it is not frozen.
pub async fn unfreeze(stream: UnixStream) -> Result<(), AgentError> {
    exchange(stream, &request("POST", "/unfreeze")).await?;
    Ok(())
}

/// Reads the resource usage that the guest reports.
pub async fn metrics(stream: UnixStream) -> Result<Metrics, AgentError> {
    let body = exchange(stream, &request("GET", "/metrics")).await?;
    let metrics: Metrics =
        serde_json::from_slice(&body).map_err(|_| AgentError::Malformed("not metrics"))?;
    if !(0.0..=100.0).contains(&metrics.cpu_used_pct) {
        return Err(AgentError::Malformed("CPU usage is not between 0 and 100"));
    }
    Ok(metrics)
}

fn request(method: &str, path: &str) -> Vec<u8> {
    let length = if method == "POST" {
        "content-length: 0\r\n"
    } else {
        ""
    };
    format!("{method} {path} HTTP/1.1\r\nhost: guest\r\n{length}connection: close\r\n\r\n")
        .into_bytes()
}

/// Sends a request and returns the body of a successful response. Without `content-length` the body is ignored.
async fn exchange(mut stream: UnixStream, message: &[u8]) -> Result<Vec<u8>, AgentError> {
    stream.write_all(message).await.map_err(AgentError::Io)?;
    let mut response = Vec::with_capacity(512);
    let head = loop {
        if let Some(head) = parse_head(&response)? {
            break head;
        }
        if !read_more(&mut stream, &mut response).await? {
            return Err(AgentError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
    };
    let is_success = (200..300).contains(&head.status);
    let total = head.length.map(|length| head.end.saturating_add(length));
    if is_success && total.is_none() {
        return Ok(Vec::new());
    }
    let total = total.unwrap_or(MAX_RESPONSE_LEN);
    while response.len() < total.min(MAX_RESPONSE_LEN) {
        if !read_more(&mut stream, &mut response).await? {
            break;
        }
    }
    let body = response.get(head.end..).unwrap_or_default();
    if is_success && response.len() >= total {
        return Ok(body.to_vec());
    }
    if is_success {
        return Err(AgentError::Malformed("incomplete or too long"));
    }
    Err(AgentError::Refused {
        status: head.status,
        reason: printable(body),
    })
}

/// Reads available bytes; `false` at the end of the stream.
async fn read_more(stream: &mut UnixStream, response: &mut Vec<u8>) -> Result<bool, AgentError> {
    let room = MAX_RESPONSE_LEN.saturating_sub(response.len());
    if room == 0 {
        return Err(AgentError::Malformed("longer than 16 KiB"));
    }
    let limit = u64::try_from(room).unwrap_or(u64::MAX);
    let len = stream
        .take(limit)
        .read_buf(response)
        .await
        .map_err(AgentError::Io)?;
    Ok(len > 0)
}

/// The relevant parts of a response head.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// The offset of the body.
    end: usize,
    /// The `content-length`, if present.
    length: Option<usize>,
}

/// Parses a response head; `None` while it is incomplete. Never panics.
fn parse_head(bytes: &[u8]) -> Result<Option<Head>, AgentError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let end = match response.parse(bytes) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(AgentError::Malformed("not HTTP")),
    };
    let status = response.code.ok_or(AgentError::Malformed("no status"))?;
    let length = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .map(|header| std::str::from_utf8(header.value).ok()?.parse().ok());
    match length {
        Some(None) => Err(AgentError::Malformed("content-length is not a number")),
        length => Ok(Some(Head {
            status,
            end,
            length: length.flatten(),
        })),
    }
}

fn printable(body: &[u8]) -> String {
    String::from_utf8_lossy(body)
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_REASON_LEN)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    async fn init_with_response(response: &'static [u8]) -> (Result<(), AgentError>, String) {
        let (host, mut guest) = UnixStream::pair().unwrap();
        let guest = async move {
            let mut request = Vec::new();
            while !request.ends_with(b"{}") {
                assert!(guest.read_buf(&mut request).await.unwrap() > 0);
            }
            guest.write_all(response).await.unwrap();
            String::from_utf8(request).unwrap()
        };
        let request = InitRequest::default();
        tokio::join!(init(host, &request), guest)
    }

    #[tokio::test]
    async fn success_without_a_body_is_enough() {
        let (result, request) = init_with_response(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        result.unwrap();
        assert!(request.starts_with("POST /init HTTP/1.1\r\n"));
        assert!(request.contains("content-length: 2\r\n"));
    }

    #[tokio::test]
    async fn error_status_is_returned_with_its_printable_reason() {
        let (result, _) = init_with_response(b"HTTP/1.1 400 No\r\n\r\nbad \x1b[31mthing").await;
        let text = result.unwrap_err().to_string();
        assert_eq!(text, "guest agent answered 400: bad [31mthing");
    }

    #[tokio::test]
    async fn truncated_and_endless_responses_are_errors() {
        assert!(matches!(
            init_with_response(b"HTTP/1.1 204 No").await.0,
            Err(AgentError::Io(_))
        ));
        assert!(matches!(
            init_with_response(b"no http\r\n\r\n").await.0,
            Err(AgentError::Malformed(_))
        ));
        let endless: &'static [u8] = Box::leak(
            [b"HTTP/1.1 200 x\r\na: ".as_slice(), &[b'a'; 20_000]]
                .concat()
                .into(),
        );
        assert!(matches!(
            init_with_response(endless).await.0,
            Err(AgentError::Malformed(_))
        ));
    }

    async fn metrics_from_response(response: &'static [u8]) -> Result<Metrics, AgentError> {
        let (host, mut guest) = UnixStream::pair().unwrap();
        let guest = async move {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                assert!(guest.read_buf(&mut request).await.unwrap() > 0);
            }
            assert!(request.starts_with(b"GET /metrics HTTP/1.1\r\n"));
            guest.write_all(response).await.unwrap();
        };
        tokio::join!(metrics(host), guest).0
    }

    #[tokio::test]
    async fn incomplete_and_invalid_metrics_are_errors() {
        let valid = b"HTTP/1.1 200 OK\r\ncontent-length: 36\r\n\r\n{\"cpu_count\":2,\"cpu_used_pct\":12.5} ";
        assert_eq!(
            metrics_from_response(valid).await.unwrap(),
            Metrics {
                cpu_count: 2,
                cpu_used_pct: 12.5,
                ..Metrics::default()
            }
        );
        let invalid: [&[u8]; 5] = [
            b"HTTP/1.1 200 OK\r\ncontent-length: 36\r\n\r\n{\"cpu_count\":2",
            b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ntrue",
            b"HTTP/1.1 200 OK\r\ncontent-length: 22\r\n\r\n{\"cpu_used_pct\":1e300}",
        ];
        for response in invalid {
            let error = metrics_from_response(response).await.unwrap_err();
            assert!(matches!(error, AgentError::Malformed(_)), "{error}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes: Vec<u8>) {
            if let Ok(Some(head)) = parse_head(&bytes) {
                prop_assert!(head.end <= bytes.len());
            }
        }

        #[test]
        fn mutated_heads_do_not_panic(at in 0usize..40, byte: u8) {
            let mut head = b"HTTP/1.1 204 No Content\r\ndate: now\r\n\r\n".to_vec();
            let at = at % head.len();
            head[at] = byte;
            if let Ok(Some(found)) = parse_head(&head) {
                prop_assert!(found.end <= head.len());
            }
        }
    }
}
