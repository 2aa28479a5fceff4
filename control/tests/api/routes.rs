//! Who may call, and what every route says to what is odd or unknown.

use serde_json::{Value, json};

use crate::rig::{KEY, Rig, missing};

const UNKNOWN: &str = "/sandboxes/iunknown";

#[tokio::test]
async fn only_health_is_open_to_all() {
    let rig = Rig::new().await;
    let health = rig.raw("GET", "/health", &[], "").await;
    assert_eq!(health.expect(200), json!({ "status": "ok" }));
    for path in ["/sandboxes", "/v2/sandboxes", "/templates", "/nothing"] {
        assert_eq!(
            rig.raw("GET", path, &[], "").await.error(401),
            "authorization header is missing"
        );
        let wrong = rig
            .raw("GET", path, &[("X-API-KEY", "e2b_1")], "")
            .await
            .error(401);
        assert!(
            wrong.starts_with("Invalid API key, please visit"),
            "{wrong}"
        );
    }
    assert_eq!(
        rig.raw("GET", "/sandboxes", &[("X-API-KEY", KEY)], "")
            .await
            .status,
        200
    );
    rig.end().await;
}

#[tokio::test]
async fn pages_of_any_origin_may_call_with_a_key() {
    let rig = Rig::new().await;
    let page = ("origin", "https://a.example");
    let asked = [
        page,
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "x-api-key,lang_version"),
    ];
    let told = rig.raw("OPTIONS", "/v2/sandboxes", &asked, "").await;
    assert_eq!((told.status, told.text.as_str()), (200, ""));
    assert_eq!(told.headers["access-control-allow-origin"], "*");
    let allowed = |name: &str| told.headers[name].to_str().unwrap().to_owned();
    assert!(allowed("access-control-allow-methods").contains("DELETE"));
    assert_eq!(
        allowed("access-control-allow-headers"),
        "x-api-key,lang_version"
    );
    let refused = rig.raw("GET", "/v2/sandboxes", &[page], "").await;
    assert_eq!(refused.headers["access-control-allow-origin"], "*");
    refused.error(401);
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
    rig.end().await;
}

#[tokio::test]
async fn anything_odd_still_has_a_code_and_a_message() {
    let rig = Rig::new().await;
    let key = ("x-api-key", KEY);
    rig.raw("GET", "/nothing", &[key], "").await.error(404);
    rig.raw("PUT", "/sandboxes", &[key], "").await.error(405);
    rig.raw("POST", "/v2/sandboxes", &[key], "")
        .await
        .error(400);
    rig.raw("POST", "/v2/sandboxes", &[key], "{")
        .await
        .error(400);
    rig.raw(
        "POST",
        "/v2/sandboxes",
        &[key, ("content-type", "text/plain")],
        "{}",
    )
    .await
    .error(400);
    rig.raw("POST", "/v2/sandboxes", &[key], &" ".repeat(2 << 20))
        .await
        .error(413);
    for path in [
        "/sandboxes/a_b",
        "/sandboxes/a-b-c",
        "/sandboxes/%ff",
        "/sandboxes/..%2Fx",
    ] {
        assert_eq!(
            rig.get(path).await.error(400),
            "Invalid sandbox ID",
            "{path}"
        );
    }
    // A body without a content type, and one with a charset, are fine.
    let body = json!({ "templateID": "base" }).to_string();
    assert_eq!(
        rig.raw("POST", "/v2/sandboxes", &[key], &body).await.status,
        201
    );
    let content = ("content-type", "application/json; charset=utf-8");
    assert_eq!(
        rig.raw("POST", "/v2/sandboxes", &[key, content], &body)
            .await
            .status,
        201
    );
}

#[tokio::test]
async fn an_unknown_sandbox_is_404_on_every_route() {
    let rig = Rig::new().await;
    for (method, rest, body) in [
        ("GET", "", Value::Null),
        ("DELETE", "", Value::Null),
        ("POST", "/pause", Value::Null),
        ("POST", "/resume", Value::Null),
        ("POST", "/connect", json!({ "timeout": 5 })),
        ("POST", "/timeout", json!({ "timeout": 5 })),
        ("POST", "/refreshes", Value::Null),
        ("POST", "/fork", json!({})),
        ("GET", "/logs", Value::Null),
    ] {
        let reply = rig.call(method, &format!("{UNKNOWN}{rest}"), body).await;
        assert_eq!(reply.error(404), missing("iunknown"), "{method} {rest}");
    }
    assert_eq!(
        rig.call("POST", &format!("/v2{UNKNOWN}/connect"), json!({}))
            .await
            .status,
        404
    );
}
