//! TLS, and HTTP/2 over it, with real clients that trust the local authority alone.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use axum::{Router, body::Body};
use coordinator::Access;
use http::Version;
use pool_api::{SandboxId, fake::Echo};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::rig::{DOMAIN, PATIENCE, Rig, open, private};

/// What clients offer unless they are pinned to one.
const EITHER: &[&[u8]] = &[b"h2", b"http/1.1"];

/// A client that finds every name of the domain at the rig, and trusts its authority.
pub(crate) fn client(rig: &Rig, protocols: &[&[u8]]) -> reqwest::Client {
    reqwest::Client::builder()
        .tls_backend_preconfigured(trusting(rig, protocols))
        .no_proxy()
        .timeout(PATIENCE)
        .dns_resolver(Arc::new(Loopback))
        .build()
        .unwrap()
}

/// Every name is this machine.
struct Loopback;

impl reqwest::dns::Resolve for Loopback {
    fn resolve(&self, _name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let found: reqwest::dns::Addrs =
            Box::new(std::iter::once(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))));
        Box::pin(std::future::ready(Ok(found)))
    }
}

fn trusting(rig: &Rig, protocols: &[&[u8]]) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    let authority = rig.dir.path().join("tls").join("ca.pem");
    roots
        .add(CertificateDer::from_pem_file(authority).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    config
}

/// A connection to the rig's TLS port, with one protocol offered.
pub(crate) async fn dial(rig: &Rig, protocol: &[u8]) -> TlsStream<TcpStream> {
    let socket = TcpStream::connect(("127.0.0.1", rig.tls_port.unwrap()))
        .await
        .unwrap();
    let name = ServerName::try_from(format!("api.{DOMAIN}")).unwrap();
    let connector = TlsConnector::from(Arc::new(trusting(rig, &[protocol])));
    let stream = connector.connect(name, socket).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
    stream
}

pub(crate) fn url(rig: &Rig, host: &str, path: &str) -> String {
    format!("https://{host}.{DOMAIN}:{}{path}", rig.tls_port.unwrap())
}

async fn reaches_the_api(rig: &Rig, client: &reqwest::Client, version: Version) {
    let reply = client
        .post(url(rig, "api", "/x"))
        .body("b")
        .send()
        .await
        .unwrap();
    assert_eq!(reply.version(), version);
    assert_eq!(reply.text().await.unwrap(), "api b");
    let bare = format!("https://{DOMAIN}:{}/", rig.tls_port.unwrap());
    assert_eq!(
        client.get(bare).send().await.unwrap().text().await.unwrap(),
        "api "
    );
}

async fn reaches_sandboxes(rig: &Rig, client: &reqwest::Client, version: Version, id: &SandboxId) {
    let reply = client
        .post(url(rig, &format!("3000-{id}-old"), "/a?b"))
        .body("text")
        .send()
        .await
        .unwrap();
    assert_eq!((reply.status().as_u16(), reply.version()), (200, version));
    let echo: Echo = reply.json().await.unwrap();
    assert_eq!(
        (echo.sandbox.as_str(), echo.port, echo.target.as_str()),
        ("iabc", 3000, "/a?b")
    );
    assert_eq!(echo.body, "text");
    assert_eq!(
        echo.headers["host"],
        format!("3000-{id}-old.{DOMAIN}:{}", rig.tls_port.unwrap())
    );

    let ask = client.get(url(rig, "sandbox", "/"));
    let reply = ask
        .header("e2b-sandbox-id", "iabc")
        .header("e2b-sandbox-port", "49983")
        .send()
        .await
        .unwrap();
    assert_eq!(reply.json::<Echo>().await.unwrap().port, 49983);
    let reply = client.get(url(rig, "sandbox", "/")).send().await.unwrap();
    assert_eq!(
        (
            reply.status().as_u16(),
            reply.text().await.unwrap().as_str()
        ),
        (400, "missing header")
    );
    let reply = client
        .get(url(rig, "80-iunknown", "/"))
        .send()
        .await
        .unwrap();
    assert_eq!(reply.status(), 502);
    assert!(
        reply
            .text()
            .await
            .unwrap()
            .contains("The sandbox was not found")
    );
}

#[tokio::test]
async fn both_protocols_are_spoken_on_one_port_and_routed_alike() {
    let rig = Rig::secured(|_| {}).await;
    rig.serve_api(Router::new().fallback(async |body: Body| {
        let body = axum::body::to_bytes(body, 99).await.unwrap();
        format!("api {}", String::from_utf8(body.to_vec()).unwrap())
    }));
    let id = rig.sandbox("iabc", open()).await;
    let (either, old) = (client(&rig, EITHER), client(&rig, &[b"http/1.1"]));
    for (client, version) in [(&either, Version::HTTP_2), (&old, Version::HTTP_11)] {
        reaches_the_api(&rig, client, version).await;
        reaches_sandboxes(&rig, client, version, &id).await;
    }
    let plain = rig.visit(80, &id, &[]).await;
    assert_eq!(plain.status, 200, "the door without TLS stays open");
}

#[tokio::test]
async fn masked_hosts_and_tokens_are_the_same_over_http_2() {
    let rig = Rig::secured(|_| {}).await;
    let access = Access {
        mask_request_host: Some("app.test:${PORT}".to_owned()),
        ..private("right")
    };
    let id = rig.sandbox("iabc", access).await;
    let client = client(&rig, EITHER);
    let asked = format!("8080-{id}.{DOMAIN}:{}", rig.tls_port.unwrap());
    let url = url(&rig, &format!("8080-{id}"), "/");
    assert_eq!(client.get(&url).send().await.unwrap().status(), 403);
    for name in ["e2b-traffic-access-token", "cube-traffic-access-token"] {
        let reply = client.get(&url).header(name, "right").send().await.unwrap();
        assert_eq!(reply.version(), Version::HTTP_2);
        let echo: Echo = reply.json().await.unwrap();
        assert_eq!(echo.headers["host"], "app.test:8080");
        assert_eq!(echo.headers["x-forwarded-host"], asked);
        assert!(
            !echo.headers.contains_key(name),
            "the guest does not see the token"
        );
    }
}

#[tokio::test]
async fn ports_that_speak_tls_are_spoken_to_by_tls() {
    let rig = Rig::new().await;
    // A service in the guest, whose certificate nobody knows.
    let own = edge::tls::local(&rig.dir.path().join("guest"), "in.guest").unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(own.config);
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = service.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        while let Ok((socket, _)) = service.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(socket).await else {
                    return;
                };
                let answer = hyper::service::service_fn(|request: http::Request<_>| async move {
                    let _: hyper::body::Incoming = request.into_body();
                    Ok::<_, std::convert::Infallible>(http::Response::new("by TLS".to_owned()))
                });
                let io = hyper_util::rt::TokioIo::new(stream);
                let served =
                    hyper::server::conn::http1::Builder::new().serve_connection(io, answer);
                drop(served.await);
            });
        }
    });
    let access = Access {
        https_ports: vec![8443, 49983],
        ..open()
    };
    let id = rig.sandbox("iabc", access).await;
    for port in [8443, 8444] {
        let at = pool_api::fake::PortScript::At(address);
        rig.fake
            .script_port(pool_api::Port::try_from(port).unwrap(), at);
    }
    for _ in 0..2 {
        let reply = rig.visit(8443, &id, &[]).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, "by TLS"));
    }
    assert_eq!(rig.fake.dials(), 1, "the connection was not used again");
    // The same service under a port that is not named is spoken to in plain, which it does not understand.
    assert_eq!(rig.visit(8444, &id, &[]).await.status, 502);
    let agent = rig.visit(49983, &id, &[]).await;
    assert_eq!(agent.status, 200, "the agent speaks no TLS");
    serving.abort();
}

#[tokio::test]
async fn loopback_is_listened_on_in_both_families() {
    let rig = Rig::secured(|_| {}).await;
    let id = rig.sandbox("iabc", open()).await;
    for address in [
        IpAddr::from(Ipv4Addr::LOCALHOST),
        Ipv6Addr::LOCALHOST.into(),
    ] {
        TcpStream::connect((address, rig.tls_port.unwrap()))
            .await
            .unwrap();
        let socket = TcpStream::connect((address, rig.port)).await.unwrap();
        let request = crate::rig::request("/", &[("host", &format!("80-{id}.x"))]);
        let io = hyper_util::rt::TokioIo::new(socket);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        assert_eq!(
            sender.send_request(request).await.unwrap().status(),
            200,
            "{address}"
        );
    }
}

#[tokio::test]
async fn what_is_not_tls_harms_nobody() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let rig = Rig::secured(|_| {}).await;
    let id = rig.sandbox("iabc", open()).await;
    let mut socket = TcpStream::connect(("127.0.0.1", rig.tls_port.unwrap()))
        .await
        .unwrap();
    socket
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut got = Vec::new();
    // An alert, or a reset: the connection ends.
    drop(
        tokio::time::timeout(PATIENCE, socket.read_to_end(&mut got))
            .await
            .unwrap(),
    );
    let url = url(&rig, &format!("80-{id}"), "/");
    assert_eq!(
        client(&rig, EITHER).get(url).send().await.unwrap().status(),
        200
    );
    // Somebody who does not know the authority is refused by himself.
    let stranger = reqwest::Client::builder()
        .tls_backend_preconfigured({
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth()
        })
        .no_proxy()
        .build()
        .unwrap();
    let address = format!("https://127.0.0.1:{}/", rig.tls_port.unwrap());
    assert!(stranger.get(address).send().await.is_err());
}

#[tokio::test]
async fn a_body_that_ends_in_an_empty_frame_leaves_the_guests_connection_clean() {
    let rig = Rig::secured(|_| {}).await;
    rig.sandbox("iabc", open()).await;
    let client = client(&rig, EITHER);
    for round in 0..3 {
        // A body of unknown length ends in a frame of its own, with nothing in it.
        let parts = futures::stream::iter(["one ", "two"].map(Ok::<_, std::io::Error>));
        let ask = client
            .post(url(&rig, "3000-iabc", "/echo"))
            .body(reqwest::Body::wrap_stream(parts));
        let reply = ask.send().await.unwrap();
        assert_eq!(reply.status().as_u16(), 200, "round {round}");
        assert_eq!(reply.text().await.unwrap(), "one two");
    }
    assert_eq!(rig.fake.dials(), 1, "the connection was not used again");
}
