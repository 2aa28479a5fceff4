//! Callers at the same time.

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::rig::{KEY, PATIENCE, Rig, lifetime};

#[tokio::test]
async fn pauses_at_the_same_time_share_their_outcome() {
    let rig = Rig::new().await;
    let id = rig.create(json!({ "templateID": "base" })).await;
    let path = format!("/sandboxes/{id}");
    rig.fake.hold_pauses(true);
    let (pause, timeout) = (format!("{path}/pause"), format!("{path}/timeout"));
    let calls = (0..4).map(|_| rig.call("POST", &pause, Value::Null));
    let during = async {
        rig.fake.wait_for_pausing(4).await;
        let seen = rig.get(&path).await.expect(200);
        assert_eq!(seen["state"], "paused");
        rig.call("POST", &timeout, json!({ "timeout": 5 }))
            .await
            .error(409);
        rig.fake.hold_pauses(false);
    };
    let both = async { tokio::join!(join_all(calls), during) };
    let (replies, ()) = tokio::time::timeout(PATIENCE, both).await.unwrap();
    for reply in replies {
        reply.expect(204);
    }
}

#[tokio::test]
async fn of_two_snapshots_at_the_same_time_one_is_taken() {
    let rig = Rig::new().await;
    let id = rig.create(json!({ "templateID": "base" })).await;
    let other = rig.create(json!({ "templateID": "base" })).await;
    let path = format!("/sandboxes/{id}/snapshots");
    let of_other = format!("/sandboxes/{other}/snapshots");
    rig.fake.hold_pauses(true);
    let second = async {
        rig.fake.wait_for_pausing(1).await;
        let refused = rig.call("POST", &path, Value::Null).await.error(409);
        assert!(refused.contains("is already in progress"), "{refused}");
        let release = async {
            rig.fake.wait_for_pausing(2).await;
            rig.fake.hold_pauses(false);
        };
        // Another's has nothing to do with it.
        tokio::join!(rig.call("POST", &of_other, Value::Null), release)
            .0
            .expect(201);
    };
    let both = async { tokio::join!(rig.call("POST", &path, Value::Null), second) };
    let (first, ()) = tokio::time::timeout(PATIENCE, both).await.unwrap();
    first.expect(201);
    rig.call("POST", &path, Value::Null).await.expect(201);
}

#[tokio::test]
async fn a_connect_during_a_pause_waits_and_wakes() {
    let rig = Rig::new().await;
    let id = rig.create(json!({ "templateID": "base" })).await;
    let path = format!("/sandboxes/{id}");
    rig.fake.hold_pauses(true);
    let (pause, connect) = (format!("{path}/pause"), format!("/v2{path}/connect"));
    let connected = async {
        rig.fake.wait_for_pausing(1).await;
        let connected = rig.call("POST", &connect, json!({ "timeout": 99 }));
        let release = async {
            // The connect is asked for before this is answered.
            rig.get(&path).await.expect(200);
            rig.fake.hold_pauses(false);
        };
        tokio::join!(connected, release).0
    };
    let both = async { tokio::join!(rig.call("POST", &pause, Value::Null), connected) };
    let (paused, connected) = tokio::time::timeout(PATIENCE, both).await.unwrap();
    paused.expect(204);
    connected.expect(201);
    let seen = rig.get(&path).await.expect(200);
    assert_eq!(
        (&seen["state"], lifetime(&seen)),
        (&json!("running"), 99_000_000)
    );
}

#[tokio::test]
async fn of_connects_at_the_same_time_one_wakes_and_none_shortens() {
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
    let (replies, ()) = tokio::time::timeout(PATIENCE, both).await.unwrap();
    let mut statuses: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 201]);
    assert_eq!(rig.fake.wakes(), 1);
    assert!(lifetime(&rig.get(&path).await.expect(200)) >= 700_000_000);
}

#[tokio::test]
async fn a_pause_that_fails_is_no_pause() {
    let rig = Rig::new().await;
    let id = rig.create(json!({ "templateID": "base" })).await;
    let path = format!("/sandboxes/{id}");
    let before = rig.get(&path).await.expect(200);
    rig.fake.set_pause_fails(true);
    let reply = rig
        .call("POST", &format!("{path}/pause"), Value::Null)
        .await;
    assert_eq!(reply.error(500), "the request failed inside the server");
    assert_eq!(reply.headers["should-retry"], "false");
    assert_eq!(rig.get(&path).await.expect(200), before);
}

#[tokio::test]
async fn what_was_begun_is_finished_when_the_caller_goes_away() {
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
    // Answered only after the server has seen the others go.
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
    tokio::time::timeout(PATIENCE, all).await.unwrap();
}
