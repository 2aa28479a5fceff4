//! TLS and HTTP/2 clients that trust only the gateway's own certificate authority.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use pool_api::SandboxId;
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::rig::{DOMAIN, Rig, TIMEOUT};

/// The ALPN protocols of a client that supports both HTTP versions.
pub(crate) const BOTH: &[&[u8]] = &[b"h2", b"http/1.1"];

/// Resolves every name to this machine.
struct Loopback;

impl reqwest::dns::Resolve for Loopback {
    fn resolve(&self, _name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let addresses: reqwest::dns::Addrs =
            Box::new(std::iter::once(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))));
        Box::pin(std::future::ready(Ok(addresses)))
    }
}

/// Returns a client that resolves every name to the gateway.
pub(crate) fn https_client(rig: &Rig, protocols: &[&[u8]]) -> reqwest::Client {
    reqwest::Client::builder()
        .tls_backend_preconfigured(client_config(rig, protocols))
        .no_proxy()
        .timeout(TIMEOUT)
        .dns_resolver(Arc::new(Loopback))
        .build()
        .unwrap()
}

fn client_config(rig: &Rig, protocols: &[&[u8]]) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    let authority = rig.dir.path().join("tls").join("ca.pem");
    roots
        .add(CertificateDer::from_pem_file(authority).unwrap())
        .unwrap();
    let mut config = client_config_with_roots(roots);
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    config
}

pub(crate) fn client_config_with_roots(roots: rustls::RootCertStore) -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Opens a TLS connection that offers one ALPN protocol.
pub(crate) async fn tls_connect(rig: &Rig, protocol: &[u8]) -> TlsStream<TcpStream> {
    let socket = TcpStream::connect(("127.0.0.1", rig.tls_port.unwrap()))
        .await
        .unwrap();
    let name = ServerName::try_from(format!("api.{DOMAIN}")).unwrap();
    let connector = TlsConnector::from(Arc::new(client_config(rig, &[protocol])));
    let stream = connector.connect(name, socket).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
    stream
}

/// Returns the URL of a path on a subdomain of the gateway.
pub(crate) fn url(rig: &Rig, label: &str, path: &str) -> String {
    format!("https://{label}.{DOMAIN}:{}{path}", rig.tls_port.unwrap())
}

/// Opens an HTTP/2 connection.
pub(crate) async fn h2_connect(rig: &Rig) -> SendRequest<Bytes> {
    let stream = tls_connect(rig, b"h2").await;
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Returns a `GET` to port 80 of a sandbox.
pub(crate) fn h2_get(id: &SandboxId, path: &str) -> Request<()> {
    Request::get(format!("https://80-{id}.{DOMAIN}{path}"))
        .body(())
        .unwrap()
}
