//! What is made, and what cannot be.

use pool_api::Node;
use serde_json::{Value, json};

use crate::rig::{Rig, lifetime};

#[tokio::test]
async fn a_second_generation_sandbox_is_secured_and_lives_300_seconds() {
    let rig = Rig::new().await;
    let body = json!({
        "templateID": " Team/Base:default ", "metadata": { "a b": "c&d" }, "envVars": { "FOO": "bar" },
        "autoPause": true, "autoResume": { "enabled": true, "odd": 1 }, "idleTimeout": 7, "unknown": [1],
        "allow_internet_access": false,
        "network": { "allowPublicTraffic": false, "maskRequestHost": "h:${PORT}", "egressProxy": { "address": "proxy.example:1080", "password": "p" } },
    });
    let made = rig.call("POST", "/v2/sandboxes", body).await.expect(201);
    assert_eq!(
        (&made["templateID"], &made["clientID"], &made["envdVersion"]),
        (&json!("base"), &json!("6532622b"), &json!("0.6.13"))
    );
    assert_eq!(made["domain"], Value::Null);
    let (id, token) = (
        made["sandboxID"].as_str().unwrap(),
        made["envdAccessToken"].as_str().unwrap(),
    );
    let traffic = made["trafficAccessToken"].as_str().unwrap();
    assert!(token.len() == 40 && traffic.len() == 40 && token != traffic);

    let seen = rig
        .get(&format!("/sandboxes/{id}-6532622b"))
        .await
        .expect(200);
    assert_eq!(
        (&seen["state"], &seen["metadata"]),
        (&json!("running"), &json!({ "a b": "c&d" }))
    );
    assert_eq!(
        (&seen["cpuCount"], &seen["memoryMB"], &seen["diskSizeMB"]),
        (&json!(1), &json!(256), &json!(1024))
    );
    assert_eq!(
        seen["lifecycle"],
        json!({ "autoResume": true, "onTimeout": "pause" })
    );
    assert_eq!(
        (&seen["idleTimeout"], &seen["allowInternetAccess"]),
        (&json!(7), &json!(false))
    );
    assert_eq!(seen["envdAccessToken"], token);
    assert_eq!(
        seen["network"]["egressProxy"],
        json!({ "address": "proxy.example:1080" }),
        "no password"
    );
    assert_eq!(lifetime(&seen), 300_000_000);

    let access = rig.placement(id).await.unwrap().access;
    assert_eq!(access.envd_token.unwrap().expose(), token);
    assert_eq!(access.traffic_token.unwrap().expose(), traffic);
    assert_eq!(
        (access.auto_resume, access.mask_request_host.as_deref()),
        (true, Some("h:${PORT}"))
    );
}

#[tokio::test]
async fn a_first_generation_sandbox_is_secured_if_asked_and_lives_15_seconds() {
    let rig = Rig::new().await;
    let made = rig
        .call("POST", "/sandboxes", json!({ "templateID": "base" }))
        .await
        .expect(201);
    assert!(made.get("envdAccessToken").is_none());
    assert_eq!(made["trafficAccessToken"], Value::Null);
    let seen = rig
        .get(&format!(
            "/sandboxes/{}",
            made["sandboxID"].as_str().unwrap()
        ))
        .await
        .expect(200);
    assert_eq!(lifetime(&seen), 15_000_000);
    let made = rig
        .call(
            "POST",
            "/sandboxes",
            json!({ "templateID": "base", "secure": true }),
        )
        .await
        .expect(201);
    assert!(made["envdAccessToken"].is_string());
    let private = json!({ "templateID": "base", "network": { "allowPublicTraffic": false } });
    let message = rig.call("POST", "/sandboxes", private).await.error(400);
    assert!(
        message.starts_with("You cannot create a sandbox without public access unless"),
        "{message}"
    );
}

#[tokio::test]
async fn what_cannot_be_created_is_said() {
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
