//! The host's side of the agent's HTTP.
//!
//! One request over a stream that is connected already. The agent is hostile: its answer is bounded, and nothing is
//! taken from it but whether it did as asked. Nothing here bounds the wait, as only the caller knows how long it has.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::{InitRequest, Metrics};

/// Most bytes of an answer that are read, head and body together.
const MAX_ANSWER: usize = 16 * 1024;
const MAX_HEADERS: usize = 32;
/// Most characters of a refusal's text that are kept.
const MAX_REASON: usize = 400;

/// An agent that did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// It answered that it will not or could not.
    #[error("the guest agent answered {status}: {reason}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The beginning of its answer, printable characters only. The guest wrote it.
        reason: String,
    },
    /// What it answered is not HTTP, or too long.
    #[error("read answer of the guest agent: {0}")]
    Malformed(&'static str),
    /// The stream failed, or ended before the answer did.
    #[error("talk to the guest agent")]
    Io(#[source] io::Error),
    /// The request could not be written down.
    #[error("encode init request")]
    Encode(#[source] serde_json::Error),
}

/// Tells the agent what the guest is now, and returns when it has taken effect. A disk that is frozen is thawed.
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

/// Returns when the agent says it is healthy.
pub async fn health(stream: UnixStream) -> Result<(), AgentError> {
    exchange(stream, &request("GET", "/health")).await?;
    Ok(())
}

/// Has everything written to the guest's root disk, and nothing more until [`unfreeze`] or [`init`]. A disk that is
/// frozen already stays so. Callers of the agent that write files wait meanwhile, as do programs of the guest.
pub async fn freeze(stream: UnixStream) -> Result<(), AgentError> {
    exchange(stream, &request("POST", "/freeze")).await?;
    Ok(())
}

/// Has the template's own programs bring into memory what its sandboxes start first, and returns when they are done.
pub async fn warm(stream: UnixStream) -> Result<(), AgentError> {
    exchange(stream, &request("POST", "/warm")).await?;
    Ok(())
}

/// Lets the guest's root disk be written to again. One that is not frozen stays so.
pub async fn unfreeze(stream: UnixStream) -> Result<(), AgentError> {
    exchange(stream, &request("POST", "/unfreeze")).await?;
    Ok(())
}

/// How busy the guest says it is.
pub async fn metrics(stream: UnixStream) -> Result<Metrics, AgentError> {
    let body = exchange(stream, &request("GET", "/metrics")).await?;
    let metrics: Metrics =
        serde_json::from_slice(&body).map_err(|_| AgentError::Malformed("not metrics"))?;
    if !(0.0..=100.0).contains(&metrics.cpu_used_pct) {
        return Err(AgentError::Malformed(
            "more or less processor than there is",
        ));
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

/// Sends a request and returns the body of a good answer: what came until the agent ended the stream, or until as much
/// as it said.
async fn exchange(mut stream: UnixStream, message: &[u8]) -> Result<Vec<u8>, AgentError> {
    stream.write_all(message).await.map_err(AgentError::Io)?;
    let mut answer = Vec::with_capacity(512);
    let head = loop {
        if let Some(head) = parse_head(&answer)? {
            break head;
        }
        if !read_more(&mut stream, &mut answer).await? {
            return Err(AgentError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
    };
    let good = (200..300).contains(&head.status);
    let whole = head.length.map(|length| head.end.saturating_add(length));
    if good && whole.is_none() {
        return Ok(Vec::new());
    }
    let whole = whole.unwrap_or(MAX_ANSWER);
    while answer.len() < whole.min(MAX_ANSWER) {
        if !read_more(&mut stream, &mut answer).await? {
            break;
        }
    }
    let body = answer.get(head.end..).unwrap_or_default();
    if good && answer.len() >= whole {
        return Ok(body.to_vec());
    }
    if good {
        return Err(AgentError::Malformed("answer is cut short or too long"));
    }
    Err(AgentError::Refused {
        status: head.status,
        reason: printable(body),
    })
}

/// Reads what there is; `false` at the end of the stream.
async fn read_more(stream: &mut UnixStream, answer: &mut Vec<u8>) -> Result<bool, AgentError> {
    let room = MAX_ANSWER.saturating_sub(answer.len());
    if room == 0 {
        return Err(AgentError::Malformed("longer than 16 KiB"));
    }
    let limit = u64::try_from(room).unwrap_or(u64::MAX);
    let got = stream
        .take(limit)
        .read_buf(answer)
        .await
        .map_err(AgentError::Io)?;
    Ok(got > 0)
}

/// What of an answer's head matters.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Where the body begins.
    end: usize,
    /// The length of the body, in bytes, if it is said.
    length: Option<usize>,
}

/// An answer's head; `None` while it is not whole. Total.
fn parse_head(answer: &[u8]) -> Result<Option<Head>, AgentError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let end = match response.parse(answer) {
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
        Some(None) => Err(AgentError::Malformed("length is no number")),
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
        .take(MAX_REASON)
        .collect()
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::*;

    async fn asked(answer: &'static [u8]) -> (Result<(), AgentError>, String) {
        let (host, mut guest) = UnixStream::pair().unwrap();
        let guest = async move {
            let mut request = Vec::new();
            while !request.ends_with(b"{}") {
                assert!(guest.read_buf(&mut request).await.unwrap() > 0);
            }
            guest.write_all(answer).await.unwrap();
            String::from_utf8(request).unwrap()
        };
        let request = InitRequest::default();
        tokio::join!(init(host, &request), guest)
    }

    #[tokio::test]
    async fn a_good_answer_is_enough() {
        let (result, request) = asked(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        result.unwrap();
        assert!(request.starts_with("POST /init HTTP/1.1\r\n"));
        assert!(request.contains("content-length: 2\r\n"));
    }

    #[tokio::test]
    async fn a_refusal_is_told_with_its_reason() {
        let (result, _) = asked(b"HTTP/1.1 400 No\r\n\r\nbad \x1b[31mthing").await;
        let text = result.unwrap_err().to_string();
        assert_eq!(text, "the guest agent answered 400: bad [31mthing");
    }

    #[tokio::test]
    async fn an_answer_cut_short_or_never_ending_is_an_error() {
        assert!(matches!(
            asked(b"HTTP/1.1 204 No").await.0,
            Err(AgentError::Io(_))
        ));
        assert!(matches!(
            asked(b"no http\r\n\r\n").await.0,
            Err(AgentError::Malformed(_))
        ));
        let endless: &'static [u8] = Box::leak(
            [b"HTTP/1.1 200 x\r\na: ".as_slice(), &[b'a'; 20_000]]
                .concat()
                .into(),
        );
        assert!(matches!(
            asked(endless).await.0,
            Err(AgentError::Malformed(_))
        ));
    }

    async fn measured(answer: &'static [u8]) -> Result<Metrics, AgentError> {
        let (host, mut guest) = UnixStream::pair().unwrap();
        let guest = async move {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                assert!(guest.read_buf(&mut request).await.unwrap() > 0);
            }
            assert!(request.starts_with(b"GET /metrics HTTP/1.1\r\n"));
            guest.write_all(answer).await.unwrap();
        };
        tokio::join!(metrics(host), guest).0
    }

    #[tokio::test]
    async fn metrics_are_whole_or_an_error() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 36\r\n\r\n{\"cpu_count\":2,\"cpu_used_pct\":12.5} ";
        assert_eq!(
            measured(answer).await.unwrap(),
            Metrics {
                cpu_count: 2,
                cpu_used_pct: 12.5,
                ..Metrics::default()
            }
        );
        let bad: [&[u8]; 5] = [
            b"HTTP/1.1 200 OK\r\ncontent-length: 36\r\n\r\n{\"cpu_count\":2",
            b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ntrue",
            b"HTTP/1.1 200 OK\r\ncontent-length: 22\r\n\r\n{\"cpu_used_pct\":1e300}",
        ];
        for answer in bad {
            let error = measured(answer).await.unwrap_err();
            assert!(matches!(error, AgentError::Malformed(_)), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_head_or_are_refused(bytes: Vec<u8>) {
            if let Ok(Some(head)) = parse_head(&bytes) {
                prop_assert!(head.end <= bytes.len());
            }
        }

        #[test]
        fn a_changed_head_is_read_or_refused(at in 0usize..40, byte: u8) {
            let mut head = b"HTTP/1.1 204 No Content\r\ndate: now\r\n\r\n".to_vec();
            let at = at % head.len();
            head[at] = byte;
            if let Ok(Some(found)) = parse_head(&head) {
                prop_assert!(found.end <= head.len());
            }
        }
    }
}
