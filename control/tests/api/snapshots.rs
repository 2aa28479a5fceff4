//! Rows of the specification: references to snapshots; snapshots after a crash.

use pool_api::{Node, Origin, SnapshotScope, Start};
use serde_json::{Value, json};

use crate::rig::{Rig, missing, sandbox};

async fn take(rig: &Rig, id: &str, body: Value) -> Value {
    rig.call("POST", &format!("/sandboxes/{id}/snapshots"), body)
        .await
        .expect(201)
}

fn id_of(snapshot: &Value) -> &str {
    snapshot["snapshotID"].as_str().unwrap()
}

/// Encodes a path segment as clients do.
fn segment(text: &str) -> String {
    text.replace('/', "%2F").replace(':', "%3A")
}

async fn delete(rig: &Rig, reference: &str) -> u16 {
    let path = format!("/templates/{}", segment(reference));
    rig.call("DELETE", &path, Value::Null).await.status
}

#[tokio::test]
async fn unnamed_snapshot_outlives_its_sandbox() {
    let rig = Rig::new().await;
    let origin = rig.create(json!({ "templateID": "base" })).await;
    let before = rig.get(&format!("/sandboxes/{origin}")).await.expect(200);
    let taken = take(&rig, &origin, Value::Null).await;
    let (template, tag) = id_of(&taken).split_once(':').unwrap();
    assert_eq!((tag, &taken["names"]), ("default", &json!([])));
    assert_eq!(
        rig.get(&format!("/sandboxes/{origin}")).await.expect(200),
        before,
        "it runs on with the same deadline"
    );
    rig.call("DELETE", &format!("/sandboxes/{origin}"), Value::Null)
        .await
        .expect(204);

    for reference in [
        id_of(&taken).to_owned(),
        template.to_owned(),
        format!(" {} ", template.to_uppercase()),
        format!("catnap/{template}"),
    ] {
        let created = rig
            .call("POST", "/v2/sandboxes", json!({ "templateID": reference }))
            .await
            .expect(201);
        assert_eq!(created["templateID"], template, "{reference}");
        assert!(created.get("alias").is_none());
        let id = sandbox(created["sandboxID"].as_str().unwrap());
        let spec = rig.fake.spec_of(&id).unwrap();
        let retained = rig.fake.retained_snapshots().await;
        assert!(matches!(&spec.origin, Origin::Snapshot(id) if retained == [id.clone()]));
        assert_eq!(spec.template.as_str(), template);
        assert_eq!(rig.fake.start_of(&id), Some(Start::Fork));
    }
    let listed = rig
        .get(&format!("/v2/sandboxes?template={template}"))
        .await
        .expect(200);
    assert_eq!(listed.as_array().unwrap().len(), 4);

    assert_eq!(delete(&rig, id_of(&taken)).await, 204);
    rig.wait_for_retained(0).await;
    assert_eq!(
        delete(&rig, id_of(&taken)).await,
        404,
        "the second deletion"
    );
    let body = json!({ "templateID": template });
    let deleted = rig.call("POST", "/v2/sandboxes", body).await.error(404);
    assert_eq!(deleted, format!("template '{template}' not found"));
    let listed = rig
        .get(&format!("/v2/sandboxes?template={template}"))
        .await
        .expect(200);
    assert_eq!(
        listed.as_array().unwrap().len(),
        4,
        "sandboxes outlive their template"
    );
}

#[tokio::test]
async fn snapshot_names_omit_only_the_default_tag() {
    let rig = Rig::new().await;
    let origin = rig.create(json!({ "templateID": "base" })).await;
    for (name, names) in [("n1:v9", "catnap/n1:v9"), ("n1:default", "catnap/n1")] {
        let taken = take(&rig, &origin, json!({ "name": name })).await;
        let expected = json!({ "snapshotID": format!("catnap/{name}"), "names": [names] });
        assert_eq!(taken, expected);
    }
}

#[tokio::test]
async fn snapshot_of_the_same_name_replaces_the_build() {
    let rig = Rig::new().await;
    let origin = rig.create(json!({ "templateID": "base" })).await;
    let first = take(&rig, &origin, json!({ "name": "N1" })).await;
    assert_eq!(
        first,
        json!({ "snapshotID": "catnap/n1:default", "names": ["catnap/n1"] })
    );
    let old = rig.fake.retained_snapshots().await;
    let second = take(&rig, &origin, json!({ "name": "catnap/n1" })).await;
    assert_eq!(second, first);
    rig.wait_for_retained(1).await;
    let new = rig.fake.retained_snapshots().await;
    assert_ne!(new, old, "the old snapshot is released");
    for reference in ["n1", "catnap/n1", "n1:default", " Catnap/N1:Default"] {
        let created = rig
            .call("POST", "/sandboxes", json!({ "templateID": reference }))
            .await
            .expect(201);
        assert_eq!(created["alias"], "n1");
        let id = sandbox(created["sandboxID"].as_str().unwrap());
        let spec = rig.fake.spec_of(&id).unwrap();
        assert!(matches!(spec.origin, Origin::Snapshot(id) if id == new[0]));
    }
    for (reference, message) in [
        ("n1:v2", "tag 'v2' does not exist for template 'n1'"),
        ("other/n1", "template 'n1' not found"),
    ] {
        let body = json!({ "templateID": reference });
        assert_eq!(
            rig.call("POST", "/v2/sandboxes", body).await.error(404),
            message
        );
    }
    assert_eq!(delete(&rig, "catnap/n1:default").await, 204);
    rig.wait_for_retained(0).await;
    assert_eq!(delete(&rig, "n1").await, 404);
}

#[tokio::test]
async fn tagged_build_keeps_its_snapshot() {
    let rig = Rig::new().await;
    let origin = rig.create(json!({ "templateID": "base" })).await;
    let path = format!("/sandboxes/{origin}/snapshots");
    let tagged = take(&rig, &origin, json!({ "name": "n:v1" })).await;
    assert_eq!(id_of(&tagged), "catnap/n:v1");
    take(&rig, &origin, json!({ "name": "n" })).await;
    take(&rig, &origin, json!({ "name": "n" })).await;
    rig.wait_for_retained(2).await;
    // A `/` that is not encoded.
    rig.call("DELETE", "/templates/catnap/n:v1", Value::Null)
        .await
        .expect(204);
    rig.wait_for_retained(1).await;
    assert_eq!(delete(&rig, "n").await, 204);
    rig.wait_for_retained(0).await;

    rig.fake.add_template("mine".parse().unwrap());
    for name in ["a b", "other/n", "base", "mine", "n:", "a/b/c", "ä"] {
        let body = json!({ "name": name });
        rig.call("POST", &path, body).await.error(400);
    }
    rig.wait_for_retained(0).await;
    take(&rig, &origin, json!({ "name": "taken" })).await;
    let taken = rig.call("POST", "/templates/taken/build", Value::Null);
    taken.await.error(409);
}

#[tokio::test]
async fn shared_snapshot_is_released_with_its_last_name() {
    let rig = Rig::new().await;
    let origin = rig.create(json!({ "templateID": "base" })).await;
    rig.call("POST", &format!("/sandboxes/{origin}/pause"), Value::Null)
        .await
        .expect(204);
    take(&rig, &origin, json!({ "name": "one" })).await;
    take(&rig, &origin, json!({ "name": "two" })).await;
    assert_eq!(
        rig.fake.retained_snapshots().await.len(),
        1,
        "both names reference one snapshot"
    );
    assert_eq!(delete(&rig, "one").await, 204);
    let third = rig.create(json!({ "templateID": "base" })).await;
    take(&rig, &third, json!({ "name": "three" })).await;
    assert_eq!(delete(&rig, "three").await, 204);
    // Releases run in order, so that of the first name has been decided.
    rig.wait_for_retained(1).await;
    rig.create(json!({ "templateID": "two" })).await;
    assert_eq!(delete(&rig, "two").await, 204);
    rig.wait_for_retained(0).await;
}

/// Takes snapshots of two sandboxes. Returns the id of the first one and the snapshots, newest first.
async fn take_six(rig: &Rig) -> (String, Vec<Value>) {
    let (one, two) = (
        rig.create(json!({ "templateID": "base" })).await,
        rig.create(json!({ "templateID": "base" })).await,
    );
    let mut taken = Vec::new();
    for number in 0..5 {
        let origin = if number % 2 == 0 { &one } else { &two };
        taken.push(take(rig, origin, json!({ "name": format!("n{number}") })).await);
    }
    taken.push(take(rig, &two, json!({ "name": "n4:old" })).await);
    taken.reverse();
    (one, taken)
}

#[tokio::test]
async fn snapshot_list_is_paged_newest_first() {
    let rig = Rig::new().await;
    let (_, taken) = take_six(&rig).await;
    let (mut listed, mut from) = (Vec::new(), String::new());
    for page in 0..3 {
        let reply = rig.get(&format!("/snapshots?limit=2{from}")).await;
        listed.extend(reply.expect(200).as_array().unwrap().clone());
        let next = reply.headers.get("x-next-token");
        assert_eq!(
            next.is_some(),
            page < 2,
            "a token on every page but the last"
        );
        from = next.map_or(String::new(), |token| {
            format!("&nextToken={}", token.to_str().unwrap())
        });
    }
    assert_eq!(listed, taken);
}

#[tokio::test]
async fn snapshot_list_is_filtered_by_sandbox_and_name() {
    let rig = Rig::new().await;
    let (one, _) = take_six(&rig).await;
    let list = async |query: &str| {
        let listed = rig.get(&format!("/snapshots?{query}")).await.expect(200);
        let listed = listed.as_array().unwrap().iter();
        listed
            .map(|snapshot| id_of(snapshot).to_owned())
            .collect::<Vec<_>>()
    };
    let expected = [
        "catnap/n4:default",
        "catnap/n2:default",
        "catnap/n0:default",
    ];
    assert_eq!(list(&format!("sandboxID={one}-6532622b")).await, expected);
    assert_eq!(list("name=n3").await, ["catnap/n3:default"]);
    assert_eq!(list("name=catnap/N3:default").await, ["catnap/n3:default"]);
    assert_eq!(
        list("name=n4").await,
        ["catnap/n4:old", "catnap/n4:default"]
    );
    assert_eq!(list("name=n4:old").await, ["catnap/n4:old"]);
    for none in [
        "name=unknown",
        "name=base",
        "name=n4:odd",
        "sandboxID=iunknown",
    ] {
        assert_eq!(list(none).await, [""; 0], "{none}");
    }
    for invalid in [
        "limit=0",
        "limit=101",
        "nextToken=x",
        "name=a%20b",
        "sandboxID=a_b",
    ] {
        rig.get(&format!("/snapshots?{invalid}")).await.error(400);
    }
}

#[tokio::test]
async fn sandbox_from_a_disk_only_snapshot_boots() {
    let rig = Rig::new().await;
    let origin = rig.create(json!({ "templateID": "base" })).await;
    let taken = take(&rig, &origin, json!({ "memory": false, "name": "disk" })).await;
    let id = rig.create(json!({ "templateID": id_of(&taken) })).await;
    assert_eq!(rig.fake.start_of(&sandbox(&id)), Some(Start::Boot));
}

#[tokio::test]
async fn failed_snapshot_is_not_listed() {
    let rig = Rig::new().await;
    let origin = rig.create(json!({ "templateID": "base" })).await;
    let path = format!("/sandboxes/{origin}/snapshots");
    rig.fake.set_snapshot_fails(true);
    let reply = rig.call("POST", &path, json!({ "name": "n" })).await;
    reply.error(500);
    assert_eq!(reply.headers["should-retry"], "false");
    rig.fake.set_snapshot_fails(false);
    assert_eq!(rig.get("/snapshots").await.expect(200), json!([]));
    rig.fake
        .set_state(&sandbox(&origin), pool_api::SandboxState::Pausing);
    rig.call("POST", &path, Value::Null).await.error(409);
    let unknown = rig.call("POST", "/sandboxes/iunknown/snapshots", Value::Null);
    assert_eq!(unknown.await.error(404), missing("iunknown"));
}

#[tokio::test]
async fn crash_neither_loses_nor_leaks_snapshots() {
    let rig = Rig::new().await;
    let origin = rig.create(json!({ "templateID": "base" })).await;
    let snapshot = take(&rig, &origin, json!({ "name": "saved" })).await;
    let referenced = rig.fake.retained_snapshots().await;
    take(&rig, &origin, json!({ "name": "gone" })).await;
    // A crash between the removal of the reference and the release of the snapshot.
    rig.fake.set_release_fails(true);
    assert_eq!(delete(&rig, "gone").await, 204);
    let (fake, dir) = rig.crash().await;
    // A crash between a snapshot and its reference.
    let orphan = fake
        .snapshot(&sandbox(&origin), SnapshotScope::Full)
        .await
        .unwrap();
    assert_eq!(fake.retained_snapshots().await.len(), 3);
    fake.set_release_fails(false);

    let rig = Rig::over(fake, dir).await;
    let retained = rig.fake.retained_snapshots().await;
    // The snapshot without a reference is in quarantine; the other one is released before requests are served.
    assert_eq!(
        retained,
        [referenced.clone(), vec![orphan.id.clone()]].concat()
    );
    let quarantined = rig.get("/catnap/v1/quarantine").await.expect(200);
    assert_eq!(quarantined[0]["kind"], "snapshot");
    assert_eq!(quarantined[0]["id"], orphan.id.as_str());
    let path = format!("/catnap/v1/quarantine/{}", orphan.id);
    rig.call("DELETE", &path, serde_json::Value::Null)
        .await
        .expect(204);
    assert_eq!(rig.fake.retained_snapshots().await, referenced);
    let listed = rig.get("/snapshots").await.expect(200);
    assert_eq!(listed, json!([snapshot]));
    rig.create(json!({ "templateID": "saved" })).await;

    // The record stays if the host has lost the snapshot: the loss may be temporary.
    let (fake, dir) = rig.crash().await;
    fake.release_snapshot(&referenced[0]).await.unwrap();
    let rig = Rig::over(fake, dir).await;
    assert_eq!(rig.get("/snapshots").await.expect(200), json!([snapshot]));
    let body = json!({ "templateID": "saved" });
    let lost = rig.call("POST", "/v2/sandboxes", body).await.error(404);
    assert_eq!(lost, "template 'saved' not found");
}
