//! SPECIFICATION.md, Requests: bodies stream both ways; WebSockets hold a lease.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::Request;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::mpsc};
use tokio_tungstenite::tungstenite::Message;

use crate::rig::{Rig, TIMEOUT, public, reply};

#[tokio::test]
async fn chunks_are_forwarded_before_the_body_ends() {
    let rig = Rig::new().await;
    let id = rig.sandbox("iabc", public()).await;
    let (chunks, mut body) = mpsc::channel::<&'static str>(1);
    let body = chunk_stream(move |cx| body.poll_recv(cx));
    let request = Request::post("/echo")
        .header("host", format!("80-{id}.x"))
        .body(StreamBody::new(body))
        .unwrap();
    let socket = TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
        .await
        .unwrap();
    tokio::spawn(connection);
    chunks.send("first").await.unwrap();
    let response = tokio::time::timeout(TIMEOUT, sender.send_request(request))
        .await
        .unwrap()
        .unwrap();
    let mut echoed = response.into_body();
    for (expected, next) in [
        ("first", Some("second")),
        ("second", Some("third")),
        ("third", None),
    ] {
        let frame = tokio::time::timeout(TIMEOUT, echoed.frame())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(frame.into_data().unwrap(), expected);
        if let Some(next) = next {
            chunks.send(next).await.unwrap();
        }
    }
    assert_eq!(rig.node.leases(), 1, "the open stream holds the lease");
    drop(chunks);
    assert!(
        tokio::time::timeout(TIMEOUT, echoed.frame())
            .await
            .unwrap()
            .is_none()
    );
    rig.wait_for_leases(0).await;
}

fn chunk_stream(
    mut poll: impl FnMut(&mut std::task::Context<'_>) -> std::task::Poll<Option<&'static str>>
    + Send
    + 'static,
) -> impl futures::Stream<Item = Result<Frame<Bytes>, std::convert::Infallible>> + Send {
    futures::stream::poll_fn(move |cx| {
        poll(cx).map(|chunk| chunk.map(|text| Ok(Frame::data(Bytes::from(text)))))
    })
}

#[tokio::test]
async fn websocket_is_forwarded_and_holds_its_lease() {
    let rig = Rig::new().await;
    let id = rig.sandbox("iabc", public()).await;
    let socket = TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap();
    let (mut ws, _) = tokio_tungstenite::client_async(format!("ws://80-{id}.x/ws"), socket)
        .await
        .unwrap();
    for text in ["one", "two"] {
        ws.send(Message::text(text)).await.unwrap();
        let echoed = tokio::time::timeout(TIMEOUT, ws.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(echoed, Message::text(text));
    }
    assert_eq!(rig.node.leases(), 1);
    drop(ws);
    rig.wait_for_leases(0).await;
}

#[tokio::test]
async fn large_body_is_forwarded_unchanged() {
    let rig = Rig::new().await;
    let id = rig.sandbox("iabc", public()).await;
    // The fake guest reads the whole body before it echoes it.
    let body: String = (0..1_900_000u32)
        .map(|n| char::from(b'a' + u8::try_from(n % 23).unwrap()))
        .collect();
    let request = Request::post("/")
        .header("host", format!("80-{id}.x"))
        .body(http_body_util::Full::new(Bytes::from(body.clone())))
        .unwrap();
    let response = rig.connect().await.send_request(request).await.unwrap();
    let echoed = reply(response).await.echo().body;
    assert!(
        echoed == body,
        "{} of {} bytes received, or bytes changed",
        echoed.len(),
        body.len()
    );
}

#[tokio::test]
async fn response_during_request_body_does_not_deadlock() {
    let rig = Rig::new().await;
    let id = rig.sandbox("iabc", public()).await;
    let body: Vec<u8> = (0..40_000_000u32)
        .map(|n| u8::try_from(n % 251).unwrap())
        .collect();
    let request = Request::post("/echo")
        .header("host", format!("80-{id}.x"))
        .body(http_body_util::Full::new(Bytes::from(body.clone())))
        .unwrap();
    let response = rig.connect().await.send_request(request).await.unwrap();
    let echoed = tokio::time::timeout(TIMEOUT, response.into_body().collect())
        .await
        .unwrap()
        .unwrap()
        .to_bytes();
    assert!(
        echoed == body,
        "{} of {} bytes received, or bytes changed",
        echoed.len(),
        body.len()
    );
}
