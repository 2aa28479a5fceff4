//! Pause, resume, connect, timeouts.

use pool_api::{Node, SandboxState};
use serde_json::{Value, json};

use crate::rig::{Rig, lifetime, missing, sandbox};

#[tokio::test]
async fn pause_resume_and_kill() {
    let rig = Rig::new().await;
    let id = rig.create(json!({ "templateID": "base" })).await;
    let path = format!("/sandboxes/{id}");
    let running = rig
        .call("POST", &format!("{path}/resume"), Value::Null)
        .await
        .error(409);
    assert_eq!(running, format!("Sandbox {id} is already running"));
    rig.call("POST", &format!("{path}/pause"), json!({ "memory": true }))
        .await
        .expect(204);
    let again = rig
        .call("POST", &format!("{path}/pause"), Value::Null)
        .await
        .error(409);
    assert_eq!(
        again,
        format!("Error pausing sandbox - sandbox '{id}' is already paused")
    );
    let paused = rig.get(&path).await.expect(200);
    assert_eq!(paused["state"], "paused");
    let fork = rig
        .call("POST", &format!("{path}/fork"), Value::Null)
        .await
        .error(409);
    assert_eq!(
        fork,
        format!("Sandbox '{id}' is paused and cannot be forked; resume it first")
    );
    rig.call("POST", &format!("{path}/timeout"), json!({ "timeout": 5 }))
        .await
        .error(404);

    let resumed = rig
        .call("POST", &format!("{path}/resume"), json!({ "timeout": 60 }))
        .await
        .expect(201);
    assert_eq!(resumed["sandboxID"], id.as_str());
    let seen = rig.get(&path).await.expect(200);
    assert_eq!(
        (&seen["state"], lifetime(&seen)),
        (&json!("running"), 60_000_000)
    );
    assert!(seen["startedAt"].as_str() > paused["startedAt"].as_str());
    assert_eq!(rig.placement(&id).await.unwrap().epoch.0, 2);

    rig.call("DELETE", &path, Value::Null).await.expect(204);
    assert_eq!(
        rig.call("DELETE", &path, Value::Null).await.error(404),
        missing(&id)
    );
    assert_eq!(rig.placement(&id).await, None);
    assert!(rig.fake.info(&sandbox(&id)).await.is_none());
}

#[tokio::test]
async fn what_is_between_states_is_a_conflict() {
    let rig = Rig::new().await;
    let id = rig.create(json!({ "templateID": "base" })).await;
    rig.fake.set_state(&sandbox(&id), SandboxState::Pausing);
    assert_eq!(
        rig.get(&format!("/sandboxes/{id}")).await.expect(200)["state"],
        "paused"
    );
    rig.call(
        "POST",
        &format!("/sandboxes/{id}/timeout"),
        json!({ "timeout": 5 }),
    )
    .await
    .error(409);
    rig.fake.set_state(&sandbox(&id), SandboxState::Stopping);
    let message = rig
        .call("POST", &format!("/v2/sandboxes/{id}/connect"), json!({}))
        .await
        .error(409);
    assert_eq!(message, format!("Sandbox \"{id}\" is being killed"));
}

#[tokio::test]
async fn connect_wakes_or_extends_and_never_shortens() {
    let rig = Rig::new().await;
    let id = rig
        .create(json!({ "templateID": "base", "timeout": 1000 }))
        .await;
    let (path, v1, v2) = (
        format!("/sandboxes/{id}"),
        format!("/sandboxes/{id}/connect"),
        format!("/v2/sandboxes/{id}/connect"),
    );
    let before = rig.get(&path).await.expect(200);
    rig.call("POST", &v1, json!({ "timeout": 10 }))
        .await
        .expect(200);
    rig.call("POST", &v2, Value::Null).await.expect(200);
    assert_eq!(
        rig.get(&path).await.expect(200),
        before,
        "not a microsecond"
    );
    rig.call("POST", &v2, json!({ "timeout": 2000 }))
        .await
        .expect(200);
    assert!(lifetime(&rig.get(&path).await.expect(200)) > 1_900_000_000);
    for wrong in [json!({ "timeout": 0 }), json!({ "timeout": -2 })] {
        rig.call("POST", &v1, wrong).await.error(400);
    }
    rig.call("POST", &format!("{path}/pause"), json!({}))
        .await
        .expect(204);
    let token = before["envdAccessToken"].clone();
    let woken = rig.call("POST", &v2, json!({})).await.expect(201);
    assert_eq!(woken["envdAccessToken"], token, "the token stays");
    assert_eq!(lifetime(&rig.get(&path).await.expect(200)), 300_000_000);
}

#[tokio::test]
async fn timeout_replaces_and_refresh_extends() {
    let rig = Rig::new().await;
    let id = rig
        .create(json!({ "templateID": "base", "timeout": 1000 }))
        .await;
    let path = format!("/sandboxes/{id}");
    rig.call(
        "POST",
        &format!("{path}/timeout"),
        json!({ "timeout": 100 }),
    )
    .await
    .expect(204);
    let seen = rig.get(&path).await.expect(200);
    assert!(lifetime(&seen) < 200_000_000);
    rig.call("POST", &format!("{path}/refreshes"), Value::Null)
        .await
        .expect(204);
    assert_eq!(rig.get(&path).await.expect(200)["endAt"], seen["endAt"]);
    rig.call(
        "POST",
        &format!("{path}/refreshes"),
        json!({ "duration": 3600 }),
    )
    .await
    .expect(204);
    assert!(lifetime(&rig.get(&path).await.expect(200)) > 3_500_000_000);
    rig.call(
        "POST",
        &format!("{path}/refreshes"),
        json!({ "duration": 3601 }),
    )
    .await
    .error(400);
    rig.call("POST", &format!("{path}/timeout"), json!({ "timeout": -2 }))
        .await
        .error(400);
    rig.call("POST", &format!("{path}/timeout"), json!({}))
        .await
        .error(400);
    let message = rig
        .call(
            "POST",
            &format!("{path}/timeout"),
            json!({ "timeout": 86401 }),
        )
        .await
        .error(400);
    assert_eq!(message, "Max instance length exceeded");
}
