//! Requests that nobody who means well would send.

use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::rig::{KEY, PATIENCE, Rig};

#[tokio::test]
async fn what_is_wrong_with_a_body_is_said_with_its_member() {
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
            let wrong = rig.call("POST", path, body.clone()).await.error(400);
            assert!(wrong.contains(member), "{body}: {wrong}");
        }
    }
    assert_eq!(rig.fake.creates(), 0);
}

#[tokio::test]
async fn bodies_come_as_they_please() {
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
    let later = json!({ "templateID": "base", "volumeMounts": [{ "name": "v", "path": "/v" }] });
    rig.call("POST", "/sandboxes", later).await.error(501);
    let later = json!({ "templateID": "base", "iam": { "tokens": { "t": { "audience": "a" } } } });
    rig.call("POST", "/v2/sandboxes", later).await.error(501);
}

/// Sends bytes as they are; what comes back until the server closes or is silent.
async fn exchange(rig: &Rig, pieces: &[&[u8]]) -> String {
    let mut socket = rig.socket().await;
    for piece in pieces {
        // The server may have hung up: then it has said why.
        if socket.write_all(piece).await.is_err() {
            break;
        }
    }
    let mut answer = vec![0; 4096];
    let read = tokio::time::timeout(PATIENCE, socket.read(&mut answer))
        .await
        .unwrap();
    String::from_utf8_lossy(&answer[..read.unwrap_or(0)]).into_owned()
}

#[tokio::test]
async fn chunks_are_read_and_endless_heads_are_not() {
    let rig = Rig::new().await;
    let head = format!("POST /v2/sandboxes HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\n");
    let chunked = format!("{head}transfer-encoding: chunked\r\nconnection: close\r\n\r\n");
    let body: &[u8] = b"8\r\n{\"templa\r\ne\r\nteID\":\"base\"}\n\r\n0\r\n\r\n";
    let answer = exchange(&rig, &[chunked.as_bytes(), body]).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let empty = format!("{chunked}0\r\n\r\n");
    let answer = exchange(&rig, &[empty.as_bytes()]).await;
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("\"message\""),
        "{answer}"
    );

    let fields = "x-filler: 0123456789\r\n".repeat(50_000);
    let answer = exchange(&rig, &[head.as_bytes(), fields.as_bytes()]).await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(100_000));
    let answer = exchange(&rig, &[long.as_bytes()]).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert_eq!(rig.get("/sandboxes").await.status, 200, "others are served");
}

#[tokio::test]
async fn what_is_not_there_yet_says_so() {
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

#[tokio::test]
async fn the_key_may_come_as_a_bearers() {
    let rig = Rig::new().await;
    let bearer = format!("Bearer {KEY}");
    for (field, status) in [
        (("authorization", bearer.as_str()), 200),
        (("authorization", "Bearer x"), 401),
        (("authorization", "Basic x"), 401),
        (("authorization", "B"), 401),
        (("x-api-key", "\u{e4}"), 401),
    ] {
        assert_eq!(
            rig.raw("GET", "/templates", &[field], "").await.status,
            status,
            "{field:?}"
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

/// Routes that read bodies; `{id}` is one that is there.
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
fn anything_is_answered_and_nothing_is_our_fault() {
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
            let said = reply.expect(reply.status);
            prop_assert!(said["message"].is_string() && said["code"] == reply.status);
        }
    });
    runtime.block_on(rig.end());
}

#[test]
fn any_path_and_query_is_answered() {
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
    runtime.block_on(rig.end());
}
