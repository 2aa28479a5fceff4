//! Rows of the specification: the API key; calls from pages of any origin.

use serde_json::json;

use crate::rig::{KEY, Rig};

#[tokio::test]
async fn every_route_but_health_requires_the_key() {
    let rig = Rig::new().await;
    let health = rig.raw("GET", "/health", &[], "").await;
    assert_eq!(health.expect(200), json!({ "status": "ok" }));
    for path in ["/sandboxes", "/v2/sandboxes", "/templates", "/nothing"] {
        assert_eq!(
            rig.raw("GET", path, &[], "").await.error(401),
            "authorization header is missing"
        );
        let invalid = rig
            .raw("GET", path, &[("X-API-KEY", "e2b_1")], "")
            .await
            .error(401);
        assert!(
            invalid.starts_with("Invalid API key, please visit"),
            "{invalid}"
        );
    }
    assert_eq!(
        rig.raw("GET", "/sandboxes", &[("X-API-KEY", KEY)], "")
            .await
            .status,
        200
    );
    rig.shut_down().await;
}

#[tokio::test]
async fn bearer_token_is_accepted_as_api_key() {
    let rig = Rig::new().await;
    let bearer = format!("Bearer {KEY}");
    for (header, status) in [
        (("authorization", bearer.as_str()), 200),
        (("authorization", "Bearer x"), 401),
        (("authorization", "Basic x"), 401),
        (("authorization", "B"), 401),
        (("x-api-key", "\u{e4}"), 401),
    ] {
        assert_eq!(
            rig.raw("GET", "/templates", &[header], "").await.status,
            status,
            "{header:?}"
        );
    }
    let health = rig
        .raw("GET", "/cubeapi/v1/health", &[("x-api-key", KEY)], "")
        .await;
    assert_eq!(
        health.expect(200),
        json!({ "status": "ok", "sandboxes": 0 })
    );
}

#[tokio::test]
async fn pages_of_any_origin_may_call_the_api() {
    let rig = Rig::new().await;
    let page = ("origin", "https://a.example");
    let headers = [
        page,
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "x-api-key,lang_version"),
    ];
    let preflight = rig.raw("OPTIONS", "/v2/sandboxes", &headers, "").await;
    assert_eq!((preflight.status, preflight.text.as_str()), (200, ""));
    assert_eq!(preflight.headers["access-control-allow-origin"], "*");
    let allowed = |name: &str| preflight.headers[name].to_str().unwrap().to_owned();
    assert!(allowed("access-control-allow-methods").contains("DELETE"));
    assert_eq!(
        allowed("access-control-allow-headers"),
        "x-api-key,lang_version"
    );
    let unauthorized = rig.raw("GET", "/v2/sandboxes", &[page], "").await;
    assert_eq!(unauthorized.headers["access-control-allow-origin"], "*");
    unauthorized.error(401);
    let key = ("x-api-key", KEY);
    let listed = rig.raw("GET", "/v2/sandboxes", &[page, key], "").await;
    assert_eq!(listed.headers["access-control-allow-origin"], "*");
    let exposed = listed.headers["access-control-expose-headers"].to_str();
    assert!(exposed.unwrap().contains("x-next-token"));
    assert!(
        !listed
            .headers
            .contains_key("access-control-allow-credentials")
    );
    rig.shut_down().await;
}
