//! Rows of the specification: responses and codes of connect and timeout; lifetimes.

use pool_api::{Epoch, IfPaused, Node};
use serde_json::{Value, json};

use crate::rig::{Rig, lifetime, sandbox};

const PYTHON: (&str, &str) = ("user-agent", "e2b-python-sdk/2.45.1");
const CUBE: (&str, &str) = ("user-agent", "python-requests/2.32.5");

async fn end_at(rig: &Rig, id: &str, headers: &[(&str, &str)]) -> Value {
    let path = format!("/sandboxes/{id}");
    let detail = rig
        .call_with("GET", &path, json!({}), headers)
        .await
        .expect(200);
    let listed = rig
        .call_with("GET", "/v2/sandboxes", json!({}), headers)
        .await
        .expect(200);
    let mut listed = listed.as_array().unwrap().iter();
    let listed = listed.find(|sandbox| sandbox["sandboxID"] == id).unwrap();
    assert_eq!(listed["endAt"], detail["endAt"], "list and detail agree");
    detail["endAt"].clone()
}

/// Creates a sandbox without a deadline.
async fn create_unlimited(rig: &Rig) -> String {
    let body = json!({ "templateID": "base", "timeout": -1 });
    let created = rig.call_with("POST", "/sandboxes", body, &[CUBE]);
    let created = created.await.expect(201);
    created["sandboxID"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn connect_resumes_or_extends_and_never_shortens() {
    let rig = Rig::new().await;
    let id = rig
        .create(json!({ "templateID": "base", "timeout": 1000 }))
        .await;
    let (path, v1, v2) = (
        format!("/sandboxes/{id}"),
        format!("/sandboxes/{id}/connect"),
        format!("/v2/sandboxes/{id}/connect"),
    );
    let before = rig.get(&path).await.expect(200);
    rig.call("POST", &v1, json!({ "timeout": 10 }))
        .await
        .expect(200);
    rig.call("POST", &v2, Value::Null).await.expect(200);
    assert_eq!(rig.get(&path).await.expect(200), before, "unchanged");
    rig.call("POST", &v2, json!({ "timeout": 2000 }))
        .await
        .expect(200);
    assert!(lifetime(&rig.get(&path).await.expect(200)) > 1_900_000_000);
    for invalid in [json!({ "timeout": 0 }), json!({ "timeout": -2 })] {
        rig.call("POST", &v1, invalid).await.error(400);
    }
    rig.call("POST", &format!("{path}/pause"), json!({}))
        .await
        .expect(204);
    let token = before["envdAccessToken"].clone();
    let woken = rig.call("POST", &v2, json!({})).await.expect(201);
    assert_eq!(woken["envdAccessToken"], token, "the token stays");
    assert_eq!(lifetime(&rig.get(&path).await.expect(200)), 300_000_000);
}

#[tokio::test]
async fn timeout_replaces_and_refresh_extends_the_deadline() {
    let rig = Rig::new().await;
    let id = rig
        .create(json!({ "templateID": "base", "timeout": 1000 }))
        .await;
    let path = format!("/sandboxes/{id}");
    rig.call(
        "POST",
        &format!("{path}/timeout"),
        json!({ "timeout": 100 }),
    )
    .await
    .expect(204);
    let detail = rig.get(&path).await.expect(200);
    assert!(lifetime(&detail) < 200_000_000);
    rig.call("POST", &format!("{path}/refreshes"), Value::Null)
        .await
        .expect(204);
    assert_eq!(rig.get(&path).await.expect(200)["endAt"], detail["endAt"]);
    rig.call(
        "POST",
        &format!("{path}/refreshes"),
        json!({ "duration": 3600 }),
    )
    .await
    .expect(204);
    assert!(lifetime(&rig.get(&path).await.expect(200)) > 3_500_000_000);
    rig.call(
        "POST",
        &format!("{path}/refreshes"),
        json!({ "duration": 3601 }),
    )
    .await
    .error(400);
    rig.call("POST", &format!("{path}/timeout"), json!({ "timeout": -2 }))
        .await
        .error(400);
    rig.call("POST", &format!("{path}/timeout"), json!({}))
        .await
        .error(400);
    let message = rig
        .call(
            "POST",
            &format!("{path}/timeout"),
            json!({ "timeout": 86401 }),
        )
        .await
        .error(400);
    assert_eq!(message, "Max instance length exceeded");
}

#[tokio::test]
async fn wake_by_request_grants_a_new_lifetime() {
    let rig = Rig::new().await;
    for (timeout, granted) in [(420, 420_000_000), (20, 300_000_000)] {
        let body =
            json!({ "templateID": "base", "timeout": timeout, "autoResume": { "enabled": true } });
        let id = rig.create(body).await;
        // A later timeout does not count.
        rig.call(
            "POST",
            &format!("/sandboxes/{id}/timeout"),
            json!({ "timeout": 600 }),
        )
        .await
        .expect(204);
        rig.call("POST", &format!("/sandboxes/{id}/pause"), Value::Null)
            .await
            .expect(204);
        drop(rig.fake.enter(&sandbox(&id), IfPaused::Wake).await.unwrap());
        let woken = rig
            .poll_until(&id, |reply| lifetime(&reply.expect(200)) == granted)
            .await
            .expect(200);
        assert_eq!(woken["state"], "running");
        assert_eq!(rig.placement(&id).await.unwrap().epoch, Epoch(2));
    }
}

#[tokio::test]
async fn unlimited_sandbox_has_no_deadline() {
    let rig = Rig::new().await;
    let id = create_unlimited(&rig).await;
    let id = id.as_str();
    for agent in [
        "e2b-python-sdk/2.63.0",
        "e2b-js-sdk/2.51.0",
        "x e2b-code-interpreter/1",
    ] {
        assert_eq!(
            end_at(&rig, id, &[("user-agent", agent)]).await,
            "9999-12-31T23:59:59Z"
        );
    }
    assert_eq!(
        end_at(&rig, id, &[("user-agent", "python-requests/2")]).await,
        Value::Null
    );
    assert!(
        rig.get(&format!("/sandboxes/{id}"))
            .await
            .expect(200)
            .get("endAt")
            .is_none()
    );
}

#[tokio::test]
async fn only_a_timeout_limits_an_unlimited_sandbox() {
    let rig = Rig::new().await;
    let id = create_unlimited(&rig).await;
    let id = id.as_str();
    let other = rig
        .create(json!({ "templateID": "base", "timeout": 60 }))
        .await;
    // Connects and refreshes do not limit it.
    for (path, body, status) in [
        (
            format!("/v2/sandboxes/{id}/connect"),
            json!({ "timeout": 60 }),
            200,
        ),
        (
            format!("/sandboxes/{id}/refreshes"),
            json!({ "duration": 60 }),
            204,
        ),
        (format!("/sandboxes/{id}/connect"), json!({}), 200),
    ] {
        rig.call("POST", &path, body).await.expect(status);
        assert_eq!(end_at(&rig, id, &[PYTHON]).await, "9999-12-31T23:59:59Z");
    }
    rig.call(
        "POST",
        &format!("/sandboxes/{id}/timeout"),
        json!({ "timeout": 60 }),
    )
    .await
    .expect(204);
    assert!(lifetime(&rig.get(&format!("/sandboxes/{id}")).await.expect(200)) < 70_000_000);
    // A timeout and a connect with -1 make it unlimited again.
    for path in [
        format!("/sandboxes/{id}/timeout"),
        format!("/sandboxes/{other}/connect"),
    ] {
        let body = json!({ "timeout": -1 });
        let reply = rig.call_with("POST", &path, body, &[CUBE]).await;
        assert!(reply.status < 300, "{}", reply.text);
    }
    let (fake, dir) = rig.crash().await;
    let rig = Rig::over(fake, dir).await;
    for id in [id, &other] {
        assert_eq!(
            end_at(&rig, id, &[PYTHON]).await,
            "9999-12-31T23:59:59Z",
            "after a crash"
        );
    }
}

#[tokio::test]
async fn cubesandbox_create_without_timeout_is_unlimited() {
    let rig = Rig::new().await;
    let cube = [CUBE];
    let body = json!({ "templateID": "base" });
    let created = rig
        .call_with("POST", "/sandboxes", body, &cube)
        .await
        .expect(201);
    let id = created["sandboxID"].as_str().unwrap();
    assert_eq!(end_at(&rig, id, &cube).await, Value::Null);
    let path = format!("/sandboxes/{id}");
    rig.call("POST", &format!("{path}/pause"), Value::Null)
        .await
        .expect(204);
    rig.call_with("POST", &format!("{path}/resume"), json!({}), &cube)
        .await
        .expect(201);
    assert_eq!(end_at(&rig, id, &cube).await, Value::Null);
    let body = json!({ "templateID": "base", "timeout": 30 });
    let created = rig
        .call_with("POST", "/sandboxes", body, &cube)
        .await
        .expect(201);
    let path = format!("/sandboxes/{}", created["sandboxID"].as_str().unwrap());
    assert_eq!(lifetime(&rig.get(&path).await.expect(200)), 30_000_000);
}

#[tokio::test]
async fn only_cubesandbox_clients_get_unlimited_timeouts() {
    let rig = Rig::new().await;
    let id = rig.create(json!({ "templateID": "base" })).await;
    for (path, body) in [
        (
            "/v2/sandboxes".to_owned(),
            json!({ "templateID": "base", "timeout": -1 }),
        ),
        (
            format!("/v2/sandboxes/{id}/connect"),
            json!({ "timeout": -1 }),
        ),
        (
            "/sandboxes".to_owned(),
            json!({ "templateID": "base", "timeout": -1 }),
        ),
        (format!("/sandboxes/{id}/connect"), json!({ "timeout": -1 })),
        (format!("/sandboxes/{id}/resume"), json!({ "timeout": -1 })),
        (format!("/sandboxes/{id}/fork"), json!({ "timeout": -1 })),
    ] {
        assert_eq!(
            rig.call("POST", &path, body).await.error(400),
            "Timeout must be greater than 0"
        );
    }
    let path = format!("/sandboxes/{id}/timeout");
    let refused = rig.call("POST", &path, json!({ "timeout": -1 })).await;
    assert_eq!(refused.error(400), "Timeout must not be negative");
}

#[tokio::test]
async fn resumed_sandbox_gets_the_lifetime_of_its_creation() {
    let rig = Rig::new().await;
    let id = create_unlimited(&rig).await;
    let id = id.as_str();
    let path = format!("/sandboxes/{id}");
    rig.call("POST", &format!("{path}/pause"), Value::Null)
        .await
        .expect(204);
    let paused = rig.get(&path).await.expect(200);
    assert!(
        paused["endAt"].as_str() < Some("9999"),
        "the time of the pause"
    );
    // A connect without a timeout grants the lifetime requested at creation.
    rig.call("POST", &format!("{path}/connect"), json!({}))
        .await
        .expect(201);
    assert_eq!(end_at(&rig, id, &[PYTHON]).await, "9999-12-31T23:59:59Z");
    rig.call("POST", &format!("{path}/pause"), Value::Null)
        .await
        .expect(204);
    rig.call("POST", &format!("{path}/resume"), json!({ "timeout": 30 }))
        .await
        .expect(201);
    assert_eq!(lifetime(&rig.get(&path).await.expect(200)), 30_000_000);
}

#[tokio::test]
async fn lifetime_is_capped_at_the_maximum() {
    let rig = Rig::new().await;
    let id = rig
        .create(json!({ "templateID": "base", "timeout": 86_400 }))
        .await;
    let (path, day) = (format!("/sandboxes/{id}"), 86_400_000_000);
    let before = rig.get(&path).await.expect(200);
    assert_eq!(lifetime(&before), day);
    for (route, status) in [("timeout", 204), ("connect", 200)] {
        let body = json!({ "timeout": 86_400 });
        rig.call("POST", &format!("{path}/{route}"), body)
            .await
            .expect(status);
        assert_eq!(
            rig.get(&path).await.expect(200),
            before,
            "{route} is clamped"
        );
    }
    for (route, message) in [
        ("timeout", "Max instance length exceeded"),
        ("connect", "Timeout cannot be greater than 24 hours"),
        ("fork", "Timeout cannot be greater than 24 hours"),
    ] {
        let body = json!({ "timeout": 86_401 });
        let reply = rig.call("POST", &format!("{path}/{route}"), body).await;
        assert_eq!(reply.error(400), message);
    }
    // A resume begins a new epoch with the full lifetime.
    rig.call("POST", &format!("{path}/pause"), Value::Null)
        .await
        .expect(204);
    let body = json!({ "timeout": 86_400 });
    rig.call("POST", &format!("{path}/connect"), body)
        .await
        .expect(201);
    assert_eq!(lifetime(&rig.get(&path).await.expect(200)), day);
}
