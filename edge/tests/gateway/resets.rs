//! SPECIFICATION.md, Requests: revoked leases end requests with an error or a reset; clients that disconnect.

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use pool_api::{Node, SandboxId, fake::PortScript};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::{
    clients::{h2_connect, h2_get, tls_connect},
    rig::{DOMAIN, Rig, TIMEOUT, public},
};

/// Sends a request and returns the body of its response after the first chunk.
async fn open_stream(
    sender: &mut SendRequest<Bytes>,
    id: &SandboxId,
    path: &str,
) -> h2::RecvStream {
    let (response, _) = sender.send_request(h2_get(id, path), true).unwrap();
    let response = tokio::time::timeout(TIMEOUT, response)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let first = tokio::time::timeout(TIMEOUT, body.data())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(!first.is_empty());
    body
}

/// Reads until the stream fails.
async fn stream_error(body: &mut h2::RecvStream) -> h2::Error {
    loop {
        match tokio::time::timeout(TIMEOUT, body.data()).await.unwrap() {
            Some(Ok(_)) => {}
            Some(Err(error)) => return error,
            None => panic!("the stream ended cleanly"),
        }
    }
}

/// Reads until the first chunk of `/hang`.
async fn read_hello(socket: &mut (impl AsyncRead + Unpin)) {
    let mut received = Vec::new();
    while !received.windows(5).any(|window| window == b"hello") {
        let read = tokio::time::timeout(TIMEOUT, socket.read_buf(&mut received)).await;
        assert_ne!(read.unwrap().unwrap(), 0);
    }
}

/// Reads until the connection fails.
async fn connection_error(socket: &mut (impl AsyncRead + Unpin)) -> std::io::ErrorKind {
    let mut received = Vec::new();
    let read = tokio::time::timeout(TIMEOUT, socket.read_to_end(&mut received));
    match read.await.unwrap() {
        Ok(_) => panic!("the connection ended cleanly"),
        Err(error) => error.kind(),
    }
}

#[tokio::test]
async fn revoked_lease_during_response_resets_client() {
    let rig = Rig::new().await;
    let id = rig.sandbox("iabc", public()).await;
    let head = format!("GET /hang HTTP/1.1\r\nHost: 80-{id}.x\r\n\r\n");
    let mut socket = rig.send_raw(&head).await;
    read_hello(&mut socket).await;
    rig.node.kill(&id).await.unwrap();
    let error = connection_error(&mut socket).await;
    assert_eq!(error, std::io::ErrorKind::ConnectionReset);
    rig.wait_for_leases(0).await;
}

#[tokio::test]
async fn revoked_lease_before_response_is_502() {
    let rig = Rig::new().await;
    let id = rig.sandbox("iabc", public()).await;
    // The guest waits for the rest of the body, so the edge has no response yet.
    let head = format!("POST / HTTP/1.1\r\nHost: 80-{id}.x\r\nContent-Length: 10\r\n\r\nhalf");
    let mut socket = rig.send_raw(&head).await;
    rig.wait_for_leases(1).await;
    rig.node.kill(&id).await.unwrap();
    let mut received = Vec::new();
    let read = tokio::time::timeout(TIMEOUT, socket.read_to_end(&mut received))
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&received);
    assert!(text.starts_with("HTTP/1.1 502"), "{read:?} {text}");
    assert!(text.contains("The sandbox was not found"), "{text}");
}

#[tokio::test]
async fn revoked_lease_releases_request_of_stalled_client() {
    let rig = Rig::new().await;
    let id = rig.sandbox("iabc", public()).await;
    let head = format!("GET /flood HTTP/1.1\r\nHost: 80-{id}.x\r\n\r\n");
    let mut socket = rig.send_raw(&head).await;
    let mut head = [0; 12];
    tokio::time::timeout(TIMEOUT, socket.read_exact(&mut head))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    rig.node.kill(&id).await.unwrap();
    rig.wait_for_leases(0).await;
}

#[tokio::test]
async fn kill_resets_only_streams_of_that_sandbox() {
    let rig = Rig::with_tls(|_| {}).await;
    let (id, other) = (
        rig.sandbox("iabc", public()).await,
        rig.sandbox("ixyz", public()).await,
    );
    let mut sender = h2_connect(&rig).await;
    let mut killed = open_stream(&mut sender, &id, "/hang").await;
    let echo = Request::post(format!("https://80-{other}.{DOMAIN}/echo"))
        .body(())
        .unwrap();
    let (response, mut request_body) = sender.send_request(echo, false).unwrap();
    request_body
        .send_data(Bytes::from_static(b"before"), false)
        .unwrap();
    let mut echoed = response.await.unwrap().into_body();
    assert_eq!(echoed.data().await.unwrap().unwrap(), "before");
    // Control withdraws the route before it kills the sandbox.
    rig.coordinator.withdraw(&id);
    rig.node.kill(&id).await.unwrap();
    let error = stream_error(&mut killed).await;
    assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR), "{error}");
    assert!(
        error.is_reset(),
        "the error is of the stream, not of the connection: {error}"
    );

    let (health, _) = sender.send_request(h2_get(&id, "/health"), true).unwrap();
    let health = tokio::time::timeout(TIMEOUT, health)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(health.status(), 502, "the connection remains usable");
    let mut text = Vec::new();
    let mut body = health.into_body();
    while let Some(chunk) = tokio::time::timeout(TIMEOUT, body.data()).await.unwrap() {
        text.extend_from_slice(&chunk.unwrap());
    }
    assert!(String::from_utf8(text).unwrap().contains("was not found"));
    request_body
        .send_data(Bytes::from_static(b"after"), true)
        .unwrap();
    let chunk = tokio::time::timeout(TIMEOUT, echoed.data()).await;
    assert_eq!(
        chunk.unwrap().unwrap().unwrap(),
        "after",
        "the other stream remains open"
    );
    while let Some(chunk) = tokio::time::timeout(TIMEOUT, echoed.data()).await.unwrap() {
        assert!(chunk.expect("a clean end").is_empty());
    }
    rig.wait_for_leases(0).await;
}

#[tokio::test]
async fn pause_resets_stream_of_stalled_client() {
    let rig = Rig::with_tls(|_| {}).await;
    let id = rig.sandbox("iabc", public()).await;
    let mut sender = h2_connect(&rig).await;
    // The client releases no flow-control capacity, so the edge waits for the window.
    let mut body = open_stream(&mut sender, &id, "/flood").await;
    rig.pause(&id).await;
    let error = stream_error(&mut body).await;
    assert!(error.is_reset() && error.is_remote(), "{error}");
    rig.wait_for_leases(0).await;
}

#[tokio::test]
async fn kill_sends_rst_without_close_notify() {
    let rig = Rig::with_tls(|_| {}).await;
    let id = rig.sandbox("iabc", public()).await;
    let mut stream = tls_connect(&rig, b"http/1.1").await;
    let head = format!("GET /hang HTTP/1.1\r\nHost: 80-{id}.{DOMAIN}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    read_hello(&mut stream).await;
    rig.node.kill(&id).await.unwrap();
    let error = connection_error(&mut stream).await;
    assert_eq!(error, std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn response_without_length_is_reset_on_kill() {
    let rig = Rig::with_tls(|_| {}).await;
    let port = 80.try_into().unwrap();
    rig.node.script_port(port, PortScript::Endless);
    let mut sender = h2_connect(&rig).await;
    for name in ["ia", "ib", "ic", "id", "ie", "if", "ig", "ih"] {
        let id = rig.sandbox(name, public()).await;
        let mut body = open_stream(&mut sender, &id, "/").await;
        let head = format!("GET / HTTP/1.1\r\nHost: 80-{id}.x\r\n\r\n");
        let mut socket = rig.send_raw(&head).await;
        read_hello(&mut socket).await;
        rig.node.kill(&id).await.unwrap();
        assert!(stream_error(&mut body).await.is_reset());
        let error = connection_error(&mut socket).await;
        assert_eq!(error, std::io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn client_disconnect_releases_lease_and_keeps_sandbox() {
    let rig = Rig::with_tls(|_| {}).await;
    let id = rig.sandbox("iabc", public()).await;
    let mut sender = h2_connect(&rig).await;
    let body = open_stream(&mut sender, &id, "/hang").await;
    assert_eq!(rig.node.leases(), 1);
    drop(body);
    rig.wait_for_leases(0).await;
    let (reply, _) = sender.send_request(h2_get(&id, "/"), true).unwrap();
    assert_eq!(reply.await.unwrap().status(), 200);

    let head = format!("GET /hang HTTP/1.1\r\nHost: 80-{id}.x\r\n\r\n");
    let socket = rig.send_raw(&head).await;
    rig.wait_for_leases(1).await;
    drop(socket);
    rig.wait_for_leases(0).await;
    assert_eq!(rig.get_port(80, &id, &[]).await.status, 200);
}
