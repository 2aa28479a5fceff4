//! Rows of the specification: none; the Unix socket.

use std::{os::unix::fs::PermissionsExt, sync::Arc};

use control::{Config, Control};
use coordinator::Coordinator;
use pool_api::{Secret, fake::FakeNode};

use crate::rig::{KEY, TIMEOUT};

#[tokio::test]
async fn unix_socket_replaces_a_stale_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    drop(tokio::net::UnixListener::bind(&path).unwrap());
    let config = Config::new(
        dir.path().join("control.db"),
        Secret::new(KEY),
        "n1".parse().unwrap(),
    );
    let fake = Arc::new(FakeNode::default());
    let control = Control::start(config, fake, Arc::new(Coordinator::default()))
        .await
        .unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (socket, until) = (path.clone(), async move { drop(stopped.await) });
    let served = tokio::spawn(control.serve_unix(&socket, until).unwrap());
    let answer = async {
        loop {
            // The stale socket refuses connections until it is replaced.
            if let Ok(stream) = tokio::net::UnixStream::connect(&path).await {
                break stream;
            }
            tokio::task::yield_now().await;
        }
    };
    let stream = tokio::time::timeout(TIMEOUT, answer).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("/health")
        .header("host", "x")
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
    for file in ["control.sock", "control.db", "control.db-wal"] {
        let mode = std::fs::metadata(dir.path().join(file))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    drop((sender, stop));
    tokio::time::timeout(TIMEOUT, served)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}
