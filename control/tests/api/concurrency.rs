//! Rows of the specification: concurrent pauses, connects and snapshots.

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::rig::{KEY, Rig, TIMEOUT, lifetime};

#[tokio::test]
async fn concurrent_pauses_share_one_result() {
    let rig = Rig::new().await;
    let id = rig.create(json!({ "templateID": "base" })).await;
    let path = format!("/sandboxes/{id}");
    rig.fake.hold_pauses(true);
    let (pause, timeout) = (format!("{path}/pause"), format!("{path}/timeout"));
    let calls = (0..4).map(|_| rig.call("POST", &pause, Value::Null));
    let during = async {
        rig.fake.wait_for_pausing(4).await;
        let detail = rig.get(&path).await.expect(200);
        assert_eq!(detail["state"], "paused");
        rig.call("POST", &timeout, json!({ "timeout": 5 }))
            .await
            .error(409);
        rig.fake.hold_pauses(false);
    };
    let both = async { tokio::join!(join_all(calls), during) };
    let (replies, ()) = tokio::time::timeout(TIMEOUT, both).await.unwrap();
    for reply in replies {
        reply.expect(204);
    }
}

#[tokio::test]
async fn concurrent_snapshot_of_one_sandbox_is_409() {
    let rig = Rig::new().await;
    let id = rig.create(json!({ "templateID": "base" })).await;
    let other = rig.create(json!({ "templateID": "base" })).await;
    let path = format!("/sandboxes/{id}/snapshots");
    let of_other = format!("/sandboxes/{other}/snapshots");
    rig.fake.hold_pauses(true);
    let second = async {
        rig.fake.wait_for_pausing(1).await;
        let message = rig.call("POST", &path, Value::Null).await.error(409);
        assert!(message.contains("is already in progress"), "{message}");
        let release = async {
            rig.fake.wait_for_pausing(2).await;
            rig.fake.hold_pauses(false);
        };
        // Another sandbox is not affected.
        tokio::join!(rig.call("POST", &of_other, Value::Null), release)
            .0
            .expect(201);
    };
    let both = async { tokio::join!(rig.call("POST", &path, Value::Null), second) };
    let (first, ()) = tokio::time::timeout(TIMEOUT, both).await.unwrap();
    first.expect(201);
    rig.call("POST", &path, Value::Null).await.expect(201);
}

#[tokio::test]
async fn connect_during_a_pause_waits_and_resumes() {
    let rig = Rig::new().await;
    let id = rig.create(json!({ "templateID": "base" })).await;
    let path = format!("/sandboxes/{id}");
    rig.fake.hold_pauses(true);
    let (pause, connect) = (format!("{path}/pause"), format!("/v2{path}/connect"));
    let connected = async {
        rig.fake.wait_for_pausing(1).await;
        let connected = rig.call("POST", &connect, json!({ "timeout": 99 }));
        let release = async {
            // The connect is sent before this response arrives.
            rig.get(&path).await.expect(200);
            rig.fake.hold_pauses(false);
        };
        tokio::join!(connected, release).0
    };
    let both = async { tokio::join!(rig.call("POST", &pause, Value::Null), connected) };
    let (paused, connected) = tokio::time::timeout(TIMEOUT, both).await.unwrap();
    paused.expect(204);
    connected.expect(201);
    let detail = rig.get(&path).await.expect(200);
    assert_eq!(
        (&detail["state"], lifetime(&detail)),
        (&json!("running"), 99_000_000)
    );
}

#[tokio::test]
async fn concurrent_connects_resume_once_and_never_shorten() {
    let rig = Rig::new().await;
    let id = rig.create(json!({ "templateID": "base" })).await;
    let path = format!("/sandboxes/{id}");
    rig.call("POST", &format!("{path}/pause"), Value::Null)
        .await
        .expect(204);
    rig.fake.hold_wakes(true);
    let connect = format!("/v2/sandboxes/{id}/connect");
    let calls =
        [700, 30, 60, 500].map(|timeout| rig.call("POST", &connect, json!({ "timeout": timeout })));
    let release = async {
        rig.fake.wait_for_wakes(1).await;
        rig.fake.hold_wakes(false);
    };
    let both = async { tokio::join!(join_all(calls), release) };
    let (replies, ()) = tokio::time::timeout(TIMEOUT, both).await.unwrap();
    let mut statuses: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 201]);
    assert_eq!(rig.fake.wakes(), 1);
    assert!(lifetime(&rig.get(&path).await.expect(200)) >= 700_000_000);
}

#[tokio::test]
async fn create_and_fork_complete_after_a_disconnect() {
    let rig = Rig::new().await;
    let id = rig
        .create(json!({ "templateID": "base", "metadata": { "first": "" } }))
        .await;
    rig.fake.hold_creates(true);
    let send = async |path: &str, body: &str| {
        let mut socket = rig.socket().await;
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ncontent-length: {length}\r\n\r\n"
        );
        socket
            .write_all(format!("{head}{body}").as_bytes())
            .await
            .unwrap();
        socket
    };
    let create = send("/v2/sandboxes", r#"{ "templateID": "base" }"#).await;
    rig.fake.wait_for_creates(2).await;
    drop(create);
    let fork = send(&format!("/sandboxes/{id}/fork"), r#"{ "count": 2 }"#).await;
    rig.fake.wait_for_creates(3).await;
    drop(fork);
    // The server sees the disconnects before it responds to this.
    rig.get(&format!("/sandboxes/{id}")).await.expect(200);
    rig.fake.hold_creates(false);
    let all = async {
        loop {
            let listed = rig.get("/v2/sandboxes").await.expect(200);
            if listed.as_array().unwrap().len() == 4 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, all).await.unwrap();
}
