//! SPECIFICATION.md, Requests: HTTP/2 in plain, and gRPC into guests.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response, Version};
use pool_api::{Port, SandboxId, fake::PortScript};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    clients::{h2_connect, h2_get},
    rig::{DOMAIN, Rig, public},
};

/// Serves HTTP/2 in plain as a gRPC server does: it echoes each message as it arrives, and ends with the status in a trailer.
async fn serve_grpc() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(socket).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(echo(request, respond));
                }
            });
        }
    });
    address
}

async fn echo(request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    assert_eq!(request.headers()["te"], "trailers");
    let path = request.uri().path().to_owned();
    let mut messages = request.into_body();
    let head = Response::builder().header("content-type", "application/grpc");
    let mut body = respond
        .send_response(head.body(()).unwrap(), false)
        .unwrap();
    while let Some(Ok(message)) = messages.data().await {
        messages
            .flow_control()
            .release_capacity(message.len())
            .unwrap();
        body.send_data(message, false).unwrap();
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    trailers.insert("grpc-message", path.parse().unwrap());
    body.send_trailers(trailers).unwrap();
}

async fn h2c_connect(rig: &Rig) -> SendRequest<Bytes> {
    let socket = TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap();
    let (sender, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Sends two messages of a bidirectional stream, the second after the echo of the first.
async fn call(sender: SendRequest<Bytes>, id: &SandboxId) -> HeaderMap {
    let mut sender = sender.ready().await.unwrap();
    let request = Request::post(format!("https://50051-{id}.{DOMAIN}/echo.Echo/Stream"))
        .version(Version::HTTP_2)
        .header("content-type", "application/grpc+proto")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (response, mut messages) = sender.send_request(request, false).unwrap();
    messages
        .send_data(Bytes::from_static(b"first"), false)
        .unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "first");
    messages
        .send_data(Bytes::from_static(b"second"), true)
        .unwrap();
    assert_eq!(body.data().await.unwrap().unwrap(), "second");
    body.flow_control().release_capacity(11).unwrap();
    assert!(
        body.data()
            .await
            .is_none_or(|last| last.unwrap().is_empty())
    );
    body.trailers().await.unwrap().expect("trailers")
}

#[tokio::test]
async fn grpc_streams_and_trailers_reach_guest_and_client() {
    let rig = Rig::with_tls(|_| {}).await;
    let id = rig.sandbox("iabc", public()).await;
    let guest = serve_grpc().await;
    let port = Port::try_from(50051).unwrap();
    rig.node.script_port(port, PortScript::At(guest));
    for sender in [h2_connect(&rig).await, h2c_connect(&rig).await] {
        for _ in 0..2 {
            let trailers = call(sender.clone(), &id).await;
            assert_eq!(trailers["grpc-status"], "0");
            assert_eq!(trailers["grpc-message"], "/echo.Echo/Stream");
        }
    }
}

#[tokio::test]
async fn h2c_by_prior_knowledge_reaches_http1_guests() {
    let rig = Rig::new().await;
    let id = rig.paused_sandbox("iabc", public()).await;
    let mut sender = h2c_connect(&rig).await;
    for _ in 0..2 {
        let (response, _) = sender.send_request(h2_get(&id, "/"), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
    }
}
