//! Sandboxes that nobody uses.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::rig::{Gateway, PATIENCE, Sandbox};

/// Seconds of no use after which the sandboxes here are paused.
const IDLE: u64 = 2;

#[tokio::test]
async fn an_unused_sandbox_is_paused() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway.probed(json!({ "idleTimeout": IDLE })).await;
    sandbox.becomes(&gateway, "paused").await;
    assert!(
        sandbox
            .get(&gateway, "/count")
            .await
            .ok()
            .header("server-timing")
            .starts_with("wake;")
    );
    sandbox.becomes(&gateway, "paused").await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_response_under_way_keeps_a_sandbox_awake() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway.probed(json!({ "idleTimeout": IDLE })).await;
    let request = sandbox.request(&gateway, Method::GET, Sandbox::PROBE, "/stream/3/3000");
    let mut response = request.send().await.unwrap();
    let (began, mut pieces) = (Instant::now(), 0);
    while let Some(chunk) = timeout(PATIENCE, response.chunk()).await.unwrap().unwrap() {
        pieces += chunk.windows(5).filter(|window| window == b"piece").count();
        assert_eq!(
            sandbox.state(&gateway).await,
            "running",
            "after {:?}",
            began.elapsed()
        );
    }
    assert_eq!(pieces, 3, "the stream came whole");
    assert!(
        began.elapsed() > Duration::from_secs(3 * IDLE),
        "it was slow: {:?}",
        began.elapsed()
    );
    sandbox.becomes(&gateway, "paused").await;
    gateway.finish().await;
}

#[tokio::test]
async fn an_open_websocket_keeps_a_sandbox_awake() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway.probed(json!({ "idleTimeout": IDLE })).await;
    // It has gone to sleep, and the WebSocket itself wakes it.
    sandbox.becomes(&gateway, "paused").await;
    let mut socket = open(&gateway, &sandbox).await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4 * IDLE) {
        assert_eq!(
            sandbox.state(&gateway).await,
            "running",
            "after {:?}",
            began.elapsed()
        );
    }
    assert_eq!(
        echoed(&mut socket, b"still there").await,
        b"\x81\x0bstill there"
    );
    assert_eq!(
        echoed(&mut socket, b"and again").await,
        b"\x81\x09and again"
    );
    drop(socket);
    sandbox.becomes(&gateway, "paused").await;
    gateway.finish().await;
}

/// Opens a WebSocket with the key of RFC 6455's example.
async fn open(gateway: &Gateway, sandbox: &Sandbox) -> TcpStream {
    let mut socket = TcpStream::connect(gateway.address()).await.unwrap();
    let head = format!(
        "GET /ws HTTP/1.1\r\nHost: {}-{}.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        Sandbox::PROBE,
        sandbox.id
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(timeout(PATIENCE, socket.read_u8()).await.unwrap().unwrap());
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
    socket
}

/// Sends a text and takes the frame that comes back.
async fn echoed(socket: &mut TcpStream, text: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap()];
    frame.extend(mask);
    frame.extend(
        text.iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    socket.write_all(&frame).await.unwrap();
    let mut back = vec![0; 2 + text.len()];
    timeout(PATIENCE, socket.read_exact(&mut back))
        .await
        .unwrap()
        .unwrap();
    back
}
