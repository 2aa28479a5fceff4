//! Error responses for a guest's ports. The edge's tests have the other error responses.

use serde_json::{Value, json};

use crate::rig::{Gateway, Reply, Sandbox};

/// Sends a request to a port without a server, and returns the error body of the 502.
async fn error_body(gateway: &Gateway, sandbox: &Sandbox) -> Value {
    let request = sandbox.request(gateway, reqwest::Method::GET, 3210, "/");
    let reply = Reply::read(request.send().await.unwrap()).await.unwrap();
    assert_eq!(reply.status, 502, "{}", reply.body);
    assert_eq!(
        reply.header("content-type"),
        "application/json; charset=utf-8"
    );
    serde_json::from_str(&reply.body).unwrap()
}

#[tokio::test]
async fn closed_port_and_missing_sandbox_are_distinct_502s() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway
        .create(json!({ "autoResume": { "enabled": false } }))
        .await;
    let closed = json!({
        "sandboxId": sandbox.id,
        "message": "The sandbox is running but port is not open",
        "port": 3210,
        "code": 502,
    });
    let missing = json!({
        "sandboxId": sandbox.id,
        "message": "The sandbox was not found",
        "code": 502,
    });
    assert_eq!(error_body(&gateway, &sandbox).await, closed);
    sandbox.pause(&gateway).await;
    let paused = error_body(&gateway, &sandbox).await;
    assert_eq!(paused, missing, "requests may not wake it");
    sandbox.kill(&gateway).await;
    assert_eq!(error_body(&gateway, &sandbox).await, missing);
    gateway.finish().await;
}
