//! Rows of the specification: responses and codes of create.

use pool_api::Node;
use serde_json::{Value, json};

use crate::rig::{Rig, lifetime};

#[tokio::test]
async fn v2_create_is_secure_with_300_second_lifetime() {
    let rig = Rig::new().await;
    let body = json!({
        "templateID": " Team/Base:default ", "metadata": { "a b": "c&d" }, "envVars": { "FOO": "bar" },
        "autoPause": true, "autoResume": { "enabled": true, "odd": 1 }, "idleTimeout": 7, "unknown": [1],
        "allow_internet_access": false,
        "network": { "allowPublicTraffic": false, "maskRequestHost": "h:${PORT}", "egressProxy": { "address": "proxy.example:1080", "password": "p" } },
    });
    let created = rig.call("POST", "/v2/sandboxes", body).await.expect(201);
    assert_eq!(created["templateID"], "base");
    assert_eq!(created["clientID"], "6532622b");
    assert_eq!(created["envdVersion"], "0.6.13");
    assert_eq!(created["domain"], Value::Null);
    let (id, token) = (
        created["sandboxID"].as_str().unwrap(),
        created["envdAccessToken"].as_str().unwrap(),
    );
    let traffic = created["trafficAccessToken"].as_str().unwrap();
    assert!(token.len() == 40 && traffic.len() == 40 && token != traffic);

    let detail = rig
        .get(&format!("/sandboxes/{id}-6532622b"))
        .await
        .expect(200);
    assert_eq!(
        (&detail["state"], &detail["metadata"]),
        (&json!("running"), &json!({ "a b": "c&d" }))
    );
    assert_eq!(detail["cpuCount"], 1);
    assert_eq!(detail["memoryMB"], 256);
    assert_eq!(detail["diskSizeMB"], 1024);
    assert_eq!(
        detail["lifecycle"],
        json!({ "autoResume": true, "onTimeout": "pause" })
    );
    assert_eq!(
        (&detail["idleTimeout"], &detail["allowInternetAccess"]),
        (&json!(7), &json!(false))
    );
    assert_eq!(detail["envdAccessToken"], token);
    assert_eq!(
        detail["network"]["egressProxy"],
        json!({ "address": "proxy.example:1080" }),
        "no password"
    );
    assert_eq!(lifetime(&detail), 300_000_000);

    let access = rig.placement(id).await.unwrap().access;
    assert_eq!(access.envd_token.unwrap().expose(), token);
    assert_eq!(access.traffic_token.unwrap().expose(), traffic);
    assert_eq!(
        (access.auto_resume, access.mask_request_host.as_deref()),
        (true, Some("h:${PORT}"))
    );
}

#[tokio::test]
async fn v1_create_is_secure_on_request_with_15_second_lifetime() {
    let rig = Rig::new().await;
    let created = rig
        .call("POST", "/sandboxes", json!({ "templateID": "base" }))
        .await
        .expect(201);
    assert!(created.get("envdAccessToken").is_none());
    assert_eq!(created["trafficAccessToken"], Value::Null);
    let detail = rig
        .get(&format!(
            "/sandboxes/{}",
            created["sandboxID"].as_str().unwrap()
        ))
        .await
        .expect(200);
    assert_eq!(lifetime(&detail), 15_000_000);
    let created = rig
        .call(
            "POST",
            "/sandboxes",
            json!({ "templateID": "base", "secure": true }),
        )
        .await
        .expect(201);
    assert!(created["envdAccessToken"].is_string());
    let private = json!({ "templateID": "base", "network": { "allowPublicTraffic": false } });
    let message = rig.call("POST", "/sandboxes", private).await.error(400);
    assert!(
        message.starts_with("You cannot create a sandbox without public access unless"),
        "{message}"
    );
}

#[tokio::test]
async fn invalid_create_is_rejected_with_its_reason() {
    let rig = Rig::new().await;
    for (body, status, message) in [
        (
            json!({ "templateID": "nope" }),
            404,
            "template 'nope' not found",
        ),
        (
            json!({ "templateID": "base:v2" }),
            404,
            "tag 'v2' does not exist for template 'base'",
        ),
        (
            json!({ "templateID": "base", "timeout": 0 }),
            400,
            "Timeout must be greater than 0",
        ),
        (
            json!({ "templateID": "base", "timeout": -5 }),
            400,
            "Timeout must be greater than 0",
        ),
        (
            json!({ "templateID": "base", "timeout": i64::MAX }),
            400,
            "Timeout cannot be greater than 24 hours",
        ),
        (
            json!({ "templateID": "base", "idleTimeout": 0 }),
            400,
            "idleTimeout must be greater than 0",
        ),
    ] {
        assert_eq!(
            rig.call("POST", "/v2/sandboxes", body).await.error(status),
            message
        );
    }
    for body in [
        json!({}),
        json!({ "templateID": 7 }),
        json!({ "templateID": "../x" }),
        json!([]),
        json!("x"),
        json!({ "templateID": "base", "network": { "maskRequestHost": "a b" } }),
    ] {
        rig.call("POST", "/v2/sandboxes", body).await.error(400);
    }
    rig.fake.set_full(true);
    let message = rig
        .call("POST", "/v2/sandboxes", json!({ "templateID": "base" }))
        .await
        .error(409);
    assert!(message.contains("memory"), "{message}");
    assert!(rig.fake.list().await.is_empty());
}
