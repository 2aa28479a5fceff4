//! SPECIFICATION.md, Requests: loopback in both address families; an address in use.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use edge::{Config, Edge};
use tokio::net::TcpStream;

use crate::rig::{Rig, public, request};

#[tokio::test]
async fn address_in_use_is_named_in_the_error() {
    let rig = Rig::new().await;
    let address = format!("127.0.0.1:{}", rig.port);
    let config = Config::new(address.parse().unwrap(), rig.dir.path().join("api.sock"));
    let error =
        Edge::bind(config, Arc::new(rig.node.clone()), rig.coordinator.clone()).unwrap_err();
    assert_eq!(error.to_string(), format!("failed to listen on {address}"));
    let edge::StartError::Bind(error) = error else {
        panic!("{error}")
    };
    assert_eq!(error.source.kind(), std::io::ErrorKind::AddrInUse);
    rig.stop().await.unwrap();
}

#[tokio::test]
async fn loopback_listener_accepts_both_address_families() {
    let rig = Rig::with_tls(|_| {}).await;
    let id = rig.sandbox("iabc", public()).await;
    for address in [
        IpAddr::from(Ipv4Addr::LOCALHOST),
        Ipv6Addr::LOCALHOST.into(),
    ] {
        TcpStream::connect((address, rig.tls_port.unwrap()))
            .await
            .unwrap();
        let socket = TcpStream::connect((address, rig.port)).await.unwrap();
        let request = request("/", &[("host", &format!("80-{id}.x"))]);
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
