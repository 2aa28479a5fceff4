//! Streams that are open when a sandbox is killed or paused, or when their client goes.

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use pool_api::{Node, SandboxId};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    rig::{DOMAIN, PATIENCE, Rig, open},
    secure,
};

/// An HTTP/2 connection to the rig.
pub(crate) async fn connect(rig: &Rig) -> SendRequest<Bytes> {
    let stream = secure::dial(rig, b"h2").await;
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub(crate) fn ask(id: &SandboxId, path: &str) -> Request<()> {
    Request::get(format!("https://80-{id}.{DOMAIN}{path}"))
        .body(())
        .unwrap()
}

/// Asks and returns the body once its first bytes came.
async fn open_stream(
    sender: &mut SendRequest<Bytes>,
    id: &SandboxId,
    path: &str,
) -> h2::RecvStream {
    let (response, _) = sender.send_request(ask(id, path), true).unwrap();
    let response = tokio::time::timeout(PATIENCE, response)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let first = tokio::time::timeout(PATIENCE, body.data())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(!first.is_empty());
    body
}

async fn end_of(body: &mut h2::RecvStream) -> h2::Error {
    loop {
        match tokio::time::timeout(PATIENCE, body.data()).await.unwrap() {
            Some(Ok(_)) => {}
            Some(Err(error)) => return error,
            None => panic!("a clean end"),
        }
    }
}

#[tokio::test]
async fn a_kill_resets_the_streams_of_that_sandbox_and_no_other() {
    let rig = Rig::secured(|_| {}).await;
    let (id, other) = (
        rig.sandbox("iabc", open()).await,
        rig.sandbox("ixyz", open()).await,
    );
    let mut sender = connect(&rig).await;
    let mut doomed = open_stream(&mut sender, &id, "/hang").await;
    let echo = Request::post(format!("https://80-{other}.{DOMAIN}/echo"))
        .body(())
        .unwrap();
    let (response, mut spared) = sender.send_request(echo, false).unwrap();
    spared
        .send_data(Bytes::from_static(b"before"), false)
        .unwrap();
    let mut echoed = response.await.unwrap().into_body();
    assert_eq!(echoed.data().await.unwrap().unwrap(), "before");
    // As control does it: the route is gone first.
    rig.coordinator.withdraw(&id).await.unwrap();
    rig.fake.kill(&id).await.unwrap();
    let error = end_of(&mut doomed).await;
    assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR), "{error}");
    assert!(
        error.is_reset(),
        "a stream's error, not the connection's: {error}"
    );

    let (health, _) = sender.send_request(ask(&id, "/health"), true).unwrap();
    let health = tokio::time::timeout(PATIENCE, health)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(health.status(), 502, "the same connection goes on");
    let mut text = Vec::new();
    let mut body = health.into_body();
    while let Some(piece) = tokio::time::timeout(PATIENCE, body.data()).await.unwrap() {
        text.extend_from_slice(&piece.unwrap());
    }
    assert!(String::from_utf8(text).unwrap().contains("was not found"));
    spared
        .send_data(Bytes::from_static(b"after"), true)
        .unwrap();
    let piece = tokio::time::timeout(PATIENCE, echoed.data()).await;
    assert_eq!(
        piece.unwrap().unwrap().unwrap(),
        "after",
        "the other stream lives on"
    );
    while let Some(piece) = tokio::time::timeout(PATIENCE, echoed.data()).await.unwrap() {
        assert!(piece.expect("a clean end").is_empty());
    }
    tokio::time::timeout(PATIENCE, rig.fake.wait_for_leases(0))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_pause_resets_a_stream_whose_client_does_not_read() {
    let rig = Rig::secured(|_| {}).await;
    let id = rig.sandbox("iabc", open()).await;
    let mut sender = connect(&rig).await;
    // Nothing is released, so the window fills and the edge waits for it.
    let mut body = open_stream(&mut sender, &id, "/flood").await;
    rig.pause(&id).await;
    let error = end_of(&mut body).await;
    assert!(error.is_reset() && error.is_remote(), "{error}");
    tokio::time::timeout(PATIENCE, rig.fake.wait_for_leases(0))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_kill_resets_a_connection_over_tls_without_a_farewell() {
    let rig = Rig::secured(|_| {}).await;
    let id = rig.sandbox("iabc", open()).await;
    let mut stream = secure::dial(&rig, b"http/1.1").await;
    let head = format!("GET /hang HTTP/1.1\r\nHost: 80-{id}.{DOMAIN}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    while !got.windows(5).any(|window| window == b"hello") {
        let read = tokio::time::timeout(PATIENCE, stream.read_buf(&mut got))
            .await
            .unwrap()
            .unwrap();
        assert_ne!(read, 0);
    }
    rig.fake.kill(&id).await.unwrap();
    let end = loop {
        match tokio::time::timeout(PATIENCE, stream.read_buf(&mut got))
            .await
            .unwrap()
        {
            Ok(0) => panic!("a clean end"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset, "{end}");
}

#[tokio::test]
async fn a_client_that_goes_leaves_the_sandbox_running() {
    let rig = Rig::secured(|_| {}).await;
    let id = rig.sandbox("iabc", open()).await;
    let mut sender = connect(&rig).await;
    let body = open_stream(&mut sender, &id, "/hang").await;
    assert_eq!(rig.fake.leases(), 1);
    drop(body);
    tokio::time::timeout(PATIENCE, rig.fake.wait_for_leases(0))
        .await
        .unwrap();
    let (reply, _) = sender.send_request(ask(&id, "/"), true).unwrap();
    assert_eq!(reply.await.unwrap().status(), 200);

    let mut socket = TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap();
    let head = format!("GET /hang HTTP/1.1\r\nHost: 80-{id}.x\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    rig.fake.wait_for_leases(1).await;
    drop(socket);
    tokio::time::timeout(PATIENCE, rig.fake.wait_for_leases(0))
        .await
        .unwrap();
    assert_eq!(rig.visit(80, &id, &[]).await.status, 200);
}

#[tokio::test]
async fn a_stream_that_is_reset_while_it_waits_for_a_wake_waits_no_longer() {
    let rig = Rig::secured(|_| {}).await;
    let id = rig.sleeping("iabc", open()).await;
    rig.fake.hold_wakes(true);
    let mut sender = connect(&rig).await;
    let (response, mut request) = sender.send_request(ask(&id, "/"), false).unwrap();
    rig.fake.wait_for_entering(1).await;
    request.send_reset(h2::Reason::CANCEL);
    drop(response);
    tokio::time::timeout(PATIENCE, rig.fake.wait_for_entering(0))
        .await
        .unwrap();
    rig.fake.hold_wakes(false);
    let (reply, _) = sender.send_request(ask(&id, "/"), true).unwrap();
    assert_eq!(reply.await.unwrap().status(), 200);
    assert_eq!(
        rig.fake.dials(),
        1,
        "nothing was sent for the stream that was reset"
    );
}

#[tokio::test]
async fn an_answer_that_ends_with_its_connection_is_reset_too() {
    let rig = Rig::secured(|_| {}).await;
    let port = 80.try_into().unwrap();
    rig.fake
        .script_port(port, pool_api::fake::PortScript::Endless);
    let mut sender = connect(&rig).await;
    for name in ["ia", "ib", "ic", "id", "ie", "if", "ig", "ih"] {
        let id = rig.sandbox(name, open()).await;
        let mut body = open_stream(&mut sender, &id, "/").await;
        let mut socket = TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap();
        let head = format!("GET / HTTP/1.1\r\nHost: 80-{id}.x\r\n\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut got = Vec::new();
        while !got.windows(5).any(|window| window == b"hello") {
            let read = tokio::time::timeout(PATIENCE, socket.read_buf(&mut got)).await;
            assert_ne!(read.unwrap().unwrap(), 0);
        }
        rig.fake.kill(&id).await.unwrap();
        assert!(end_of(&mut body).await.is_reset());
        let end = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut got))
            .await
            .unwrap();
        assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    }
}
