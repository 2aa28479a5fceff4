//! Rows of the specification: references to snapshots by name and tag.

use pool_api::Origin;
use serde_json::{Value, json};

use crate::rig::{Reply, Rig, sandbox};

async fn tag(rig: &Rig, target: &str, tags: Value) -> Reply {
    let body = json!({ "target": target, "tags": tags });
    rig.call("POST", "/templates/tags", body).await
}

async fn untag(rig: &Rig, name: &str, tags: Value) -> Reply {
    let body = json!({ "name": name, "tags": tags });
    rig.call("DELETE", "/templates/tags", body).await
}

async fn tags(rig: &Rig, name: &str) -> Vec<(String, String)> {
    let listed = rig
        .get(&format!("/templates/{name}/tags"))
        .await
        .expect(200);
    let text = |tag: &Value, name: &str| tag[name].as_str().unwrap().to_owned();
    let detail = listed.as_array().unwrap().iter();
    detail
        .map(|tag| {
            assert!(text(tag, "createdAt").ends_with('Z'));
            (text(tag, "tag"), text(tag, "buildID"))
        })
        .collect()
}

fn is_uuid(text: &str) -> bool {
    let parts: Vec<usize> = text.split('-').map(str::len).collect();
    parts == [8, 4, 4, 4, 12]
}

async fn snapshot(rig: &Rig, name: &str) -> String {
    let id = rig.create(json!({ "templateID": "base" })).await;
    let path = format!("/sandboxes/{id}/snapshots");
    rig.call("POST", &path, json!({ "name": name }))
        .await
        .expect(201);
    id
}

#[tokio::test]
async fn only_templates_of_the_host_are_built() {
    let rig = Rig::new().await;
    rig.fake.add_template("mine".parse().unwrap());
    rig.fake.add_template("no-kernel".parse().unwrap());
    let built = rig
        .call("POST", "/templates/mine/build", Value::Null)
        .await
        .expect(200);
    assert_eq!(
        (&built["templateID"], &built["buildStatus"]),
        (&json!("mine"), &json!("ready"))
    );
    let names = rig.get("/templates").await.expect(200);
    rig.call("POST", "/templates/other/build", Value::Null)
        .await
        .error(404);
    assert_eq!(rig.get("/templates").await.expect(200), names);
    let message = rig
        .call("POST", "/templates/no-kernel/build", Value::Null)
        .await
        .error(404);
    assert!(
        message.contains("no-kernel") && message.contains("vmlinux is missing"),
        "{message}"
    );
    rig.call("POST", "/templates/A%2F/build", Value::Null)
        .await
        .error(400);
    let names = rig.get("/templates").await.expect(200);
    let names: Vec<&str> = names
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["templateID"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["base", "mine", "no-kernel"]);
    rig.create(json!({ "templateID": "mine" })).await;
}

#[tokio::test]
async fn builds_stay_while_they_are_tagged() {
    let rig = Rig::new().await;
    snapshot(&rig, "n").await;
    let given = tag(&rig, "n:default", json!(["v1", " Stable ", "v1"]))
        .await
        .expect(201);
    assert_eq!(given["tags"], json!(["stable", "v1"]));
    let first = given["buildID"].as_str().unwrap().to_owned();
    assert!(is_uuid(&first), "{first}");
    snapshot(&rig, "n").await;
    rig.wait_for_retained(2).await;
    let detail = tags(&rig, "catnap%2Fn").await;
    assert_eq!(
        detail[1..],
        [
            ("stable".to_owned(), first.clone()),
            ("v1".to_owned(), first)
        ]
    );
    assert_ne!(detail[0].1, detail[1].1);
    // A tag that moves leaves the build to its other tags. A build without a tag is deleted.
    tag(&rig, "n", json!(["v1"])).await.expect(201);
    rig.wait_for_retained(2).await;
    untag(&rig, "n", json!(["stable"])).await.expect(204);
    rig.wait_for_retained(1).await;
    assert_eq!(tags(&rig, "n").await.len(), 2);
    assert_eq!(
        untag(&rig, "n", json!(["v1", "default"])).await.error(400),
        "the default tag cannot be deleted"
    );
    let message = untag(&rig, "n", json!(["v1", "odd"])).await.error(404);
    assert_eq!(message, "tag 'odd' does not exist for template 'n'");
    assert_eq!(tags(&rig, "n").await.len(), 2, "all or none are removed");
    for (target, given, status) in [
        ("n", json!([]), 400),
        ("n", json!(["a b"]), 400),
        ("n", json!("v1"), 400),
        ("a b", json!(["v1"]), 400),
        ("n:odd", json!(["v1"]), 404),
        ("odd", json!(["v1"]), 404),
    ] {
        tag(&rig, target, given).await.error(status);
    }
    untag(&rig, "odd", json!(["v1"])).await.error(404);
}

#[tokio::test]
async fn host_template_can_be_tagged_but_not_deleted() {
    let rig = Rig::new().await;
    assert_eq!(tags(&rig, "base").await[0].0, "default");
    let given = tag(&rig, "base", json!(["v1"])).await.expect(201);
    let build = given["buildID"].as_str().unwrap();
    assert!(is_uuid(build), "{build}");
    assert_eq!(
        tags(&rig, "base").await[1],
        ("v1".to_owned(), build.to_owned())
    );
    let id = rig.create(json!({ "templateID": "base:v1" })).await;
    let spec = rig.fake.spec_of(&sandbox(&id)).unwrap();
    assert!(matches!(spec.origin, Origin::Template(name) if name.as_str() == "base"));
    tag(&rig, "base", json!(["default"])).await.error(400);
    for path in ["/templates/base", "/templates/base%3Adefault"] {
        let message = rig.call("DELETE", path, Value::Null).await.error(400);
        assert!(message.contains("belongs to the host"), "{message}");
    }
    rig.call("DELETE", "/templates/base:v1", Value::Null)
        .await
        .expect(204);
    rig.call("DELETE", "/templates/base:v1", Value::Null)
        .await
        .error(404);
    assert_eq!(tags(&rig, "base").await.len(), 1);
    for path in [
        "/templates/odd",
        "/templates/odd%2Fbase2",
        "/templates/odd:v1",
    ] {
        rig.call("DELETE", path, Value::Null).await.error(404);
    }
    rig.call("DELETE", "/templates/a%20b", Value::Null)
        .await
        .error(400);
}

#[tokio::test]
async fn alias_lookup_resolves_names_and_tags() {
    let rig = Rig::new().await;
    snapshot(&rig, "n").await;
    for alias in ["base", "base:default", "team%2Fbase"] {
        let detail = rig
            .get(&format!("/templates/aliases/{alias}"))
            .await
            .expect(200);
        assert_eq!(
            detail,
            json!({ "templateID": "base", "public": true }),
            "{alias}"
        );
    }
    let detail = rig
        .get("/templates/aliases/catnap%2Fn%3Adefault")
        .await
        .expect(200);
    assert_eq!(detail["public"], false);
    for (alias, status) in [
        ("odd", 404),
        ("n:odd", 404),
        ("other%2Fn", 404),
        ("a%20b", 400),
    ] {
        rig.get(&format!("/templates/aliases/{alias}"))
            .await
            .error(status);
    }
    let published = rig
        .call("PATCH", "/v2/templates/n", json!({ "public": true }))
        .await
        .expect(200);
    assert_eq!(published, json!({ "names": ["catnap/n"] }));
    assert_eq!(
        rig.get("/templates/aliases/n").await.expect(200)["public"],
        true
    );
    rig.call("PATCH", "/templates/base", json!({ "public": false }))
        .await
        .error(400);
}

#[tokio::test]
async fn template_can_be_renamed() {
    let rig = Rig::new().await;
    snapshot(&rig, "n").await;
    let detail = rig.get("/templates/aliases/n").await.expect(200);
    let id = detail["templateID"].as_str().unwrap().to_owned();
    let put = async |of: &str, alias: Value| {
        let body = json!({ "alias": alias });
        rig.call("PUT", &format!("/templates/{of}/alias"), body)
            .await
    };
    let detail = put(&id, json!("other-n")).await.expect(200);
    assert_eq!(
        (&detail["templateID"], &detail["aliases"]),
        (&json!(id), &json!(["other-n"]))
    );
    rig.create(json!({ "templateID": "other-n" })).await;
    rig.get("/templates/aliases/n").await.error(404);
    assert_eq!(
        put("base", json!("ground")).await.expect(200)["aliases"],
        json!(["base", "ground"])
    );
    let created = rig
        .call("POST", "/sandboxes", json!({ "templateID": "ground" }))
        .await
        .expect(201);
    assert_eq!(created["templateID"], "base");
    for taken in ["base", "ground", id.as_str()] {
        put("other-n", json!(taken)).await.error(409);
    }
    for invalid in ["-a", "A", "tpl-a", "snap-a", "a_b", &"a".repeat(65)] {
        put("other-n", json!(invalid)).await.error(400);
    }
    put("odd", json!("x")).await.error(404);
    assert_eq!(
        put("other-n", json!("")).await.expect(200)["aliases"],
        json!([])
    );
    rig.get("/templates/aliases/other-n").await.error(404);
    rig.create(json!({ "templateID": id })).await;
    // The name belongs to the host's template, so no snapshot can have it.
    let origin = rig.create(json!({ "templateID": "base" })).await;
    let body = json!({ "name": "ground" });
    let path = format!("/sandboxes/{origin}/snapshots");
    rig.call("POST", &path, body).await.error(409);
    rig.wait_for_retained(1).await;
}

#[tokio::test]
async fn template_has_every_member_that_clients_require() {
    let rig = Rig::new().await;
    snapshot(&rig, "n").await;
    for path in ["/templates/base", "/templates/n", "/templates/catnap/n"] {
        let detail = rig.get(path).await.expect(200);
        for name in [
            "templateID",
            "buildID",
            "cpuCount",
            "memoryMB",
            "diskSizeMB",
            "public",
            "aliases",
            "names",
            "createdAt",
            "updatedAt",
            "createdBy",
            "lastSpawnedAt",
            "spawnCount",
            "buildCount",
            "envdVersion",
            "buildStatus",
            "builds",
            "status",
        ] {
            assert!(detail.get(name).is_some(), "{path} {name}");
        }
        assert!(is_uuid(detail["buildID"].as_str().unwrap()));
        for name in [
            "buildID",
            "status",
            "createdAt",
            "updatedAt",
            "cpuCount",
            "memoryMB",
        ] {
            assert!(detail["builds"][0].get(name).is_some(), "{path} {name}");
        }
        assert_eq!(detail["memoryMB"], 256);
    }
    rig.get("/templates/odd").await.error(404);
    for path in ["/templates", "/v2/templates"] {
        let listed = rig.get(path).await.expect(200);
        assert_eq!(
            listed.as_array().unwrap().len(),
            1,
            "templates created of snapshots are not listed"
        );
        assert_eq!(listed[0]["templateID"], "base");
    }
}
