//! Rows of the specification: any request gets a response, and never a 500.

use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::rig::{KEY, Rig, TIMEOUT};

#[tokio::test]
async fn malformed_requests_get_error_bodies() {
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
    // A body without a content type or with a charset is accepted.
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
async fn sandbox_ids_ignore_case_and_client_suffix() {
    let rig = Rig::new().await;
    let id = rig.create(json!({ "templateID": "base" })).await;
    let snapshots = format!("/sandboxes/{id}/snapshots");
    rig.call("POST", &snapshots, Value::Null).await.expect(201);
    rig.fake.wait_for_metrics(1).await;
    let suffixed = format!("{}-6532622b", id.to_uppercase());
    for id in [id.as_str(), id.to_uppercase().as_str(), suffixed.as_str()] {
        rig.get(&format!("/sandboxes/{id}")).await.expect(200);
        let path = format!("/snapshots?sandboxID={id}");
        let listed = rig.get(&path).await.expect(200);
        assert_eq!(listed.as_array().unwrap().len(), 1, "{path}");
        let path = format!("/sandboxes/metrics?sandbox_ids={id}");
        let latest = rig.get(&path).await.expect(200);
        assert_eq!(latest["sandboxes"].as_object().unwrap().len(), 1, "{path}");
    }
    for path in [
        format!("/sandboxes/{suffixed}-x"),
        format!("/snapshots?sandboxID={suffixed}-x"),
        format!("/sandboxes/metrics?sandbox_ids={suffixed}-x"),
    ] {
        assert_eq!(rig.get(&path).await.error(400), "Invalid sandbox ID");
    }
}

#[tokio::test]
async fn invalid_body_error_names_the_member() {
    let rig = Rig::new().await;
    for (body, member) in [
        (json!({ "templateID": 7 }), "templateID"),
        (json!({ "templateID": "base", "timeout": "60" }), "timeout"),
        (
            json!({ "templateID": "base", "metadata": { "k": 1 } }),
            "metadata.k",
        ),
        (json!({ "templateID": "base", "envVars": [] }), "envVars"),
        (
            json!({ "templateID": "base", "autoResume": true }),
            "autoResume",
        ),
        (
            json!({ "templateID": "base", "network": { "allowOut": [1] } }),
            "network.allowOut[0]",
        ),
        (
            json!({ "templateID": "base", "envVars": { "a=b": "" } }),
            "envVars",
        ),
        (json!({}), "templateID"),
    ] {
        for path in ["/sandboxes", "/v2/sandboxes"] {
            let invalid = rig.call("POST", path, body.clone()).await.error(400);
            assert!(invalid.contains(member), "{body}: {invalid}");
        }
    }
    assert_eq!(rig.fake.creates(), 0);
}

#[tokio::test]
async fn unusual_json_is_accepted_or_400() {
    let rig = Rig::new().await;
    let key = ("x-api-key", KEY);
    for (body, status) in [
        (
            r#"{ "templateID": "base", "timeout": 60, "mcp": {}, "iam": null, "volumeMounts": [], "distributionScope": ["n1"] }"#,
            201,
        ),
        (
            r#"{ "templateID": "base", "network": null, "metadata": null, "autoResume": null, "secure": null }"#,
            201,
        ),
        (
            r#"{ "templateID": "base", "metadata": { "a": "1", "a": "2" } }"#,
            201,
        ),
        (r#"{ "templateID": "base", "templateID": "base" }"#, 400),
        (r#"{ "templateID": "base", "timeout": 1e999 }"#, 400),
        (
            r#"{ "templateID": "base", "timeout": 99999999999999999999999999 }"#,
            400,
        ),
        (r#"{ "templateID": "base" } x"#, 400),
        (r#"{ "templateID": "\ud800" }"#, 400),
        ("null", 400),
        ("[1]", 400),
    ] {
        let reply = rig.raw("POST", "/v2/sandboxes", &[key], body).await;
        assert_eq!(reply.status, status, "{body}: {}", reply.text);
    }
    let (open, close) = ("[".repeat(100_000), "]".repeat(100_000));
    for (member, status) in [
        ("odd", 201),
        ("iam", 400),
        ("metadata", 400),
        ("network", 400),
    ] {
        let deep = format!(r#"{{ "templateID": "base", "{member}": {open}1{close} }}"#);
        let reply = rig.raw("POST", "/v2/sandboxes", &[key], &deep).await;
        assert_eq!(reply.status, status, "{member}: {}", reply.text);
    }
    let unsupported =
        json!({ "templateID": "base", "volumeMounts": [{ "name": "v", "path": "/v" }] });
    rig.call("POST", "/sandboxes", unsupported).await.error(501);
    let unsupported =
        json!({ "templateID": "base", "iam": { "tokens": { "t": { "audience": "a" } } } });
    rig.call("POST", "/v2/sandboxes", unsupported)
        .await
        .error(501);
}

/// Sends raw bytes and returns the first part of the response.
async fn exchange(rig: &Rig, pieces: &[&[u8]]) -> String {
    let mut socket = rig.socket().await;
    for piece in pieces {
        // The server may have closed the connection after its response.
        if socket.write_all(piece).await.is_err() {
            break;
        }
    }
    let mut response = vec![0; 4096];
    let read = tokio::time::timeout(TIMEOUT, socket.read(&mut response))
        .await
        .unwrap();
    String::from_utf8_lossy(&response[..read.unwrap_or(0)]).into_owned()
}

#[tokio::test]
async fn chunked_body_is_read_and_oversized_head_is_rejected() {
    let rig = Rig::new().await;
    let head = format!("POST /v2/sandboxes HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\n");
    let chunked = format!("{head}transfer-encoding: chunked\r\nconnection: close\r\n\r\n");
    let body: &[u8] = b"8\r\n{\"templa\r\ne\r\nteID\":\"base\"}\n\r\n0\r\n\r\n";
    let response = exchange(&rig, &[chunked.as_bytes(), body]).await;
    assert!(response.starts_with("HTTP/1.1 201"), "{response}");
    let empty = format!("{chunked}0\r\n\r\n");
    let response = exchange(&rig, &[empty.as_bytes()]).await;
    assert!(
        response.starts_with("HTTP/1.1 400") && response.contains("\"message\""),
        "{response}"
    );

    let headers = "x-filler: 0123456789\r\n".repeat(50_000);
    let response = exchange(&rig, &[head.as_bytes(), headers.as_bytes()]).await;
    assert!(
        response.is_empty() || response.starts_with("HTTP/1.1 431"),
        "{response}"
    );
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(100_000));
    let response = exchange(&rig, &[long.as_bytes()]).await;
    assert!(response.starts_with("HTTP/1.1 4"), "{response}");
    assert_eq!(
        rig.get("/sandboxes").await.status,
        200,
        "other requests are served"
    );
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        prop::sample::select(vec![
            "base",
            "catnap/base:default",
            "0.0.0.0/0",
            "*.x",
            "-1"
        ])
        .prop_map(Value::from),
    ];
    let name = prop_oneof![
        prop::sample::select(vec![
            "templateID",
            "timeout",
            "autoPause",
            "autoPauseMemory",
            "autoResume",
            "enabled",
            "lifecycle",
            "onTimeout",
            "secure",
            "network",
            "allowOut",
            "denyOut",
            "rules",
            "egressProxy",
            "address",
            "maskRequestHost",
            "metadata",
            "envVars",
            "idleTimeout",
            "volumeMounts",
            "iam",
            "memory",
            "name",
            "tags",
            "target",
            "count",
            "duration",
            "snapshotID",
            "alias",
            "public",
        ])
        .prop_map(str::to_owned),
        ".{0,6}",
    ];
    leaf.prop_recursive(3, 24, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..8).prop_map(|map| json!(map)),
        ]
    })
}

/// Routes that read bodies; `{id}` is replaced by an existing sandbox.
const ROUTES: [(&str, &str); 15] = [
    ("POST", "/sandboxes"),
    ("POST", "/v2/sandboxes"),
    ("POST", "/sandboxes/{id}/pause"),
    ("POST", "/sandboxes/{id}/resume"),
    ("POST", "/sandboxes/{id}/connect"),
    ("POST", "/v2/sandboxes/{id}/connect"),
    ("POST", "/sandboxes/{id}/timeout"),
    ("POST", "/sandboxes/{id}/refreshes"),
    ("POST", "/sandboxes/{id}/fork"),
    ("POST", "/sandboxes/{id}/snapshots"),
    ("POST", "/sandboxes/{id}/rollback"),
    ("PUT", "/sandboxes/{id}/network"),
    ("POST", "/templates/tags"),
    ("DELETE", "/templates/tags"),
    ("PUT", "/templates/base/alias"),
];

#[test]
fn random_requests_never_return_500() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (rig, id) = runtime.block_on(async {
        let rig = Rig::new().await;
        let id = rig.create(json!({ "templateID": "base" })).await;
        (rig, id)
    });
    let bodies = prop_oneof![
        any_json().prop_map(|body| body.to_string()),
        ".{0,40}",
        (any_json(), any::<prop::sample::Index>(), any::<char>()).prop_map(|(body, at, with)| {
            let mut text: Vec<char> = body.to_string().chars().collect();
            let at = at.index(text.len());
            text[at] = with;
            text.into_iter().collect()
        }),
    ];
    let config = ProptestConfig::with_cases(200);
    proptest!(config, |(body in bodies, route in prop::sample::select(ROUTES.to_vec()))| {
        let (method, path) = (route.0, route.1.replace("{id}", &id));
        let reply = runtime.block_on(rig.raw(method, &path, &[("x-api-key", KEY)], &body));
        prop_assert!(reply.status < 500 || reply.status == 501, "{} {}: {}", method, path, reply.text);
        if reply.status >= 400 {
            let body = reply.expect(reply.status);
            prop_assert!(body["message"].is_string() && body["code"] == reply.status);
        }
    });
    runtime.block_on(rig.shut_down());
}

#[test]
fn random_paths_and_queries_never_return_500() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let rig = runtime.block_on(Rig::new());
    let config = ProptestConfig::with_cases(200);
    let encode = |text: &str| {
        let all = percent_encoding::NON_ALPHANUMERIC;
        percent_encoding::utf8_percent_encode(text, all).to_string()
    };
    let routes = vec![
        "/templates/{}",
        "/templates/{}/tags",
        "/templates/aliases/{}",
        "/sandboxes/{}",
        "/snapshots?name={}",
        "/snapshots?nextToken={}",
        "/v2/sandboxes?metadata={}",
        "/v2/sandboxes?template={}",
        "/v2/sandboxes?startedAfter={}",
        "/v2/sandboxes?nextToken={}",
        "/sandboxes/metrics?sandbox_ids={}",
    ];
    let delete = prop::sample::select(vec!["GET", "DELETE"]);
    proptest!(config, |(text in ".{0,30}", route in prop::sample::select(routes), method in delete, bytes in prop::collection::vec(any::<u8>(), 0..9))| {
        let raw: String = bytes.iter().map(|byte| format!("%{byte:02x}")).collect();
        for text in [encode(&text), raw] {
            let path = route.replace("{}", &text);
            let reply = runtime.block_on(rig.raw(method, &path, &[("x-api-key", KEY)], ""));
            prop_assert!(reply.status < 500, "{} {}: {}", method, path, reply.text);
        }
    });
    runtime.block_on(rig.shut_down());
}
