//! Rows of the specification: unknown sandboxes.

use serde_json::{Value, json};

use crate::rig::{Rig, missing};

const UNKNOWN: &str = "/sandboxes/iunknown";

#[tokio::test]
async fn unknown_sandbox_is_404_on_every_route() {
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

#[tokio::test]
async fn unsupported_routes_return_501() {
    let rig = Rig::new().await;
    for (method, path) in [
        ("POST", "/v3/templates"),
        ("POST", "/templates"),
        ("POST", "/templates/base"),
        ("POST", "/v2/templates/base/builds/b"),
        ("GET", "/templates/base/files/abc"),
        ("GET", "/templates/base/builds/b/status"),
        ("GET", "/templates/base/builds/b/logs"),
        ("GET", "/volumes"),
        ("POST", "/volumes"),
        ("DELETE", "/volumes/v"),
        ("GET", "/volumecontent/v/path"),
        ("GET", "/secrets"),
        ("POST", "/secrets/s"),
        ("GET", "/teams"),
        ("GET", "/teams/t/metrics/max"),
    ] {
        let reply = rig.call(method, path, json!({})).await;
        let message = reply.error(501);
        assert!(
            message.ends_with("not supported by this server yet"),
            "{message}"
        );
        assert_eq!(reply.headers["should-retry"], "false", "{method} {path}");
        assert_eq!(rig.raw(method, path, &[], "").await.status, 401);
    }
}
