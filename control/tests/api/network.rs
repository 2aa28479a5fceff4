//! Rows of the specification: none; network settings are stored, returned and replaced.

use serde_json::{Value, json};

use crate::rig::{Reply, Rig, missing};

async fn put(rig: &Rig, id: &str, body: Value) -> Reply {
    rig.call("PUT", &format!("/sandboxes/{id}/network"), body)
        .await
}

async fn detail(rig: &Rig, id: &str) -> Value {
    rig.get(&format!("/sandboxes/{id}")).await.expect(200)
}

#[tokio::test]
async fn network_update_replaces_egress_rules_and_persists() {
    let rig = Rig::new().await;
    let rules = json!({ "example.com": [{ "transform": { "headers": { "X": "1" } } }] });
    let body = json!({
        "templateID": "base", "allow_internet_access": false,
        "network": { "allowOut": ["example.com"], "denyOut": ["0.0.0.0/0"], "rules": rules },
    });
    let id = rig.create(body).await;
    let created = detail(&rig, &id).await;
    assert_eq!(created["allowInternetAccess"], false);
    assert_eq!(
        created["network"],
        json!({ "allowOut": ["example.com"], "denyOut": ["0.0.0.0/0"], "rules": rules })
    );
    let body = json!({ "allowOut": ["1.2.3.4"], "allow_internet_access": true, "dnsServers": ["8.8.8.8"], "odd": 1 });
    put(&rig, &id, body).await.expect(204);
    let path = format!("/sandboxes/{id}");
    rig.call("POST", &format!("{path}/pause"), json!({}))
        .await
        .expect(204);
    assert_eq!(
        put(&rig, &id, json!({})).await.error(409),
        format!("Sandbox \"{id}\" is not running")
    );
    rig.call("POST", &format!("{path}/connect"), json!({ "timeout": 60 }))
        .await
        .expect(201);
    let (fake, dir) = rig.crash().await;
    let rig = Rig::over(fake, dir).await;
    let updated = detail(&rig, &id).await;
    assert_eq!(updated["allowInternetAccess"], true);
    assert_eq!(
        updated["network"],
        json!({ "allowOut": ["1.2.3.4"], "dnsServers": ["8.8.8.8"] })
    );
    put(&rig, &id, Value::Null).await.expect(204);
    let updated = detail(&rig, &id).await;
    assert_eq!(
        (updated.get("network"), &updated["allowInternetAccess"]),
        (None, &Value::Null)
    );
}

#[tokio::test]
async fn invalid_network_update_changes_nothing() {
    let rig = Rig::new().await;
    let id = rig
        .create(json!({ "templateID": "base", "network": { "denyOut": ["1.1.1.1"] } }))
        .await;
    for (body, message) in [
        (
            json!({ "denyOut": ["example.com"] }),
            "invalid denied CIDR example.com",
        ),
        (
            json!({ "allowOut": ["example.com"] }),
            "When specifying allowed domains in allow out",
        ),
        (json!({ "allowOut": "x" }), "allowOut: invalid type"),
        (
            json!({ "rules": { "d.x": [{}, {}] } }),
            "more than one transform",
        ),
    ] {
        let invalid = put(&rig, &id, body.clone()).await.error(400);
        assert!(invalid.contains(message), "{invalid}");
        let create = json!({ "templateID": "base", "network": body });
        let invalid = rig.call("POST", "/v2/sandboxes", create).await.error(400);
        assert!(invalid.contains(message), "{invalid}");
    }
    assert_eq!(
        detail(&rig, &id).await["network"],
        json!({ "denyOut": ["1.1.1.1"] })
    );
    assert_eq!(
        put(&rig, "iunknown", json!({})).await.error(404),
        missing("iunknown")
    );
}

#[tokio::test]
async fn omitted_ingress_rules_stay() {
    let rig = Rig::new().await;
    let body = json!({ "templateID": "base", "network": { "allowPublicTraffic": false, "maskRequestHost": "a" } });
    let created = rig.call("POST", "/v2/sandboxes", body).await.expect(201);
    let id = created["sandboxID"].as_str().unwrap();
    let token = created["trafficAccessToken"].as_str().unwrap();
    let access = async || rig.placement(id).await.unwrap().access;

    put(&rig, id, json!({ "allowOut": ["1.2.3.4"] }))
        .await
        .expect(204);
    assert_eq!(
        access().await.traffic_token.unwrap().expose(),
        token,
        "ports are private as before"
    );
    assert_eq!(access().await.mask_request_host.as_deref(), Some("a"));

    let open = json!({ "allowPublicTraffic": true, "maskRequestHost": "b:${PORT}" });
    put(&rig, id, open).await.expect(204);
    assert_eq!(access().await.traffic_token, None);
    assert_eq!(
        access().await.mask_request_host.as_deref(),
        Some("b:${PORT}")
    );
    let connect = format!("/v2/sandboxes/{id}/connect");
    let connected = rig.call("POST", &connect, json!({})).await.expect(200);
    assert_eq!(connected["trafficAccessToken"], Value::Null);

    put(&rig, id, json!({ "allowPublicTraffic": false }))
        .await
        .expect(204);
    assert_eq!(
        access().await.traffic_token.unwrap().expose(),
        token,
        "the token stays the same"
    );
}

#[tokio::test]
async fn private_sandbox_gets_a_traffic_token() {
    let rig = Rig::new().await;
    // A sandbox that was public gets a token, which a connect returns.
    let other = rig.create(json!({ "templateID": "base" })).await;
    put(&rig, &other, json!({ "allowPublicTraffic": false }))
        .await
        .expect(204);
    let connected = rig
        .call("POST", &format!("/v2/sandboxes/{other}/connect"), json!({}))
        .await
        .expect(200);
    let required = rig
        .placement(&other)
        .await
        .unwrap()
        .access
        .traffic_token
        .unwrap();
    assert_eq!(connected["trafficAccessToken"], required.expose());
    // CubeSandbox's clients do not send `secure`.
    let body = json!({ "templateID": "base", "network": { "allowPublicTraffic": false } });
    let cube = [("user-agent", "python-requests/2.32.5")];
    let created = rig
        .call_with("POST", "/sandboxes", body, &cube)
        .await
        .expect(201);
    assert!(created["trafficAccessToken"].is_string() && created["envdAccessToken"].is_string());
    // A sandbox without an envd token cannot be private.
    let insecure = rig
        .call("POST", "/sandboxes", json!({ "templateID": "base" }))
        .await
        .expect(201);
    let insecure = insecure["sandboxID"].as_str().unwrap();
    put(&rig, insecure, json!({ "allowPublicTraffic": false }))
        .await
        .error(400);
}
