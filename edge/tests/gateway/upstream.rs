//! SPECIFICATION.md, Requests: connection reuse, retries and TLS towards guests.

use std::net::SocketAddr;

use coordinator::Access;
use pool_api::{Port, fake::PortScript};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    clients::{BOTH, https_client, url},
    rig::{Rig, get_on, public},
};

#[tokio::test]
async fn upstream_connections_are_reused_within_one_epoch_only() {
    let rig = Rig::new().await;
    let (id, other) = (
        rig.sandbox("iabc", public()).await,
        rig.sandbox("ixyz", public()).await,
    );
    let first = rig.get_port(80, &id, &[]).await.echo();
    assert_eq!(
        rig.get_port(80, &id, &[]).await.echo().connection,
        first.connection,
        "the same port"
    );
    assert_ne!(
        rig.get_port(81, &id, &[]).await.echo().connection,
        first.connection,
        "another port"
    );
    let second_sandbox = rig.get_port(80, &other, &[]).await.echo();
    assert_eq!(second_sandbox.sandbox, "ixyz");
    assert_ne!(
        second_sandbox.connection, first.connection,
        "another sandbox"
    );
    rig.node.set_stale(true);
    rig.pause(&id).await;
    let second = rig.get_port(80, &id, &[]).await.echo();
    assert_eq!((second.epoch, first.epoch), (2, 1));
    assert_ne!(second.connection, first.connection, "another epoch");
}

#[tokio::test]
async fn client_connection_serves_several_sandboxes() {
    let rig = Rig::new().await;
    let (a, b) = (
        rig.sandbox("iabc", public()).await,
        rig.sandbox("ixyz", public()).await,
    );
    let mut sender = rig.connect().await;
    for id in [&a, &b, &a] {
        let host = format!("80-{id}.x");
        sender.ready().await.unwrap();
        let echo = get_on(&mut sender, "/", &[("host", &host)]).await.echo();
        assert_eq!(echo.sandbox, id.as_str());
    }
    rig.wait_for_leases(0).await;
}

#[tokio::test]
async fn forwarded_request_is_never_retried() {
    let rig = Rig::new().await;
    let id = rig.sandbox("iabc", public()).await;
    rig.node
        .script_port(Port::try_from(80).unwrap(), PortScript::HangsUp);
    let reply = rig.get_port(80, &id, &[]).await;
    assert_eq!(reply.status, 502);
    assert!(
        reply.body.contains(r#""sandboxId":"iabc""#) && reply.body.contains(r#""code":502"#),
        "{}",
        reply.body
    );
    assert_eq!(rig.node.dials(), 1, "one connection, one attempt");
}

#[tokio::test]
async fn https_ports_are_dialed_with_tls_except_agent() {
    let rig = Rig::new().await;
    // A service in the guest with a certificate that the gateway does not trust.
    let certificate = edge::tls::local(&rig.dir.path().join("guest"), "in.guest").unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(certificate.config);
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = service.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        while let Ok((socket, _)) = service.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(socket).await else {
                    return;
                };
                let respond = hyper::service::service_fn(|request: http::Request<_>| async move {
                    let _: hyper::body::Incoming = request.into_body();
                    Ok::<_, std::convert::Infallible>(http::Response::new("over TLS".to_owned()))
                });
                let io = hyper_util::rt::TokioIo::new(stream);
                let served =
                    hyper::server::conn::http1::Builder::new().serve_connection(io, respond);
                drop(served.await);
            });
        }
    });
    let access = Access {
        https_ports: vec![8443, 49983],
        ..public()
    };
    let id = rig.sandbox("iabc", access).await;
    for port in [8443, 8444] {
        let at = PortScript::At(address);
        rig.node.script_port(Port::try_from(port).unwrap(), at);
    }
    for _ in 0..2 {
        let reply = rig.get_port(8443, &id, &[]).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, "over TLS"));
    }
    assert_eq!(rig.node.dials(), 1, "the connection is reused");
    // Port 8444 leads to the same service, but is not an HTTPS port: the service refuses plain HTTP.
    assert_eq!(rig.get_port(8444, &id, &[]).await.status, 502);
    let agent = rig.get_port(49983, &id, &[]).await;
    assert_eq!(agent.status, 200, "the agent does not serve TLS");
    serving.abort();
}

#[tokio::test]
async fn empty_last_data_frame_keeps_upstream_connection_usable() {
    let rig = Rig::with_tls(|_| {}).await;
    rig.sandbox("iabc", public()).await;
    let client = https_client(&rig, BOTH);
    for round in 0..3 {
        // A streamed body ends with an empty DATA frame.
        let parts = futures::stream::iter(["one ", "two"].map(Ok::<_, std::io::Error>));
        let request = client
            .post(url(&rig, "3000-iabc", "/echo"))
            .header("content-length", "7")
            .body(reqwest::Body::wrap_stream(parts));
        let reply = request.send().await.unwrap();
        assert_eq!(reply.status().as_u16(), 200, "round {round}");
        assert_eq!(reply.text().await.unwrap(), "one two");
    }
    assert_eq!(rig.node.dials(), 1, "the connection is reused");
}

/// Serves scripted responses: one connection each.
async fn serve_raw(responses: &'static [&'static str]) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for response in responses {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            // The request fits into one read.
            let _read = stream.read(&mut head).await.unwrap();
            stream.write_all(response.as_bytes()).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn malformed_guest_responses_are_502_and_close() {
    const RESPONSES: &[&str] = &[
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nab",
        "HTTP/9 what\r\n\r\n",
    ];
    let rig = Rig::new().await;
    let id = rig.sandbox("iabc", public()).await;
    let address = serve_raw(RESPONSES).await;
    rig.node
        .script_port(Port::try_from(80).unwrap(), PortScript::At(address));
    for response in RESPONSES {
        let reply = rig.get_port(80, &id, &[]).await;
        assert_eq!(reply.status, 502, "{response}");
        assert!(
            reply.body.contains("not valid HTTP"),
            "{response}: {}",
            reply.body
        );
        assert_eq!(reply.header("connection"), "close", "{response}");
    }
}

#[tokio::test]
async fn safe_request_is_repeated_after_a_stale_connection() {
    const RESPONSES: &[&str] = &[
        // The connection closes after its response, although it promises to stay.
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2",
    ];
    let rig = Rig::new().await;
    let id = rig.sandbox("iabc", public()).await;
    let address = serve_raw(RESPONSES).await;
    rig.node
        .script_port(Port::try_from(80).unwrap(), PortScript::At(address));
    for body in ["1", "2"] {
        let reply = rig.get_port(80, &id, &[]).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, body));
    }
}
