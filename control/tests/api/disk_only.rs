//! Rows of the specification: pauses that keep only the disk.

use pool_api::{EnterError, IfPaused, Node, SandboxState, SnapshotScope, Start};
use serde_json::{Value, json};

use crate::rig::{Rig, TIMEOUT, sandbox};

#[tokio::test]
async fn disk_only_sandbox_is_resumed_only_by_the_api() {
    let rig = Rig::new().await;
    let body = json!({ "templateID": "base", "autoResume": { "enabled": true } });
    let id = rig.create(body).await;
    let (name, path) = (sandbox(&id), format!("/sandboxes/{id}"));
    let token = rig.get(&path).await.expect(200)["envdAccessToken"].clone();
    assert!(rig.get(&path).await.expect(200).get("pauseMode").is_none());
    rig.call("POST", &format!("{path}/pause"), json!({ "memory": false }))
        .await
        .expect(204);
    let paused = rig.get(&path).await.expect(200);
    assert_eq!(
        (&paused["state"], &paused["pauseMode"]),
        (&json!("paused"), &json!("filesystem"))
    );
    assert_eq!(paused["lifecycle"]["autoResume"], true, "the setting stays");
    assert!(
        !rig.placement(&id).await.unwrap().access.auto_resume,
        "the placement refuses wakes"
    );
    let entered = rig.fake.enter(&name, IfPaused::Wake).await;
    assert!(matches!(entered, Err(EnterError::Paused(_))));

    let connect = format!("/v2/sandboxes/{id}/connect");
    let woken = rig.call("POST", &connect, Value::Null).await.expect(201);
    assert_eq!(woken["envdAccessToken"], token);
    assert_eq!(rig.fake.start_of(&name), Some(Start::Boot));
    assert!(rig.placement(&id).await.unwrap().access.auto_resume);

    rig.call("POST", &format!("{path}/pause"), json!({}))
        .await
        .expect(204);
    assert_eq!(rig.get(&path).await.expect(200)["pauseMode"], "full");
    assert!(rig.placement(&id).await.unwrap().access.auto_resume);
    drop(rig.fake.enter(&name, IfPaused::Wake).await.unwrap());
    assert_eq!(rig.fake.start_of(&name), Some(Start::Restore));
}

#[tokio::test]
async fn resume_without_memory_boots_from_disk() {
    let rig = Rig::new().await;
    let id = rig.create(json!({ "templateID": "base" })).await;
    let path = format!("/sandboxes/{id}");
    for (wake, v, status) in [
        ("resume", "", 201),
        ("connect", "/v2", 201),
        ("connect", "", 201),
    ] {
        rig.call("POST", &format!("{path}/pause"), Value::Null)
            .await
            .expect(204);
        let body = json!({ "memory": false, "timeout": 60 });
        rig.call("POST", &format!("{v}{path}/{wake}"), body)
            .await
            .expect(status);
        assert_eq!(
            rig.fake.start_of(&sandbox(&id)),
            Some(Start::Boot),
            "{v}{wake}"
        );
    }
    // A running sandbox ignores the member.
    let body = json!({ "memory": false });
    rig.call("POST", &format!("/v2{path}/connect"), body)
        .await
        .expect(200);
}

#[tokio::test]
async fn auto_pause_takes_the_requested_scope() {
    let rig = Rig::new().await;
    let mut body = json!({ "templateID": "base", "timeout": 1000, "autoPause": true, "autoPauseMemory": false });
    let id = rig.create(body.clone()).await;
    body["autoPauseMemory"] = json!(true);
    let other = rig.create(body).await;
    for (id, mode, scope) in [
        (&id, "filesystem", SnapshotScope::DiskOnly),
        (&other, "full", SnapshotScope::Full),
    ] {
        rig.call(
            "POST",
            &format!("/sandboxes/{id}/timeout"),
            json!({ "timeout": 0 }),
        )
        .await
        .expect(204);
        let name = sandbox(id);
        let paused = rig
            .fake
            .wait_for(&name, |state| state == SandboxState::Paused);
        tokio::time::timeout(TIMEOUT, paused).await.unwrap();
        let detail = rig
            .poll_until(id, |reply| reply.expect(200)["pauseMode"] == mode)
            .await
            .expect(200);
        assert_eq!(detail["state"], "paused");
        assert_eq!(rig.fake.info(&sandbox(id)).await.unwrap().scope, scope);
    }
    for body in [
        json!({ "templateID": "base", "autoPauseMemory": false }),
        json!({ "templateID": "base", "autoPauseMemory": false, "autoPause": false }),
        json!({ "templateID": "base", "autoPauseMemory": false, "autoPause": true, "autoResume": { "enabled": true } }),
    ] {
        let message = rig.call("POST", "/v2/sandboxes", body).await.error(400);
        assert!(message.starts_with("autoPauseMemory"), "{message}");
    }
}

#[tokio::test]
async fn pause_scope_survives_a_crash() {
    let rig = Rig::new().await;
    let body = json!({ "templateID": "base", "autoResume": { "enabled": true } });
    let (recorded, missed) = (rig.create(body.clone()).await, rig.create(body).await);
    rig.call(
        "POST",
        &format!("/sandboxes/{recorded}/pause"),
        json!({ "memory": false }),
    )
    .await
    .expect(204);
    let (fake, dir) = rig.crash().await;
    let epoch = fake.info(&sandbox(&missed)).await.unwrap().epoch;
    fake.pause(&sandbox(&missed), epoch, SnapshotScope::DiskOnly)
        .await
        .unwrap();
    let rig = Rig::over(fake, dir).await;
    for id in [recorded, missed] {
        assert_eq!(
            rig.get(&format!("/sandboxes/{id}")).await.expect(200)["pauseMode"],
            "filesystem"
        );
        assert!(!rig.placement(&id).await.unwrap().access.auto_resume);
    }
}
