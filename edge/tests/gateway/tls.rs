//! SPECIFICATION.md, Requests: HTTP/1.1 and HTTP/2 on the TLS port; failed handshakes.

use axum::{Router, body::Body};
use http::Version;
use pool_api::{SandboxId, fake::Echo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    clients::{BOTH, client_config_with_roots, https_client, url},
    rig::{DOMAIN, Rig, TIMEOUT, public},
};

async fn assert_reaches_api(rig: &Rig, client: &reqwest::Client, version: Version) {
    let reply = client
        .post(url(rig, "api", "/x"))
        .body("b")
        .send()
        .await
        .unwrap();
    assert_eq!(reply.version(), version);
    assert_eq!(reply.text().await.unwrap(), "api b");
    let domain = format!("https://{DOMAIN}:{}/", rig.tls_port.unwrap());
    let reply = client.get(domain).send().await.unwrap();
    assert_eq!(reply.text().await.unwrap(), "api ");
}

async fn assert_reaches_sandbox(
    rig: &Rig,
    client: &reqwest::Client,
    version: Version,
    id: &SandboxId,
) {
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

    let request = client.get(url(rig, "sandbox", "/"));
    let reply = request
        .header("e2b-sandbox-id", "iabc")
        .header("e2b-sandbox-port", "49983")
        .send()
        .await
        .unwrap();
    assert_eq!(reply.json::<Echo>().await.unwrap().port, 49983);
    for (label, status) in [("sandbox", 400), ("80-iunknown", 502)] {
        let reply = client.get(url(rig, label, "/")).send().await.unwrap();
        assert_eq!(reply.status(), status, "{label}");
    }
}

#[tokio::test]
async fn tls_port_routes_h1_and_h2_alike() {
    let rig = Rig::with_tls(|_| {}).await;
    rig.serve_api(Router::new().fallback(async |body: Body| {
        let body = axum::body::to_bytes(body, 99).await.unwrap();
        format!("api {}", String::from_utf8(body.to_vec()).unwrap())
    }));
    let id = rig.sandbox("iabc", public()).await;
    let (h2, h1) = (https_client(&rig, BOTH), https_client(&rig, &[b"http/1.1"]));
    for (client, version) in [(&h2, Version::HTTP_2), (&h1, Version::HTTP_11)] {
        assert_reaches_api(&rig, client, version).await;
        assert_reaches_sandbox(&rig, client, version, &id).await;
    }
    let plain = rig.get_port(80, &id, &[]).await;
    assert_eq!(plain.status, 200, "plain HTTP is served beside TLS");
}

#[tokio::test]
async fn invalid_tls_handshakes_leave_the_gateway_serving() {
    let rig = Rig::with_tls(|_| {}).await;
    let id = rig.sandbox("iabc", public()).await;
    let mut socket = TcpStream::connect(("127.0.0.1", rig.tls_port.unwrap()))
        .await
        .unwrap();
    socket
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut received = Vec::new();
    // An alert or a reset ends the connection.
    drop(
        tokio::time::timeout(TIMEOUT, socket.read_to_end(&mut received))
            .await
            .unwrap(),
    );
    let url = url(&rig, &format!("80-{id}"), "/");
    assert_eq!(
        https_client(&rig, BOTH)
            .get(url)
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    // A client that does not trust the authority aborts its handshake.
    let untrusting = reqwest::Client::builder()
        .tls_backend_preconfigured(client_config_with_roots(rustls::RootCertStore::empty()))
        .no_proxy()
        .build()
        .unwrap();
    let address = format!("https://127.0.0.1:{}/", rig.tls_port.unwrap());
    assert!(untrusting.get(address).send().await.is_err());
}

#[tokio::test]
async fn plain_http_on_the_tls_port_is_400() {
    let rig = Rig::with_tls(|_| {}).await;
    let mut sender = crate::rig::connect(rig.tls_port.unwrap()).await;
    let reply = crate::rig::get_on(&mut sender, "/", &[("host", "x")]).await;
    assert_eq!(reply.status, 400);
    assert!(
        reply
            .body
            .contains("plain HTTP request was sent to HTTPS port")
    );
}
