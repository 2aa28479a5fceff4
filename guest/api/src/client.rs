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

/// Tells the agent what the guest is now, and returns when it has taken effect.
pub async fn init(stream: UnixStream, request: &InitRequest) -> Result<(), AgentError> {
    let body = serde_json::to_vec(request).map_err(AgentError::Encode)?;
    let head = format!(
        "POST /init HTTP/1.1\r\nhost: guest\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        body.len()
    );
    let mut message = head.into_bytes();
    message.extend_from_slice(&body);
    exchange(stream, &message).await
}

/// Returns when the agent says it is healthy.
pub async fn health(stream: UnixStream) -> Result<(), AgentError> {
    let message = b"GET /health HTTP/1.1\r\nhost: guest\r\nconnection: close\r\n\r\n";
    exchange(stream, message).await
}

/// Writes back what the guest's filesystem holds and freezes it. Frozen before: does nothing.
pub async fn freeze(stream: UnixStream) -> Result<(), AgentError> {
    exchange(stream, &bare("POST", "/freeze")).await
}

/// Lets a frozen filesystem be written again.
pub async fn unfreeze(stream: UnixStream) -> Result<(), AgentError> {
    exchange(stream, &bare("POST", "/unfreeze")).await
}

/// What the guest says of itself.
pub async fn metrics(stream: UnixStream) -> Result<Metrics, AgentError> {
    let body = ask(stream, &bare("GET", "/metrics")).await?;
    serde_json::from_slice(&body).map_err(|_| AgentError::Malformed("not metrics"))
}

fn bare(method: &str, path: &str) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: guest\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )
    .into_bytes()
}

async fn exchange(stream: UnixStream, message: &[u8]) -> Result<(), AgentError> {
    send(stream, message).await.map(drop)
}

async fn ask(stream: UnixStream, message: &[u8]) -> Result<Vec<u8>, AgentError> {
    let (mut stream, mut body) = send(stream, message).await?;
    while read_more(&mut stream, &mut body).await? {}
    Ok(body)
}

/// Sends a request and reads the head of its answer, and whatever of its body came with it. A refusal is an error.
async fn send(mut stream: UnixStream, message: &[u8]) -> Result<(UnixStream, Vec<u8>), AgentError> {
    stream.write_all(message).await.map_err(AgentError::Io)?;
    let mut answer = Vec::with_capacity(512);
    let (status, head_len) = loop {
        if let Some(head) = parse_head(&answer)? {
            break head;
        }
        if !read_more(&mut stream, &mut answer).await? {
            return Err(AgentError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
    };
    if (200..300).contains(&status) {
        let body = answer.split_off(head_len.min(answer.len()));
        return Ok((stream, body));
    }
    while answer.len() < MAX_ANSWER && read_more(&mut stream, &mut answer).await? {}
    let body = answer.get(head_len..).unwrap_or_default();
    Err(AgentError::Refused {
        status,
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

/// The status and the length of an answer's head; `None` while it is not whole. Total.
fn parse_head(answer: &[u8]) -> Result<Option<(u16, usize)>, AgentError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(answer) {
        Ok(httparse::Status::Complete(len)) => match response.code {
            Some(status) => Ok(Some((status, len))),
            None => Err(AgentError::Malformed("no status")),
        },
        Ok(httparse::Status::Partial) => Ok(None),
        Err(_) => Err(AgentError::Malformed("not HTTP")),
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

    proptest! {
        #[test]
        fn any_bytes_are_a_head_or_are_refused(bytes: Vec<u8>) {
            if let Ok(Some((_, len))) = parse_head(&bytes) {
                prop_assert!(len <= bytes.len());
            }
        }

        #[test]
        fn a_changed_head_is_read_or_refused(at in 0usize..40, byte: u8) {
            let mut head = b"HTTP/1.1 204 No Content\r\ndate: now\r\n\r\n".to_vec();
            let at = at % head.len();
            head[at] = byte;
            if let Ok(Some((_, len))) = parse_head(&head) {
                prop_assert!(len <= head.len());
            }
        }
    }
}
