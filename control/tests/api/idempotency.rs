//! Rows of the specification: idempotency keys.

use futures::future::join_all;
use pool_api::Node;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::rig::{KEY, Reply, Rig, TIMEOUT};

async fn create(rig: &Rig, path: &str, key: &str, body: Value) -> Reply {
    rig.call_with("POST", path, body, &[("idempotency-key", key)])
        .await
}

#[tokio::test]
async fn repeated_key_returns_the_same_sandbox_after_a_crash() {
    let rig = Rig::new().await;
    let body = json!({ "templateID": "base", "metadata": { "k": "v" } });
    let first = create(&rig, "/v2/sandboxes", "key-1", body.clone())
        .await
        .expect(201);
    assert_eq!(
        create(&rig, "/v2/sandboxes", "key-1", body.clone())
            .await
            .expect(201),
        first
    );
    let (fake, dir) = rig.crash().await;
    let rig = Rig::over(fake, dir).await;
    assert_eq!(
        create(&rig, "/v2/sandboxes", "key-1", body.clone())
            .await
            .expect(201),
        first
    );
    assert_eq!(rig.fake.list().await.len(), 1);
    assert_eq!(rig.fake.creates(), 1);
    // The response stays the same after a kill.
    let path = format!("/sandboxes/{}", first["sandboxID"].as_str().unwrap());
    rig.call("DELETE", &path, Value::Null).await.expect(204);
    assert_eq!(
        create(&rig, "/v2/sandboxes", "key-1", body.clone())
            .await
            .expect(201),
        first
    );
    let other = create(&rig, "/v2/sandboxes", "key-2", body)
        .await
        .expect(201);
    assert_ne!(other["sandboxID"], first["sandboxID"]);
    assert_eq!(rig.fake.creates(), 2);
}

#[tokio::test]
async fn key_reused_with_another_body_is_422() {
    let rig = Rig::new().await;
    let body = json!({ "templateID": "base" });
    create(&rig, "/v2/sandboxes", "k", body.clone())
        .await
        .expect(201);
    for (path, body) in [
        (
            "/v2/sandboxes",
            json!({ "templateID": "base", "timeout": 7 }),
        ),
        ("/sandboxes", body.clone()),
    ] {
        let reply = create(&rig, path, "k", body).await.expect(422);
        assert_eq!(
            (&reply["code"], &reply["error_code"]),
            (&json!(422), &json!("idempotency_request_mismatch"))
        );
        assert!(reply["message"].is_string());
    }
    for key in ["", "A", "a b", &"a".repeat(256)] {
        create(&rig, "/v2/sandboxes", key, body.clone())
            .await
            .error(400);
    }
    assert_eq!(rig.fake.creates(), 1);
}

#[tokio::test]
async fn failed_create_can_be_retried_with_its_key() {
    let rig = Rig::new().await;
    let body = json!({ "templateID": "base" });
    rig.fake.set_full(true);
    create(&rig, "/v2/sandboxes", "k", body.clone())
        .await
        .error(409);
    rig.fake.set_full(false);
    create(&rig, "/v2/sandboxes", "k", body.clone())
        .await
        .expect(201);
    create(&rig, "/v2/sandboxes", "k2", json!({ "templateID": "late" }))
        .await
        .error(404);
    rig.fake.add_template("late".parse().unwrap());
    create(&rig, "/v2/sandboxes", "k2", json!({ "templateID": "late" }))
        .await
        .expect(201);
}

#[tokio::test]
async fn concurrent_requests_with_one_key_create_once() {
    let rig = Rig::new().await;
    rig.fake.hold_creates(true);
    let body = json!({ "templateID": "base" });
    let many = async {
        let calls: Vec<_> = (0..8)
            .map(|_| create(&rig, "/v2/sandboxes", "k", body.clone()))
            .collect();
        join_all(calls).await
    };
    let other = async {
        rig.fake.wait_for_creates(1).await;
        // A mismatch is rejected at once, while the first request is in progress.
        let body = json!({ "templateID": "base", "timeout": 9 });
        let body = create(&rig, "/v2/sandboxes", "k", body).await.expect(422);
        assert_eq!(body["error_code"], "idempotency_request_mismatch");
        rig.fake.hold_creates(false);
    };
    let both = async { tokio::join!(many, other) };
    let (replies, ()) = tokio::time::timeout(TIMEOUT, both).await.unwrap();
    let first = replies[0].expect(201);
    assert!(replies.iter().all(|reply| reply.expect(201) == first));
    assert_eq!(rig.fake.creates(), 1);
}

#[tokio::test]
async fn retry_after_disconnect_returns_the_created_sandbox() {
    let rig = Rig::new().await;
    rig.fake.hold_creates(true);
    let body = json!({ "templateID": "base" });
    let mut socket = rig.socket().await;
    let text = body.to_string();
    let request = format!(
        "POST /v2/sandboxes HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\nidempotency-key: k\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    rig.fake.wait_for_creates(1).await;
    drop(socket);
    let again = create(&rig, "/v2/sandboxes", "k", body);
    let release = async { rig.fake.hold_creates(false) };
    let (created, ()) = tokio::join!(again, release);
    let id = created.expect(201)["sandboxID"].clone();
    assert_eq!(rig.fake.creates(), 1, "the first create was completed");
    let listed = rig.get("/v2/sandboxes").await.expect(200);
    assert_eq!(listed[0]["sandboxID"], id);
}
