//! Rows of the specification: sandboxes at their deadlines.

use pool_api::{Epoch, Node, SandboxState, SnapshotScope};
use serde_json::{Value, json};

use crate::rig::{Reply, Rig, TIMEOUT, sandbox};

#[tokio::test]
async fn sandbox_is_killed_at_its_deadline() {
    let rig = Rig::new().await;
    let id = rig
        .create(json!({ "templateID": "base", "timeout": 1 }))
        .await;
    let name = sandbox(&id);
    let stopped = rig
        .fake
        .wait_for(&name, |state| matches!(state, SandboxState::Stopped(_)));
    tokio::time::timeout(TIMEOUT, stopped).await.unwrap();
    rig.poll_until(&id, |reply| reply.status == 404).await;
    assert_eq!(rig.placement(&id).await, None);
}

#[tokio::test]
async fn zero_timeout_expires_a_sandbox_at_once() {
    let rig = Rig::new().await;
    let id = rig
        .create(json!({ "templateID": "base", "timeout": 1000, "autoPause": true }))
        .await;
    rig.call(
        "POST",
        &format!("/sandboxes/{id}/timeout"),
        json!({ "timeout": 0 }),
    )
    .await
    .expect(204);
    let paused = rig
        .poll_until(&id, |reply| reply.expect(200)["state"] == "paused")
        .await
        .expect(200);
    assert_eq!(paused["lifecycle"]["onTimeout"], "pause");
    assert!(
        rig.placement(&id).await.is_some(),
        "a paused sandbox keeps its placement"
    );
}

#[tokio::test]
async fn paused_sandbox_has_no_deadline() {
    let rig = Rig::new().await;
    let id = rig
        .create(json!({ "templateID": "base", "timeout": 1, "idleTimeout": 1000 }))
        .await;
    let other = rig
        .create(json!({ "templateID": "base", "timeout": 1 }))
        .await;
    // As the host does when the sandbox is idle.
    rig.fake
        .pause(&sandbox(&id), Epoch(1), SnapshotScope::Full)
        .await
        .unwrap();
    rig.poll_until(&other, |reply| reply.status == 404).await;
    assert_eq!(
        rig.get(&format!("/sandboxes/{id}")).await.expect(200)["state"],
        "paused"
    );
}

#[tokio::test]
async fn cause_of_a_pause_event_decides_the_deadline() {
    let rig = Rig::new().await;
    let create = async || {
        rig.create(json!({ "templateID": "base", "timeout": 3 }))
            .await
    };
    let (requested, lost) = (create().await, create().await);
    let path = format!("/sandboxes/{lost}");
    rig.call("POST", &format!("{path}/pause"), Value::Null)
        .await
        .expect(204);
    rig.call("POST", &format!("{path}/resume"), json!({ "timeout": 3 }))
        .await
        .expect(201);
    let end_at = |reply: &Reply| reply.expect(200)["endAt"].clone();
    let before = [&requested, &lost].map(|id| format!("/sandboxes/{id}"));
    let before = [
        end_at(&rig.get(&before[0]).await),
        end_at(&rig.get(&before[1]).await),
    ];
    rig.fake
        .pause(&sandbox(&requested), Epoch(1), SnapshotScope::Full)
        .await
        .unwrap();
    rig.poll_until(&requested, |reply| end_at(reply) != before[0])
        .await;
    // It falls back to its snapshot, and is still killed at its deadline.
    rig.fake.crash(&sandbox(&lost));
    let paused = rig
        .poll_until(&lost, |reply| reply.expect(200)["pauseMode"] == "full")
        .await
        .expect(200);
    assert_eq!(
        (&paused["state"], &paused["endAt"]),
        (&json!("paused"), &before[1])
    );
    rig.poll_until(&lost, |reply| reply.status == 404).await;
    let paused = rig.get(&format!("/sandboxes/{requested}")).await;
    assert_eq!(paused.expect(200)["state"], "paused");
}

#[tokio::test]
async fn kill_on_timeout_also_kills_a_paused_sandbox() {
    let rig = Rig::new().await;
    let create = async |lifecycle: Value| {
        let body = json!({ "templateID": "base", "timeout": 2, "lifecycle": lifecycle });
        let created = rig.call("POST", "/sandboxes", body).await.expect(201);
        created["sandboxID"].as_str().unwrap().to_owned()
    };
    let killed = create(json!({ "onTimeout": "kill" })).await;
    let paused_id = create(json!({ "onTimeout": "pause", "autoResume": true })).await;
    let detail = rig
        .get(&format!("/sandboxes/{paused_id}"))
        .await
        .expect(200);
    assert_eq!(
        detail["lifecycle"],
        json!({ "onTimeout": "pause", "autoResume": true })
    );
    let before = rig.get(&format!("/sandboxes/{killed}")).await.expect(200);
    rig.call("POST", &format!("/sandboxes/{killed}/pause"), Value::Null)
        .await
        .expect(204);
    let paused = rig.get(&format!("/sandboxes/{killed}")).await.expect(200);
    assert_eq!(
        (&paused["state"], &paused["endAt"]),
        (&json!("paused"), &before["endAt"])
    );
    let (fake, dir) = rig.crash().await;
    let rig = Rig::over(fake, dir).await;
    let name = sandbox(&killed);
    let stopped = rig
        .fake
        .wait_for(&name, |state| matches!(state, SandboxState::Stopped(_)));
    tokio::time::timeout(TIMEOUT, stopped).await.unwrap();
    rig.poll_until(&killed, |reply| reply.status == 404).await;
    let paused = |reply: &Reply| reply.expect(200)["state"] == "paused";
    rig.poll_until(&paused_id, paused).await;
    let body = json!({ "templateID": "base", "lifecycle": { "onTimeout": "sleep" } });
    rig.call("POST", "/sandboxes", body).await.error(400);
}
