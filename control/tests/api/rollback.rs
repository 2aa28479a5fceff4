//! Rows of the specification: rollback.

use pool_api::{Node, SandboxState, fake::WakeScript};
use serde_json::{Value, json};

use crate::rig::{Reply, Rig, lifetime, missing, sandbox};

async fn with_snapshot(rig: &Rig, name: &str) -> String {
    let id = rig
        .create(json!({ "templateID": "base", "timeout": 700 }))
        .await;
    let path = format!("/sandboxes/{id}/snapshots");
    rig.call("POST", &path, json!({ "name": name }))
        .await
        .expect(201);
    id
}

async fn roll_back(rig: &Rig, id: &str, snapshot: &str) -> Reply {
    let body = json!({ "snapshotID": snapshot });
    rig.call("POST", &format!("/sandboxes/{id}/rollback"), body)
        .await
}

#[tokio::test]
async fn rollback_keeps_identity_and_deadline() {
    let rig = Rig::new().await;
    let id = with_snapshot(&rig, "n").await;
    let path = format!("/sandboxes/{id}");
    let before = rig.get(&path).await.expect(200);
    let done = roll_back(&rig, &id, "catnap/n:default").await.expect(200);
    assert_eq!(
        (&done["sandboxID"], &done["snapshotID"], &done["status"]),
        (&json!(id), &json!("catnap/n:default"), &json!("success"))
    );
    assert!(done["operationID"].is_string());
    assert_eq!(
        rig.get(&path).await.expect(200),
        before,
        "start and deadline are unchanged"
    );
    assert_eq!(rig.placement(&id).await.unwrap().epoch.0, 2);

    // A paused sandbox runs afterwards, with a new lifetime.
    rig.call("POST", &format!("{path}/pause"), Value::Null)
        .await
        .expect(204);
    roll_back(&rig, &id, "n").await.expect(200);
    let awake = rig.get(&path).await.expect(200);
    assert_eq!(
        (&awake["state"], lifetime(&awake)),
        (&json!("running"), 700_000_000)
    );
    assert!(awake["startedAt"].as_str() > before["startedAt"].as_str());
}

#[tokio::test]
async fn rollback_to_a_foreign_snapshot_is_404() {
    let rig = Rig::new().await;
    let (id, other) = (
        with_snapshot(&rig, "mine").await,
        with_snapshot(&rig, "theirs").await,
    );
    for snapshot in ["theirs", "unknown", "base", "mine:odd", "other/mine"] {
        let message = roll_back(&rig, &id, snapshot).await.error(404);
        assert_eq!(
            message,
            format!("Snapshot \"{snapshot}\" doesn't exist or isn't one of sandbox \"{id}\"")
        );
        assert!(
            !message.contains("template"),
            "clients would report a missing template"
        );
    }
    roll_back(&rig, &other, "theirs").await.expect(200);
    roll_back(&rig, &id, "a b").await.error(400);
    let path = format!("/sandboxes/{id}/rollback");
    rig.call("POST", &path, json!({})).await.error(400);
    assert_eq!(
        roll_back(&rig, "iunknown", "mine").await.error(404),
        missing("iunknown")
    );
    rig.fake.set_state(&sandbox(&id), SandboxState::Stopping);
    roll_back(&rig, &id, "mine").await.error(409);
}

#[tokio::test]
async fn failed_rollback_leaves_the_sandbox_paused() {
    let rig = Rig::new().await;
    let id = with_snapshot(&rig, "n").await;
    rig.fake.script_wake(WakeScript::Fails);
    roll_back(&rig, &id, "n").await.error(500);
    assert_eq!(
        rig.get(&format!("/sandboxes/{id}")).await.expect(200)["state"],
        "paused"
    );
    rig.call("POST", &format!("/v2/sandboxes/{id}/connect"), json!({}))
        .await
        .expect(201);
    let info = rig.fake.info(&sandbox(&id)).await.unwrap();
    assert_eq!(info.state, SandboxState::Running);
}
