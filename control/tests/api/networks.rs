//! Networks: given, given back, replaced.

use serde_json::{Value, json};

use crate::rig::{Rig, missing};

async fn put(rig: &Rig, id: &str, body: Value) -> crate::rig::Reply {
    rig.call("PUT", &format!("/sandboxes/{id}/network"), body)
        .await
}

async fn seen(rig: &Rig, id: &str) -> Value {
    rig.get(&format!("/sandboxes/{id}")).await.expect(200)
}

#[tokio::test]
async fn a_network_is_replaced_whole_and_survives_everything() {
    let rig = Rig::new().await;
    let rules = json!({ "example.com": [{ "transform": { "headers": { "X": "1" } } }] });
    let body = json!({
        "templateID": "base", "allow_internet_access": false,
        "network": { "allowOut": ["example.com"], "denyOut": ["0.0.0.0/0"], "rules": rules },
    });
    let id = rig.create(body).await;
    let made = seen(&rig, &id).await;
    assert_eq!(made["allowInternetAccess"], false);
    assert_eq!(
        made["network"],
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
    let now = seen(&rig, &id).await;
    assert_eq!(now["allowInternetAccess"], true);
    assert_eq!(
        now["network"],
        json!({ "allowOut": ["1.2.3.4"], "dnsServers": ["8.8.8.8"] })
    );
    put(&rig, &id, Value::Null).await.expect(204);
    let now = seen(&rig, &id).await;
    assert_eq!(
        (now.get("network"), &now["allowInternetAccess"]),
        (None, &Value::Null)
    );
}

#[tokio::test]
async fn what_is_wrong_changes_nothing() {
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
        let wrong = put(&rig, &id, body.clone()).await.error(400);
        assert!(wrong.contains(message), "{wrong}");
        let create = json!({ "templateID": "base", "network": body });
        let wrong = rig.call("POST", "/v2/sandboxes", create).await.error(400);
        assert!(wrong.contains(message), "{wrong}");
    }
    assert_eq!(
        seen(&rig, &id).await["network"],
        json!({ "denyOut": ["1.1.1.1"] })
    );
    assert_eq!(
        put(&rig, "iunknown", json!({})).await.error(404),
        missing("iunknown")
    );
}

#[tokio::test]
async fn who_may_come_in_changes_only_when_it_is_said() {
    let rig = Rig::new().await;
    let body = json!({ "templateID": "base", "network": { "allowPublicTraffic": false, "maskRequestHost": "a" } });
    let made = rig.call("POST", "/v2/sandboxes", body).await.expect(201);
    let id = made["sandboxID"].as_str().unwrap();
    let token = made["trafficAccessToken"].as_str().unwrap();
    let access = async || rig.placement(id).await.unwrap().access;

    put(&rig, id, json!({ "allowOut": ["1.2.3.4"] }))
        .await
        .expect(204);
    assert_eq!(
        access().await.traffic_token.unwrap().expose(),
        token,
        "still private"
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
    let seen = rig.call("POST", &connect, json!({})).await.expect(200);
    assert_eq!(seen["trafficAccessToken"], Value::Null);

    put(&rig, id, json!({ "allowPublicTraffic": false }))
        .await
        .expect(204);
    assert_eq!(
        access().await.traffic_token.unwrap().expose(),
        token,
        "the one its owner knows"
    );
}

#[tokio::test]
async fn what_becomes_private_has_a_token() {
    let rig = Rig::new().await;
    // One that was open from the start is given a token, which a connect tells.
    let other = rig.create(json!({ "templateID": "base" })).await;
    put(&rig, &other, json!({ "allowPublicTraffic": false }))
        .await
        .expect(204);
    let told = rig
        .call("POST", &format!("/v2/sandboxes/{other}/connect"), json!({}))
        .await
        .expect(200);
    let asked = rig
        .placement(&other)
        .await
        .unwrap()
        .access
        .traffic_token
        .unwrap();
    assert_eq!(told["trafficAccessToken"], asked.expose());
    // CubeSandbox's clients say no more than that.
    let body = json!({ "templateID": "base", "network": { "allowPublicTraffic": false } });
    let cube = [("user-agent", "python-requests/2.32.5")];
    let made = rig
        .call_with("POST", "/sandboxes", body, &cube)
        .await
        .expect(201);
    assert!(made["trafficAccessToken"].is_string() && made["envdAccessToken"].is_string());
    // And one whose agent asks for nothing cannot be private.
    let bare = rig
        .call("POST", "/sandboxes", json!({ "templateID": "base" }))
        .await
        .expect(201);
    let bare = bare["sandboxID"].as_str().unwrap();
    put(&rig, bare, json!({ "allowPublicTraffic": false }))
        .await
        .error(400);
}
