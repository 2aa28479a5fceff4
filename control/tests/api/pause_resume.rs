//! Rows of the specification: responses and codes of pause, resume and kill.

use http::HeaderValue;
use pool_api::{Node, SandboxState};
use serde_json::{Value, json};

use crate::rig::{Rig, lifetime, missing, sandbox};

#[tokio::test]
async fn pause_resume_and_kill_return_e2b_responses() {
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
    let detail = rig.get(&path).await.expect(200);
    assert_eq!(
        (&detail["state"], lifetime(&detail)),
        (&json!("running"), 60_000_000)
    );
    assert!(detail["startedAt"].as_str() > paused["startedAt"].as_str());
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
async fn requests_during_a_transition_are_409() {
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
async fn failed_pause_leaves_the_sandbox_running() {
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
    let mut after = rig.get(&path).await.expect(200);
    let error = after.as_object_mut().unwrap().remove("lastError");
    assert_eq!((after, error), (before, Some(json!("scripted"))));
}

#[tokio::test]
async fn pause_requiring_healthy_guest_fails_if_unresponsive() {
    let rig = Rig::new().await;
    let id = rig.create(json!({ "templateID": "base" })).await;
    let path = format!("/sandboxes/{id}/pause");
    rig.fake.set_metrics_unanswered(true);
    let strict = json!({ "memory": false, "requireHealthyGuest": true });
    let reply = rig.call("POST", &path, strict).await;
    let body = reply.expect(503);
    assert_eq!(
        body["error_code"],
        "sandbox_snapshot_guest_agent_unresponsive"
    );
    assert_eq!(
        (
            &reply.headers["should-retry"],
            &reply.headers["retry-after"]
        ),
        (
            &HeaderValue::from_static("false"),
            &HeaderValue::from_static("5")
        )
    );
    assert_eq!(
        rig.get(&format!("/sandboxes/{id}")).await.expect(200)["state"],
        "running"
    );
    rig.call("POST", &path, json!({ "requireHealthyGuest": false }))
        .await
        .expect(204);
}
