//! Creations with an idempotency key.

use pool_api::Node;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::rig::{KEY, PATIENCE, Reply, Rig};

async fn create(rig: &Rig, path: &str, key: &str, body: Value) -> Reply {
    rig.call_with("POST", path, body, &[("idempotency-key", key)])
        .await
}

#[tokio::test]
async fn the_same_key_with_the_same_body_is_one_sandbox_over_a_crash_too() {
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
    // Even when it is gone: what was asked for was done.
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
async fn the_same_key_with_another_body_is_refused() {
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
async fn one_that_failed_may_be_tried_again() {
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
    rig.call("POST", "/templates/late/build", Value::Null)
        .await
        .expect(200);
    create(&rig, "/v2/sandboxes", "k2", json!({ "templateID": "late" }))
        .await
        .expect(201);
}

#[tokio::test]
async fn callers_at_the_same_time_share_one_creation() {
    let rig = Rig::new().await;
    rig.fake.hold_creates(true);
    let body = json!({ "templateID": "base" });
    let many = async {
        let calls: Vec<_> = (0..8)
            .map(|_| create(&rig, "/v2/sandboxes", "k", body.clone()))
            .collect();
        futures::future::join_all(calls).await
    };
    let other = async {
        rig.fake.wait_for_creates(1).await;
        // It is refused while the first is under way: nobody waits to be told that.
        let body = json!({ "templateID": "base", "timeout": 9 });
        let refused = create(&rig, "/v2/sandboxes", "k", body).await.expect(422);
        assert_eq!(refused["error_code"], "idempotency_request_mismatch");
        rig.fake.hold_creates(false);
    };
    let both = async { tokio::join!(many, other) };
    let (replies, ()) = tokio::time::timeout(PATIENCE, both).await.unwrap();
    let first = replies[0].expect(201);
    assert!(replies.iter().all(|reply| reply.expect(201) == first));
    assert_eq!(rig.fake.creates(), 1);
}

#[tokio::test]
async fn a_caller_that_goes_away_is_told_when_it_comes_back() {
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
    let (made, ()) = tokio::join!(again, release);
    let id = made.expect(201)["sandboxID"].clone();
    assert_eq!(rig.fake.creates(), 1, "the one that was begun was finished");
    let listed = rig.get("/v2/sandboxes").await.expect(200);
    assert_eq!(listed[0]["sandboxID"], id);
}
