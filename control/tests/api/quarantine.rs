//! Ledgers that do not know the sandboxes of their host. Specification: "Nothing is lost".

use std::fs;

use pool_api::{Broken, BrokenObject, Node, SnapshotScope};
use serde_json::{Value, json};

use crate::rig::{Rig, sandbox};

/// Creates a paused sandbox.
async fn paused(rig: &Rig, metadata: Value) -> String {
    let body = json!({ "templateID": "base", "metadata": metadata });
    let id = rig.create(body).await;
    let path = format!("/sandboxes/{id}/pause");
    rig.call("POST", &path, Value::Null).await.expect(204);
    id
}

async fn quarantined(rig: &Rig) -> Vec<String> {
    let listed = rig.get("/catnap/v1/quarantine").await.expect(200);
    let ids = listed.as_array().unwrap().iter();
    ids.map(|entry| entry["id"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn missing_ledger_removes_nothing_and_is_rebuilt() {
    let rig = Rig::new().await;
    let id = paused(&rig, json!({})).await;
    let origin = rig.create(json!({ "templateID": "base" })).await;
    let path = format!("/sandboxes/{origin}/snapshots");
    rig.call("POST", &path, json!({ "name": "saved" }))
        .await
        .expect(201);
    let retained = rig.fake.retained_snapshots().await;
    let (fake, dir) = rig.crash().await;
    fake.kill(&sandbox(&origin)).await.unwrap();
    for file in ["control.db", "control.db-wal", "control.db-shm"] {
        // The last two may not exist.
        drop(fs::remove_file(dir.path().join(file)));
    }

    let rig = Rig::over(fake, dir).await;
    assert_eq!(rig.get("/v2/sandboxes").await.expect(200), json!([]));
    rig.get(&format!("/sandboxes/{id}")).await.error(404);
    assert_eq!(rig.fake.retained_snapshots().await, retained);
    assert_eq!(
        quarantined(&rig).await,
        [id.clone(), retained[0].to_string()]
    );

    let restore = format!("/catnap/v1/quarantine/{id}/restore");
    let found = rig.call("POST", &restore, Value::Null).await.expect(200);
    assert_eq!(found["id"], *id);
    let detail = rig.get(&format!("/sandboxes/{id}")).await.expect(200);
    assert_eq!(detail["state"], "paused");
    assert_eq!(detail["lifecycle"]["autoResume"], false);
    assert_eq!(detail["network"]["allowPublicTraffic"], false);
    let access = rig.coordinator.locate(&sandbox(&id)).unwrap().access;
    assert!(access.traffic_token.is_some() && access.envd_token.is_some());
    let resume = format!("/sandboxes/{id}/resume");
    rig.call("POST", &resume, json!({ "timeout": 60 }))
        .await
        .expect(201);

    let restore = format!("/catnap/v1/quarantine/{}/restore", retained[0]);
    let found = rig.call("POST", &restore, Value::Null).await.expect(200);
    let template = found["id"].as_str().unwrap();
    rig.create(json!({ "templateID": template })).await;
    assert_eq!(quarantined(&rig).await, Vec::<String>::new());
    rig.call("POST", &restore, Value::Null).await.error(404);
}

#[tokio::test]
async fn restored_backup_and_foreign_ledger_remove_nothing() {
    let rig = Rig::new().await;
    let own = paused(&rig, json!({})).await;
    let (fake, dir) = rig.crash().await;
    let rig = Rig::over(fake, dir).await;
    let later = paused(&rig, json!({})).await;
    let (fake, dir) = rig.crash().await;
    // The identity of the directory says that the ledger is of an earlier start, or of another directory.
    let identity = dir.path().join("identity.json");
    let mut value: Value = serde_json::from_slice(&fs::read(&identity).unwrap()).unwrap();
    value["generation"] = json!(99);
    fs::write(&identity, value.to_string()).unwrap();
    let rig = Rig::over(fake, dir).await;
    let names = fs::read_dir(rig.dir.path()).unwrap();
    let copies = names.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with("control.db.before-100-")
    });
    assert_eq!(copies.count(), 1);
    for id in [&own, &later] {
        rig.get(&format!("/sandboxes/{id}")).await.expect(200);
    }
    let (fake, dir) = rig.crash().await;
    value["id"] = json!("another");
    value["generation"] = json!(200);
    fs::write(dir.path().join("identity.json"), value.to_string()).unwrap();
    let rig = Rig::over(fake, dir).await;
    for id in [&own, &later] {
        rig.get(&format!("/sandboxes/{id}")).await.expect(200);
    }
}

#[tokio::test]
async fn quarantined_sandbox_is_discarded_on_request() {
    let rig = Rig::new().await;
    let id = paused(&rig, json!({})).await;
    let (fake, dir) = rig.crash().await;
    fs::remove_file(dir.path().join("control.db")).unwrap();
    let rig = Rig::over(fake, dir).await;
    let path = format!("/catnap/v1/quarantine/{id}");
    rig.call("DELETE", &path, Value::Null).await.expect(204);
    assert!(rig.fake.info(&sandbox(&id)).await.is_none());
    rig.call("DELETE", &path, Value::Null).await.error(404);
}

#[tokio::test]
async fn broken_sandbox_is_listed_with_its_reason() {
    let rig = Rig::new().await;
    let id = paused(&rig, json!({ "a": "b" })).await;
    let (fake, dir) = rig.crash().await;
    fake.set_broken(vec![Broken {
        object: BrokenObject::Sandbox(sandbox(&id)),
        reason: "failed to read the record".to_owned(),
    }]);
    // The host does not list what it cannot read.
    fake.kill(&sandbox(&id)).await.unwrap();
    let rig = Rig::over(fake, dir).await;
    let listed = rig.get("/v2/sandboxes?metadata=a%3Db").await.expect(200);
    assert_eq!(listed[0]["sandboxID"], *id);
    assert_eq!(listed[0]["state"], "paused");
    assert_eq!(listed[0]["lastError"], "failed to read the record");
}

#[tokio::test]
async fn sandbox_that_recovers_at_the_start_keeps_its_record() {
    let rig = Rig::new().await;
    let id = paused(&rig, json!({ "a": "b" })).await;
    let (fake, dir) = rig.crash().await;
    fake.recover_at_next_look(sandbox(&id));
    let rig = Rig::over(fake, dir).await;
    let listed = rig.get("/v2/sandboxes?metadata=a%3Db").await.expect(200);
    assert_eq!(listed[0]["sandboxID"], *id);
    // The same between a look at one sandbox and the look at broken ones.
    rig.fake.recover_at_next_look(sandbox(&id));
    let path = format!("/sandboxes/{id}");
    assert_eq!(rig.get(&path).await.expect(200)["sandboxID"], *id);
}

#[tokio::test]
async fn disk_only_snapshot_keeps_its_scope_in_quarantine() {
    let rig = Rig::new().await;
    let origin = rig.create(json!({ "templateID": "base" })).await;
    let (fake, dir) = rig.crash().await;
    let taken = fake
        .snapshot(&sandbox(&origin), SnapshotScope::DiskOnly)
        .await;
    let taken = taken.unwrap();
    let rig = Rig::over(fake, dir).await;
    assert_eq!(quarantined(&rig).await, [taken.id.to_string()]);
    let described = rig.fake.retained_snapshot(&taken.id).await.unwrap();
    assert_eq!(described.scope, SnapshotScope::DiskOnly);
}
