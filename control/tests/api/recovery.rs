//! Rows of the specification: ledger and host after a crash; deadlines over a restart.

use std::sync::Arc;

use control::{Config, Control};
use coordinator::Coordinator;
use pool_api::{Epoch, IfPaused, Node, Origin, SandboxSpec, Secret, SnapshotScope, fake::FakeNode};
use serde_json::{Value, json};

use crate::rig::{KEY, Rig, TIMEOUT, lifetime, sandbox};

#[tokio::test]
async fn crashed_sandbox_is_removed() {
    let rig = Rig::new().await;
    let id = rig.create(json!({ "templateID": "base" })).await;
    rig.fake.crash(&sandbox(&id));
    assert_eq!(
        rig.get(&format!("/sandboxes/{id}")).await.status,
        404,
        "before the event is applied"
    );
    let removed = async {
        while rig.placement(&id).await.is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, removed).await.unwrap();
}

fn spec(id: &str) -> SandboxSpec {
    SandboxSpec {
        id: sandbox(id),
        epoch: Epoch(1),
        origin: Origin::Template("base".parse().unwrap()),
        template: "base".parse().unwrap(),
        idle: None,
        env: std::collections::BTreeMap::new(),
        access_token: None,
    }
}

#[tokio::test]
async fn restart_reconciles_ledger_with_host() {
    let rig = Rig::new().await;
    let mut created = Vec::new();
    for _ in 0..4 {
        created.push(rig.create(json!({ "templateID": "base", "metadata": { "k": "v" }, "autoResume": { "enabled": true } })).await);
    }
    let [unchanged, paused, woken, crashed] = [0, 1, 2, 3].map(|n: usize| created[n].clone());
    rig.call("POST", &format!("/sandboxes/{woken}/pause"), Value::Null)
        .await
        .expect(204);
    let before = rig
        .get(&format!("/sandboxes/{unchanged}"))
        .await
        .expect(200);
    let (fake, dir) = rig.crash().await;

    // While control is down, one is paused, one is woken, one crashes, and one is created without a record.
    fake.pause(&sandbox(&paused), Epoch(1), SnapshotScope::Full)
        .await
        .unwrap();
    drop(fake.enter(&sandbox(&woken), IfPaused::Wake).await.unwrap());
    fake.crash(&sandbox(&crashed));
    fake.create(spec("iorphan")).await.unwrap();

    let rig = Rig::over(fake, dir).await;
    assert_eq!(
        rig.get(&format!("/sandboxes/{unchanged}"))
            .await
            .expect(200),
        before,
        "same times and tokens"
    );
    assert_eq!(
        rig.get(&format!("/sandboxes/{paused}")).await.expect(200)["state"],
        "paused"
    );
    let detail = rig.get(&format!("/sandboxes/{woken}")).await.expect(200);
    assert_eq!(
        (&detail["state"], detail["metadata"]["k"].as_str()),
        (&json!("running"), Some("v"))
    );
    assert_eq!(lifetime(&detail), 300_000_000);
    rig.get(&format!("/sandboxes/{crashed}")).await.error(404);
    assert!(rig.fake.info(&sandbox("iorphan")).await.is_none());
    for (id, recorded) in [
        (&unchanged, true),
        (&paused, true),
        (&woken, true),
        (&crashed, false),
    ] {
        assert_eq!(rig.placement(id).await.is_some(), recorded);
    }
    assert!(rig.placement(&unchanged).await.unwrap().access.auto_resume);
}

#[tokio::test]
async fn restart_accepts_lower_epoch_of_host() {
    let rig = Rig::new().await;
    let create = json!({ "templateID": "base", "autoResume": { "enabled": true } });
    let running = rig.create(create.clone()).await;
    let paused = rig.create(create).await;
    for id in [&running, &paused] {
        for _ in 0..2 {
            let path = format!("/sandboxes/{id}");
            rig.call("POST", &format!("{path}/pause"), Value::Null)
                .await
                .expect(204);
            rig.call("POST", &format!("{path}/resume"), json!({}))
                .await
                .expect(201);
        }
    }
    let body = json!({ "memory": false });
    rig.call("POST", &format!("/sandboxes/{paused}/pause"), body)
        .await
        .expect(204);
    let (_, dir) = rig.crash().await;

    // The host recovers both from their first pause.
    let fake = FakeNode::with_templates(&["base"]);
    for id in [&running, &paused] {
        fake.create(spec(id)).await.unwrap();
        fake.pause(&sandbox(id), Epoch(1), SnapshotScope::Full)
            .await
            .unwrap();
    }
    let rig = Rig::over(fake, dir).await;
    for id in [&running, &paused] {
        let path = format!("/sandboxes/{id}");
        assert_eq!(rig.get(&path).await.expect(200)["state"], "paused");
        let placement = rig.placement(id).await.unwrap();
        assert_eq!(placement.epoch, Epoch(1));
        assert!(placement.access.auto_resume, "the snapshot contains memory");
        rig.call("POST", &format!("{path}/resume"), json!({ "timeout": 77 }))
            .await
            .expect(201);
        assert_eq!(rig.placement(id).await.unwrap().epoch, Epoch(2));
        let detail = rig.get(&path).await.expect(200);
        assert_eq!(
            (&detail["state"], lifetime(&detail)),
            (&json!("running"), 77_000_000)
        );
    }
}

#[tokio::test]
async fn deadline_survives_a_crash() {
    let rig = Rig::new().await;
    let id = rig
        .create(json!({ "templateID": "base", "timeout": 1 }))
        .await;
    let (fake, dir) = rig.crash().await;
    let rig = Rig::over(fake, dir).await;
    rig.poll_until(&id, |reply| reply.status == 404).await;
    assert!(rig.fake.info(&sandbox(&id)).await.is_none());
}

#[tokio::test]
async fn sandbox_paused_by_host_shutdown_keeps_its_deadline() {
    let rig = Rig::new().await;
    let create = async |body: Value| rig.create(body).await;
    let kill = create(json!({ "templateID": "base", "timeout": 3 })).await;
    let pause = create(json!({ "templateID": "base", "timeout": 3, "autoPause": true })).await;
    let requested = create(json!({ "templateID": "base", "timeout": 3 })).await;
    let before = rig.get(&format!("/sandboxes/{kill}")).await.expect(200);
    let (fake, dir) = rig.crash().await;
    // As the host does when it shuts down.
    for id in [&kill, &pause, &requested] {
        fake.pause(&sandbox(id), Epoch(1), SnapshotScope::Full)
            .await
            .unwrap();
    }
    let rig = Rig::over(fake, dir).await;
    let detail = rig.get(&format!("/sandboxes/{kill}")).await.expect(200);
    assert_eq!(
        (&detail["state"], &detail["endAt"]),
        (&json!("paused"), &before["endAt"]),
        "the deadline stays"
    );
    // A pause request clears the deadline, although the sandbox is already paused.
    rig.call(
        "POST",
        &format!("/sandboxes/{requested}/pause"),
        Value::Null,
    )
    .await
    .error(409);
    rig.poll_until(&kill, |reply| reply.status == 404).await;
    for id in [pause, requested] {
        let detail = rig.get(&format!("/sandboxes/{id}")).await.expect(200);
        assert_eq!(detail["state"], "paused");
        let end_at = detail["endAt"].as_str();
        assert!(end_at < before["endAt"].as_str(), "the time of the pause");
    }
}

#[tokio::test]
async fn invalid_ledger_error_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.db");
    std::fs::write(
        &path,
        "this is not a database, it only looks long enough to be one".repeat(100),
    )
    .unwrap();
    let config = Config::new(path.clone(), Secret::new(KEY), "n1".parse().unwrap());
    let fake = FakeNode::default();
    let error = Control::start(config, Arc::new(fake), Arc::new(Coordinator::default()))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
}
