//! What a fake guest answers.
//!
//! A stream to the relay's port begins with the preamble; then each line is a command, answered by a line:
//!
//! | line | answer |
//! | --- | --- |
//! | `write N TEXT` | puts `TEXT` into page `N` of memory: `ok` |
//! | `read N` | the text in page `N` |
//! | `disk-write N TEXT`, `disk-read N` | likewise for block `N` of the first disk |
//! | `die` | nothing: the machine dies |
//! | any other | itself |
//!
//! The agent's port takes `/init`, `/health`, `/freeze`, `/unfreeze` and `/metrics`; a frozen guest's disk is not written.

use std::{io, sync::Arc};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

use super::{Fault, died, machine::Inner};

/// The vsock port on which the host speaks to the agent.
pub const HOST_PORT: u32 = 1025;
/// The vsock port of the agent.
pub const AGENT_PORT: u32 = 49983;
/// The vsock port of the relay.
pub const RELAY_PORT: u32 = 1024;
/// A TCP port on which nothing listens.
pub const CLOSED_PORT: u16 = 81;

/// What the agent says of itself.
const METRICS: &str = r#"{"ts":1,"cpu_count":1,"cpu_used_pct":12.5,"mem_total":4194304,"mem_used":8192,"mem_cache":4096,
"mem_total_mib":4,"mem_used_mib":0,"disk_used":4096,"disk_total":1048576}"#;

/// Answers on one stream until it ends.
pub(super) async fn serve(inner: Arc<Inner>, port: u32, stream: UnixStream) {
    let result = match port {
        HOST_PORT | AGENT_PORT => agent(&inner, stream).await,
        _ => relay(&inner, stream).await,
    };
    if let Err(error) = result {
        tracing::debug!(%error, port, "a stream of the fake guest ended");
    }
}

async fn agent(inner: &Inner, stream: UnixStream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    inner.runs().await;
    let (mut status, mut told) = ("204 No Content", "");
    if head.starts_with("GET /metrics ") {
        (status, told) = ("200 OK", METRICS);
    } else if head.starts_with("POST /freeze ") {
        if inner.shared.fails(Fault::Freeze) {
            status = "500 Internal Server Error";
        } else {
            inner.guest.lock().frozen = true;
        }
    } else if head.starts_with("POST /unfreeze ") {
        inner.guest.lock().frozen = false;
    } else if head.starts_with("POST /init ") {
        if inner.shared.fails(Fault::Init) {
            status = "500 Internal Server Error";
        } else {
            inner
                .shared
                .inits
                .lock()
                .push(serde_json::from_slice(&body)?);
        }
    }
    let length = told.len();
    let answer =
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{told}");
    stream.write_all(answer.as_bytes()).await
}

async fn relay(inner: &Inner, mut stream: UnixStream) -> io::Result<()> {
    let mut preamble = [0; 4];
    stream.read_exact(&mut preamble).await?;
    inner.runs().await;
    let [b'R', 1, high, low] = preamble else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    if u16::from_be_bytes([high, low]) == CLOSED_PORT {
        return stream.write_all(&[1]).await;
    }
    stream.write_all(&[0]).await?;
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        inner.runs().await;
        let mut words = line.splitn(3, ' ');
        let answer = match (
            words.next(),
            words.next().and_then(|n| n.parse::<u32>().ok()),
            words.next(),
        ) {
            (Some("write"), Some(page), Some(text)) => inner
                .guest
                .lock()
                .write(page, text)
                .map(|()| "ok".to_owned()),
            (Some("read"), Some(page), None) => inner.guest.lock().read(page),
            (Some("disk-write"), Some(block), Some(text)) => inner
                .guest
                .lock()
                .disk_write(block, text)
                .map(|()| "ok".to_owned()),
            (Some("disk-read"), Some(block), None) => inner.guest.lock().disk_read(block),
            (Some("die"), None, None) => {
                inner.end(died());
                return Ok(());
            }
            _ => Ok(line),
        }?;
        write.write_all(format!("{answer}\n").as_bytes()).await?;
    }
    Ok(())
}
