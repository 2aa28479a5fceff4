//! Idle pauses, and what prevents them.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::rig::{Gateway, Sandbox, TIMEOUT};

/// The idle timeout of the sandboxes, in seconds.
const IDLE_TIMEOUT: u64 = 2;

#[tokio::test]
async fn idle_sandbox_is_paused() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway
        .create_with_probe(json!({ "idleTimeout": IDLE_TIMEOUT }))
        .await;
    sandbox.wait_for_state(&gateway, "paused").await;
    assert!(
        sandbox
            .get(&gateway, "/count")
            .await
            .ok()
            .header("server-timing")
            .starts_with("wake;")
    );
    sandbox.wait_for_state(&gateway, "paused").await;
    gateway.finish().await;
}

#[tokio::test]
async fn streaming_response_prevents_the_idle_pause() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway
        .create_with_probe(json!({ "idleTimeout": IDLE_TIMEOUT }))
        .await;
    let request = sandbox.request(&gateway, Method::GET, Sandbox::PROBE_PORT, "/stream/3/3000");
    let mut response = request.send().await.unwrap();
    let (began, mut pieces) = (Instant::now(), 0);
    while let Some(chunk) = timeout(TIMEOUT, response.chunk()).await.unwrap().unwrap() {
        pieces += chunk.windows(5).filter(|window| window == b"piece").count();
        assert_eq!(
            sandbox.state(&gateway).await,
            "running",
            "after {:?}",
            began.elapsed()
        );
    }
    assert_eq!(pieces, 3, "the response is complete");
    assert!(
        began.elapsed() > Duration::from_secs(3 * IDLE_TIMEOUT),
        "the stream is slower than the idle timeout: {:?}",
        began.elapsed()
    );
    sandbox.wait_for_state(&gateway, "paused").await;
    gateway.finish().await;
}

#[tokio::test]
async fn open_websocket_prevents_the_idle_pause() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway
        .create_with_probe(json!({ "idleTimeout": IDLE_TIMEOUT }))
        .await;
    // The WebSocket itself wakes the sandbox.
    sandbox.wait_for_state(&gateway, "paused").await;
    let mut socket = open_websocket(&gateway, &sandbox).await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4 * IDLE_TIMEOUT) {
        assert_eq!(
            sandbox.state(&gateway).await,
            "running",
            "after {:?}",
            began.elapsed()
        );
    }
    assert_eq!(
        echo(&mut socket, b"still there").await,
        b"\x81\x0bstill there"
    );
    assert_eq!(echo(&mut socket, b"and again").await, b"\x81\x09and again");
    drop(socket);
    sandbox.wait_for_state(&gateway, "paused").await;
    gateway.finish().await;
}

/// Opens a WebSocket with the example key of RFC 6455.
async fn open_websocket(gateway: &Gateway, sandbox: &Sandbox) -> TcpStream {
    let mut socket = TcpStream::connect(gateway.address()).await.unwrap();
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {}-{}.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        Sandbox::PROBE_PORT,
        sandbox.id
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(TIMEOUT, socket.read_u8()).await.unwrap().unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    socket
}

/// Sends a text message, and returns the frame of its echo.
async fn echo(socket: &mut TcpStream, text: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap()];
    frame.extend(mask);
    frame.extend(
        text.iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    socket.write_all(&frame).await.unwrap();
    let mut reply = vec![0; 2 + text.len()];
    timeout(TIMEOUT, socket.read_exact(&mut reply))
        .await
        .unwrap()
        .unwrap();
    reply
}
