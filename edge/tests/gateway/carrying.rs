//! Bytes: both ways, at once, and never to the wrong life.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::Request;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use pool_api::{Node, Port, fake::PortScript};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};
use tokio_tungstenite::tungstenite::Message;

use crate::rig::{PATIENCE, Rig, get_on, open, reply};

#[tokio::test]
async fn chunks_arrive_before_the_body_ends_both_ways() {
    let rig = Rig::new().await;
    let id = rig.sandbox("iabc", open()).await;
    let (chunks, mut body) = mpsc::channel::<&'static str>(1);
    let body = async_stream(move |cx| body.poll_recv(cx));
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
    let response = tokio::time::timeout(PATIENCE, sender.send_request(request))
        .await
        .unwrap()
        .unwrap();
    let mut echoed = response.into_body();
    for (wanted, next) in [
        ("first", Some("second")),
        ("second", Some("third")),
        ("third", None),
    ] {
        let frame = tokio::time::timeout(PATIENCE, echoed.frame())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(frame.into_data().unwrap(), wanted);
        if let Some(next) = next {
            chunks.send(next).await.unwrap();
        }
    }
    assert_eq!(rig.fake.leases(), 1, "held while the stream is open");
    drop(chunks);
    assert!(
        tokio::time::timeout(PATIENCE, echoed.frame())
            .await
            .unwrap()
            .is_none()
    );
    tokio::time::timeout(PATIENCE, rig.fake.wait_for_leases(0))
        .await
        .unwrap();
}

fn async_stream(
    mut poll: impl FnMut(&mut std::task::Context<'_>) -> std::task::Poll<Option<&'static str>>
    + Send
    + 'static,
) -> impl futures::Stream<Item = Result<Frame<Bytes>, std::convert::Infallible>> + Send {
    futures::stream::poll_fn(move |cx| {
        poll(cx).map(|chunk| chunk.map(|text| Ok(Frame::data(Bytes::from(text)))))
    })
}

#[tokio::test]
async fn a_websocket_passes_and_holds_its_lease() {
    let rig = Rig::new().await;
    let id = rig.sandbox("iabc", open()).await;
    let socket = TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap();
    let (mut ws, _) = tokio_tungstenite::client_async(format!("ws://80-{id}.x/ws"), socket)
        .await
        .unwrap();
    for text in ["one", "two"] {
        ws.send(Message::text(text)).await.unwrap();
        let got = tokio::time::timeout(PATIENCE, ws.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(got, Message::text(text));
    }
    assert_eq!(rig.fake.leases(), 1);
    drop(ws);
    tokio::time::timeout(PATIENCE, rig.fake.wait_for_leases(0))
        .await
        .unwrap();
}

#[tokio::test]
async fn connections_are_kept_within_a_life_and_never_shared_beyond_it() {
    let rig = Rig::new().await;
    let (id, other) = (
        rig.sandbox("iabc", open()).await,
        rig.sandbox("ixyz", open()).await,
    );
    let first = rig.visit(80, &id, &[]).await.echo();
    assert_eq!(
        rig.visit(80, &id, &[]).await.echo().connection,
        first.connection,
        "kept"
    );
    assert_ne!(
        rig.visit(81, &id, &[]).await.echo().connection,
        first.connection,
        "another port"
    );
    let stranger = rig.visit(80, &other, &[]).await.echo();
    assert_eq!(stranger.sandbox, "ixyz");
    assert_ne!(stranger.connection, first.connection, "another sandbox");
    rig.fake.set_stale(true);
    rig.pause(&id).await;
    let second = rig.visit(80, &id, &[]).await.echo();
    assert_eq!((second.epoch, first.epoch), (2, 1));
    assert_ne!(second.connection, first.connection, "another life");
}

#[tokio::test]
async fn one_client_connection_serves_many_destinations() {
    let rig = Rig::new().await;
    let (a, b) = (
        rig.sandbox("iabc", open()).await,
        rig.sandbox("ixyz", open()).await,
    );
    let mut sender = rig.connect().await;
    for id in [&a, &b, &a] {
        let host = format!("80-{id}.x");
        sender.ready().await.unwrap();
        let echo = get_on(&mut sender, "/", &[("host", &host)]).await.echo();
        assert_eq!(echo.sandbox, id.as_str());
    }
    tokio::time::timeout(PATIENCE, rig.fake.wait_for_leases(0))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_revoked_lease_resets_a_stream() {
    let rig = Rig::new().await;
    let id = rig.sandbox("iabc", open()).await;
    let mut socket = TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap();
    socket
        .write_all(format!("GET /hang HTTP/1.1\r\nHost: 80-{id}.x\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut got = Vec::new();
    while !got.windows(5).any(|window| window == b"hello") {
        assert_ne!(
            tokio::time::timeout(PATIENCE, socket.read_buf(&mut got))
                .await
                .unwrap()
                .unwrap(),
            0
        );
    }
    rig.fake.kill(&id).await.unwrap();
    let end = loop {
        match tokio::time::timeout(PATIENCE, socket.read_buf(&mut got))
            .await
            .unwrap()
        {
            Ok(0) => panic!("a clean end: {}", String::from_utf8_lossy(&got)),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    tokio::time::timeout(PATIENCE, rig.fake.wait_for_leases(0))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_revoked_lease_answers_a_request_that_has_no_response_yet() {
    let rig = Rig::new().await;
    let id = rig.sandbox("iabc", open()).await;
    let mut socket = TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap();
    // The guest waits for the rest of the body, and so does the edge for the response.
    let head = format!("POST / HTTP/1.1\r\nHost: 80-{id}.x\r\nContent-Length: 10\r\n\r\nhalf");
    socket.write_all(head.as_bytes()).await.unwrap();
    rig.fake.wait_for_leases(1).await;
    rig.fake.kill(&id).await.unwrap();
    let mut got = Vec::new();
    let read = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut got))
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&got);
    assert!(text.starts_with("HTTP/1.1 502"), "{read:?} {text}");
    assert!(text.contains("The sandbox was not found"), "{text}");
}

#[tokio::test]
async fn a_request_that_reached_the_guest_is_not_sent_again() {
    let rig = Rig::new().await;
    let id = rig.sandbox("iabc", open()).await;
    rig.fake
        .script_port(Port::try_from(80).unwrap(), PortScript::HangsUp);
    let reply = rig.visit(80, &id, &[]).await;
    assert_eq!(reply.status, 502);
    assert!(
        reply.body.contains(r#""sandboxId":"iabc""#) && reply.body.contains(r#""code":502"#),
        "{}",
        reply.body
    );
    assert_eq!(rig.fake.dials(), 1, "one connection, one try");
}

#[tokio::test]
async fn a_large_body_passes_whole() {
    let rig = Rig::new().await;
    let id = rig.sandbox("iabc", open()).await;
    // The fake guest reads all of it before it answers with all of it.
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
        "{} of {} bytes, or altered",
        echoed.len(),
        body.len()
    );
}

#[tokio::test]
async fn a_guest_that_answers_as_it_reads_does_not_stall() {
    let rig = Rig::new().await;
    let id = rig.sandbox("iabc", open()).await;
    let body: Vec<u8> = (0..40_000_000u32)
        .map(|n| u8::try_from(n % 251).unwrap())
        .collect();
    let request = Request::post("/echo")
        .header("host", format!("80-{id}.x"))
        .body(http_body_util::Full::new(Bytes::from(body.clone())))
        .unwrap();
    let response = rig.connect().await.send_request(request).await.unwrap();
    let echoed = tokio::time::timeout(PATIENCE, response.into_body().collect())
        .await
        .unwrap()
        .unwrap()
        .to_bytes();
    assert!(
        echoed == body,
        "{} of {} bytes, or altered",
        echoed.len(),
        body.len()
    );
}

#[tokio::test]
async fn a_revoked_lease_resets_a_client_that_does_not_read() {
    let rig = Rig::new().await;
    let id = rig.sandbox("iabc", open()).await;
    let mut socket = TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap();
    socket
        .write_all(format!("GET /flood HTTP/1.1\r\nHost: 80-{id}.x\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut head = [0; 12];
    tokio::time::timeout(PATIENCE, socket.read_exact(&mut head))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    rig.fake.kill(&id).await.unwrap();
    tokio::time::timeout(PATIENCE, rig.fake.wait_for_leases(0))
        .await
        .unwrap();
}
