//! SPECIFICATION.md, Requests: the budget of requests, and API calls without the key.

use std::{fs, time::Duration};

use axum::{Router, routing::any};
use futures::future::join_all;
use http::Request;
use pool_api::Secret;

use crate::{
    clients::{h2_connect, h2_get},
    rig::{DOMAIN, Rig, TIMEOUT, public},
};

const HOST: (&str, &str) = ("host", "localhost");

#[tokio::test]
async fn api_is_dialed_with_the_key_only() {
    let rig = Rig::with_config(|config| config.api_key = Some(Secret::new("right"))).await;
    // Nothing serves the API: a request that reaches it is 503.
    for (path, headers, status, body) in [
        (
            "/v2/sandboxes",
            vec![],
            401,
            r#"{"code":401,"message":"authorization header is missing"}"#,
        ),
        (
            "/v2/sandboxes",
            vec![("x-api-key", "wrong")],
            401,
            r#"{"code":401,"message":"Invalid API key, please visit https://e2b.dev/docs/api-key for more information."}"#,
        ),
        ("/health", vec![], 200, r#"{"status":"ok"}"#),
        (
            "/health",
            vec![("x-api-key", "wrong")],
            200,
            r#"{"status":"ok"}"#,
        ),
    ] {
        let headers: Vec<_> = [HOST].into_iter().chain(headers).collect();
        let reply = rig.get(path, &headers).await;
        assert_eq!(
            (reply.status, reply.body.as_str()),
            (status, body),
            "{path} {headers:?}"
        );
    }
    for key in [("x-api-key", "right"), ("authorization", "Bearer right")] {
        let reply = rig.get("/v2/sandboxes", &[HOST, key]).await;
        assert_eq!(reply.status, 503, "{key:?} reaches the API");
    }
}

#[tokio::test]
async fn unread_h2_responses_take_no_descriptors() {
    const CONNECTIONS: usize = 4;
    const STREAMS: usize = 200;
    let rig = Rig::with_tls(|config| {
        config.api_key = Some(Secret::new("right"));
        config.limits.requests = 500;
        config.limits.requests_per_address = 500;
        config.limits.stalled_response = Duration::from_millis(300);
    })
    .await;
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    let mut clients = Vec::new();
    let mut heads = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = crate::clients::tls_connect(&rig, b"h2").await;
        let (mut sender, connection) = h2::client::Builder::new()
            // The client reads no byte of a body.
            .initial_window_size(0)
            .handshake::<_, bytes::Bytes>(stream)
            .await
            .unwrap();
        tokio::spawn(connection);
        for _ in 0..STREAMS {
            sender = sender.ready().await.unwrap();
            let request = Request::get(format!("https://{DOMAIN}/health"))
                .body(())
                .unwrap();
            heads.push(sender.send_request(request, true).unwrap().0);
        }
        clients.push(sender);
    }
    let replies = tokio::time::timeout(TIMEOUT, join_all(heads))
        .await
        .unwrap();
    let refused = replies
        .iter()
        .filter(|reply| reply.as_ref().is_ok_and(|reply| reply.status() == 503))
        .count();
    assert!(
        refused >= CONNECTIONS * STREAMS - 500,
        "{refused} of 800 refused"
    );
    // Both ends of a connection are in this process.
    assert!(
        descriptors() < before + 2 * CONNECTIONS + 20,
        "{} descriptors for {} streams",
        descriptors() - before,
        CONNECTIONS * STREAMS
    );
    // The stalled streams end, and their shares are free again.
    let mut client = h2_connect(&rig).await;
    loop {
        let request = Request::get(format!("https://{DOMAIN}/health"))
            .body(())
            .unwrap();
        client = client.ready().await.unwrap();
        let reply = client.send_request(request, true).unwrap().0.await.unwrap();
        if reply.status() == 200 {
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn requests_beyond_a_limit_are_refused_at_once() {
    let rig = Rig::with_config(|config| {
        config.limits.requests = 8;
        config.limits.requests_per_address = 3;
        config.limits.api_requests = 1;
    })
    .await;
    let (entered, mut entries) = tokio::sync::mpsc::unbounded_channel();
    rig.serve_api(Router::new().fallback(any(move || {
        entered.send(()).unwrap();
        std::future::pending::<()>()
    })));
    let mut held = Vec::new();
    let hold = async |held: &mut Vec<_>| {
        let mut sender = rig.connect().await;
        let request = crate::rig::request("/v2/sandboxes", &[HOST]);
        held.push(tokio::spawn(
            async move { sender.send_request(request).await },
        ));
    };
    hold(&mut held).await;
    entries.recv().await.unwrap();
    let reply = rig.get("/v2/sandboxes", &[HOST]).await;
    assert_eq!(
        (
            reply.status,
            reply.header("retry-after"),
            reply.body.as_str()
        ),
        (503, "1", "")
    );
    // Another request to a sandbox is served, and holds its share.
    let id = rig.sandbox("iabc", public()).await;
    assert_eq!(rig.get_port(80, &id, &[]).await.status, 200);
    rig.pause(&id).await;
    rig.node.hold_wakes(true);
    for _ in 0..2 {
        let mut sender = rig.connect().await;
        let request = crate::rig::request("/", &[("host", "80-iabc.x")]);
        held.push(tokio::spawn(
            async move { sender.send_request(request).await },
        ));
    }
    rig.wait_for_entering(2).await;
    let reply = rig.get_port(80, &id, &[]).await;
    assert_eq!((reply.status, reply.header("retry-after")), (429, "1"));
    rig.node.hold_wakes(false);
    for task in held {
        task.abort();
    }
}

#[tokio::test]
async fn waits_for_wakes_are_limited_by_address() {
    let rig = Rig::with_tls(|config| config.limits.wakes_per_address = 1).await;
    let id = rig.paused_sandbox("iabc", public()).await;
    let running = rig.sandbox("irun", public()).await;
    rig.node.hold_wakes(true);
    let mut client = h2_connect(&rig).await;
    let (first, _) = client.send_request(h2_get(&id, "/"), true).unwrap();
    rig.wait_for_entering(1).await;
    let mut client = client.ready().await.unwrap();
    let (second, _) = client.send_request(h2_get(&id, "/"), true).unwrap();
    assert_eq!(second.await.unwrap().status(), 429);
    // A running sandbox is not waited for.
    let mut client = client.ready().await.unwrap();
    let (third, _) = client.send_request(h2_get(&running, "/"), true).unwrap();
    assert_eq!(third.await.unwrap().status(), 200);
    rig.node.hold_wakes(false);
    assert_eq!(first.await.unwrap().status(), 200);
}
