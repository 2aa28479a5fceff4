//! Services of a guest of the fake.
//!
//! A stream to the relay's port starts with the preamble; then each line is a command, answered with a line:
//!
//! | line | response |
//! | --- | --- |
//! | `write N TEXT` | writes `TEXT` to page `N` of memory: `ok` |
//! | `read N` | the text in page `N` |
//! | `disk-write N TEXT`, `disk-read N` | the same for block `N` of the first disk |
//! | `disk-layers` | the number of sealed layers of the first disk |
//! | `die` | none: the machine dies as if its process had been killed |
//! | `reset` | none: the guest resets |
//! | any other | the line itself |
//!
//! The agent's ports serve `/init`, `/health`, `/freeze`, `/unfreeze` and `/metrics`; a frozen guest cannot write its
//! disk.

use std::{io, sync::Arc};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

use super::{
    controls::Fault,
    instance::{Instance, died},
};
use crate::Exit;

// The ports of `guest-api`, which a boundary crate may not depend on. The pool's tests dial this fake with those of
// `guest-api`, so a difference fails them.

/// Vsock port on which the agent serves the host.
pub const HOST_PORT: u32 = 1025;
/// Vsock port on which the agent serves callers.
pub const AGENT_PORT: u32 = 49983;
/// Vsock port of the relay to TCP ports.
pub const RELAY_PORT: u32 = 1024;
/// A TCP port on which no program listens.
pub const CLOSED_PORT: u16 = 81;

/// The agent's response to `GET /metrics`.
const METRICS: &str = r#"{"ts":1,"cpu_count":1,"cpu_used_pct":12.5,"mem_total":4194304,"mem_used":8192,"mem_cache":4096,
"mem_total_mib":4,"mem_used_mib":0,"disk_used":4096,"disk_total":1048576}"#;
const FAILURE: &str = "500 Internal Server Error";

/// Returns whether a program in the guest listens on a vsock port.
pub(super) fn listens_on(port: u32) -> bool {
    matches!(port, HOST_PORT | AGENT_PORT | RELAY_PORT)
}

/// Serves one stream until it ends.
pub(super) async fn serve(instance: Arc<Instance>, port: u32, stream: UnixStream) {
    let result = match port {
        HOST_PORT | AGENT_PORT => serve_agent(&instance, stream).await,
        _ => serve_relay(&instance, stream).await,
    };
    if let Err(error) = result {
        tracing::debug!(error = %error_chain::chain(&error), port, "failed to serve fake guest stream");
    }
}

async fn serve_agent(instance: &Instance, stream: UnixStream) -> io::Result<()> {
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
    instance.runs().await;
    if head.starts_with("POST /init ") && instance.controls.take_fault(Fault::InitHangs) {
        return std::future::pending().await;
    }
    let (status, response) = respond(instance, &head, &body)?;
    let length = response.len();
    let response = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{response}"
    );
    stream.write_all(response.as_bytes()).await
}

fn respond(
    instance: &Instance,
    head: &str,
    body: &[u8],
) -> io::Result<(&'static str, &'static str)> {
    let mut status = "204 No Content";
    if head.starts_with("GET /metrics ") {
        return Ok(("200 OK", METRICS));
    } else if head.starts_with("POST /freeze ") {
        if instance.controls.take_fault(Fault::Freeze) {
            status = FAILURE;
        } else {
            instance.guest.lock().frozen = true;
        }
    } else if head.starts_with("POST /unfreeze ") {
        if instance.controls.take_fault(Fault::Thaw) {
            status = FAILURE;
        } else {
            instance.guest.lock().frozen = false;
        }
    } else if head.starts_with("POST /init ") {
        if instance.controls.take_fault(Fault::Init) {
            status = FAILURE;
        } else {
            let init = serde_json::from_slice(body)?;
            instance.controls.inits.lock().push(init);
        }
    }
    Ok((status, ""))
}

async fn serve_relay(instance: &Instance, mut stream: UnixStream) -> io::Result<()> {
    let mut preamble = [0; 4];
    stream.read_exact(&mut preamble).await?;
    instance.runs().await;
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
        instance.runs().await;
        let mut words = line.splitn(3, ' ');
        let command = (
            words.next().unwrap_or_default(),
            words.next().and_then(|number| number.parse::<u32>().ok()),
            words.next(),
        );
        let ok = |()| "ok".to_owned();
        let response = match command {
            ("write", Some(page), Some(text)) => instance.guest.lock().write(page, text).map(ok),
            ("read", Some(page), None) => instance.guest.lock().read(page),
            ("disk-write", Some(block), Some(text)) => {
                instance.guest.lock().disk_write(block, text).map(ok)
            }
            ("disk-read", Some(block), None) => instance.guest.lock().disk_read(block),
            ("disk-layers", None, None) => {
                let layers = instance.guest.lock().disk_layers();
                layers.map(|layers| layers.to_string())
            }
            ("die", None, None) => {
                instance.end(died());
                return Ok(());
            }
            ("reset", None, None) => {
                instance.end(Exit::Guest);
                return Ok(());
            }
            _ => Ok(line),
        }?;
        write.write_all(format!("{response}\n").as_bytes()).await?;
    }
    Ok(())
}
