//! SPECIFICATION.md, Requests: addressing by host, headers and path; malformed targets; requests to the API.

use axum::{Json, Router, body::Body, routing::get};
use serde_json::json;
use tokio::io::AsyncReadExt;

use crate::rig::{DOMAIN, Rig, TIMEOUT, public};

const LOCAL: (&str, &str) = ("host", "localhost:3000");

#[tokio::test]
async fn requests_reach_the_api_or_a_sandbox() {
    let rig = Rig::new().await;
    let api = Router::new()
        .route("/health", get(async || "ok"))
        .fallback(async |body: Body| Json(json!({ "api": true, "body": text(body).await })));
    rig.serve_api(api);
    let id = rig.sandbox("iabc", public()).await;
    assert_eq!(rig.get("/health", &[LOCAL]).await.body, "ok");
    let api = rig
        .get("/sandboxes", &[("host", "api.example.com:8443")])
        .await;
    assert!(api.body.contains("\"api\":true"));
    let echo = rig.get_port(3000, &id, &[]).await.echo();
    assert_eq!(
        (echo.sandbox.as_str(), echo.port, echo.epoch),
        ("iabc", 3000, 1)
    );
    assert_eq!(echo.headers["host"], "3000-iabc.example.com");
    let routed = [
        ("host", "127.0.0.1:3000"),
        ("e2b-sandbox-id", "iabc"),
        ("e2b-sandbox-port", "49983"),
    ];
    let echo = rig.get("/a/b?c=%20d", &routed).await.echo();
    assert_eq!((echo.port, echo.target.as_str()), (49983, "/a/b?c=%20d"));
}

async fn text(body: Body) -> String {
    String::from_utf8(axum::body::to_bytes(body, 1024).await.unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn malformed_target_is_400_in_plain_text() {
    let rig = Rig::new().await;
    for (path, headers) in [
        ("/", &[("host", "0-iabc.x")][..]),
        ("/", &[("host", "80-i_c.x")]),
        ("/", &[("host", "a b")]),
        ("/", &[LOCAL, ("e2b-sandbox-id", "iabc")]),
        ("/sandbox/i_c/3000/", &[LOCAL]),
        ("/sandbox/iabc/http/", &[LOCAL]),
    ] {
        let reply = rig.get(path, headers).await;
        assert_eq!(reply.status, 400, "{path} {headers:?}");
        assert!(reply.header("content-type").starts_with("text/plain"));
        assert!(!reply.body.is_empty());
    }
}

#[tokio::test]
async fn unknown_subdomain_is_400() {
    let rig = Rig::with_config(|config| config.domain = Some(DOMAIN.to_owned())).await;
    for label in ["what", "abcd-iabc", "80-"] {
        let host = format!("{label}.{DOMAIN}");
        let reply = rig.get("/", &[("host", &host)]).await;
        assert_eq!(reply.status, 400, "{host}");
    }
}

#[tokio::test]
async fn unreachable_api_is_503_with_code_and_message() {
    let rig = Rig::new().await;
    let reply = rig.get("/health", &[LOCAL]).await;
    assert_eq!(reply.status, 503);
    let body: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!(body["code"], 503);
    assert!(body["message"].is_string());
}

#[tokio::test]
async fn path_prefix_addresses_sandbox_and_is_removed() {
    let rig = Rig::new().await;
    rig.sandbox("iabc", public()).await;
    for host in [
        "localhost",
        "127.0.0.1:3000",
        "api.example.com",
        "[::1]:3000",
    ] {
        let reply = rig
            .get("/sandbox/iabc-old/3000/a//b?c=/d", &[("host", host)])
            .await;
        let echo = reply.echo();
        assert_eq!((echo.port, echo.target.as_str()), (3000, "/a//b?c=/d"));
        assert_eq!(echo.headers["x-forwarded-prefix"], "/sandbox/iabc-old/3000");
        assert_eq!(echo.headers["host"], host);
    }
    let echo = rig.get("/sandbox/iabc/3000?q", &[LOCAL]).await.echo();
    assert_eq!(echo.target, "/?q");
    let forged = ("x-forwarded-prefix", "/evil");
    let echo = rig
        .get("/sandbox/iabc/3000/", &[LOCAL, forged])
        .await
        .echo();
    assert_eq!(echo.headers["x-forwarded-prefix"], "/sandbox/iabc/3000");
    let by_host = rig
        .get("/sandbox/iabc/3000/x", &[("host", "80-iabc.x")])
        .await
        .echo();
    assert_eq!(
        (by_host.port, by_host.target.as_str()),
        (80, "/sandbox/iabc/3000/x")
    );
}

#[tokio::test]
async fn absolute_request_target_is_resolved_like_a_path() {
    let rig = Rig::new().await;
    rig.sandbox("iabc", public()).await;
    let get = async |target: &str, host: &str| {
        let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let mut socket = rig.send_raw(&head).await;
        let mut response = String::new();
        let read = tokio::time::timeout(TIMEOUT, socket.read_to_string(&mut response)).await;
        read.unwrap().unwrap();
        response
    };
    let response = get("http://localhost/sandbox/iabc/81/a?b", "localhost").await;
    assert!(
        response.contains(r#""port":81"#) && response.contains("/a?b\""),
        "{response}"
    );
    assert!(!response.contains(r#"/sandbox/iabc/81/a"#), "{response}");
    let response = get("http://82-iabc.x/a", "82-iabc.x").await;
    assert!(
        response.contains(r#""port":82"#) && response.contains(r#""target":"/a""#),
        "{response}"
    );
    for target in ["http://49983-iabc.x/init", "http://49983-iabc.x/y/../init"] {
        let response = get(target, "49983-iabc.x").await;
        assert!(
            response.starts_with("HTTP/1.1 404 "),
            "{target}: {response}"
        );
    }
    for target in ["http://80-iabc.x/", "*", "//init", "init"] {
        let response = get(target, "49983-iabc.x").await;
        let is_refused =
            response.starts_with("HTTP/1.1 404 ") || response.starts_with("HTTP/1.1 400 ");
        assert!(is_refused || target == "*", "{target}: {response}");
    }
}
