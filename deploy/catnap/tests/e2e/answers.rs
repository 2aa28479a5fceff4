//! What is said to those who ask for what is not there.

use reqwest::Method;
use serde_json::{Value, json};

use crate::rig::{Gateway, Reply, Sandbox};

/// What a request with this host gets.
async fn asked(gateway: &Gateway, host: &str) -> (u16, String, String) {
    let request = gateway.http.get(gateway.url()).header("host", host);
    let reply = Reply::of(request.send().await.unwrap()).await.unwrap();
    let kind = reply.header("content-type").to_owned();
    (reply.status, kind, reply.body)
}

fn not_found(id: &str) -> (u16, String, String) {
    let body =
        format!(r#"{{"sandboxId":"{id}","message":"The sandbox was not found","code":502}}"#);
    (502, "application/json; charset=utf-8".to_owned(), body)
}

#[tokio::test]
async fn hosts_that_name_nothing_are_told_so() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let unknown = "izzzzzzzzzzzzzzzzzzzz";
    assert_eq!(
        asked(&gateway, &format!("80-{unknown}.example.com")).await,
        not_found(unknown)
    );
    assert_eq!(
        asked(&gateway, &format!("80-{unknown}-6532622b.example.com:3000")).await,
        not_found(unknown)
    );
    for (host, said) in [
        ("80-.example.com", "Invalid sandbox ID"),
        ("80-a_b.example.com", "Invalid sandbox ID"),
        ("99999-iabc.example.com", "Invalid sandbox port"),
        ("0-iabc.example.com", "Invalid sandbox port"),
        ("80-iabc.exa mple.com", "Invalid host"),
        ("sandbox.example.com", "missing header"),
    ] {
        let (status, kind, body) = asked(&gateway, host).await;
        assert_eq!(
            (status, kind.as_str(), body.as_str()),
            (400, "text/plain; charset=utf-8", said),
            "{host}"
        );
    }
    let half = gateway
        .http
        .get(gateway.url())
        .header("E2b-Sandbox-Id", "iabc");
    let reply = Reply::of(half.send().await.unwrap()).await.unwrap();
    assert_eq!((reply.status, reply.body.as_str()), (400, "missing header"));
    gateway.finish().await;
}

#[tokio::test]
async fn a_sandbox_s_absence_is_told_in_the_contract_s_words() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway
        .create(json!({ "autoResume": { "enabled": false } }))
        .await;
    let host = format!("3210-{}.example.com", sandbox.id);
    let closed = format!(
        r#"{{"sandboxId":"{}","message":"The sandbox is running but port is not open","port":3210,"code":502}}"#,
        sandbox.id
    );
    let json = "application/json; charset=utf-8";
    assert_eq!(asked(&gateway, &host).await, (502, json.to_owned(), closed));

    let browser = sandbox
        .request(&gateway, Method::GET, 3210, "/")
        .header("user-agent", "Mozilla/5.0")
        .header("accept", "text/html");
    let page = Reply::of(browser.send().await.unwrap()).await.unwrap();
    assert_eq!(
        (page.status, page.header("content-type")),
        (502, "text/html; charset=utf-8")
    );
    assert!(
        page.body.contains("Closed Port Error")
            && page.body.contains("no service running on port 3210")
    );

    let init = sandbox.request(&gateway, Method::POST, 49983, "/init");
    let reserved = Reply::of(init.send().await.unwrap()).await.unwrap();
    let words = r#"{"message":"This endpoint is reserved for the E2B control plane and is not reachable through the sandbox URL","path":"/init","code":404}"#;
    assert_eq!((reserved.status, reserved.body.as_str()), (404, words));

    sandbox.pause(&gateway).await;
    assert_eq!(
        asked(&gateway, &host).await,
        not_found(&sandbox.id),
        "it may not be woken by requests"
    );
    sandbox.kill(&gateway).await;
    assert_eq!(asked(&gateway, &host).await, not_found(&sandbox.id));
    gateway.finish().await;
}

/// A call that cannot be answered, and the code it gets.
type WrongCall = (u16, Method, String, Option<Value>);

fn wrong_calls(id: &str) -> Vec<WrongCall> {
    let absent = "/sandboxes/inone";
    let its = |rest: &str| format!("/sandboxes/{}{rest}", id);
    vec![
        (404, Method::GET, absent.to_owned(), None),
        (404, Method::DELETE, absent.to_owned(), None),
        (404, Method::POST, format!("{absent}/pause"), None),
        (404, Method::POST, format!("{absent}/resume"), None),
        (404, Method::POST, format!("{absent}/fork"), None),
        (400, Method::GET, "/sandboxes/a-b-c".to_owned(), None),
        (
            404,
            Method::POST,
            "/v2/sandboxes".to_owned(),
            Some(json!({ "templateID": "none" })),
        ),
        (
            400,
            Method::POST,
            "/v2/sandboxes".to_owned(),
            Some(json!({ "templateID": "base", "timeout": 0 })),
        ),
        (
            400,
            Method::POST,
            "/v2/sandboxes".to_owned(),
            Some(json!({ "templateID": 7 })),
        ),
        (
            400,
            Method::POST,
            "/v2/sandboxes".to_owned(),
            Some(json!([])),
        ),
        (400, Method::POST, its("/fork"), Some(json!({ "count": 0 }))),
        (
            400,
            Method::POST,
            its("/timeout"),
            Some(json!({ "timeout": -2 })),
        ),
        (409, Method::POST, its("/resume"), None),
        (404, Method::GET, "/nothing/here".to_owned(), None),
    ]
}

#[tokio::test]
async fn the_api_says_what_is_wrong() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway.create(json!({})).await;
    let its = |rest: &str| format!("/sandboxes/{}{rest}", sandbox.id);
    for (wanted, method, path, body) in wrong_calls(&sandbox.id) {
        let (status, answer) = gateway.api(method.clone(), &path, body.clone()).await;
        assert_eq!(status, wanted, "{method} {path} {body:?}: {answer}");
        assert_eq!(answer["code"], wanted, "{method} {path} {body:?}: {answer}");
        assert!(
            answer["message"]
                .as_str()
                .is_some_and(|message| !message.is_empty()),
            "{answer}"
        );
    }
    let request = gateway.http.get(format!("{}{}", gateway.url(), its("")));
    let reply = Reply::of(request.send().await.unwrap()).await.unwrap();
    assert_eq!(reply.status, 401, "without a key");
    let (status, answer) = gateway.api(Method::GET, "/health", None).await;
    assert!(status == 200 || status == 204, "{answer}");

    gateway.finish().await;
}

#[tokio::test]
async fn a_paused_sandbox_is_not_paused_again_nor_forked() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway.create(json!({})).await;
    let its = |rest: &str| format!("/sandboxes/{}{rest}", sandbox.id);
    sandbox.pause(&gateway).await;
    let (status, answer) = gateway.api(Method::POST, &its("/pause"), None).await;
    let words = format!(
        "Error pausing sandbox - sandbox '{}' is already paused",
        sandbox.id
    );
    assert_eq!((status, &answer["message"]), (409, &json!(words)));
    let (status, answer) = gateway.api(Method::POST, &its("/fork"), None).await;
    let words = format!(
        "Sandbox '{}' is paused and cannot be forked; resume it first",
        sandbox.id
    );
    assert_eq!((status, &answer["message"]), (409, &json!(words)));
    assert_eq!(
        sandbox.get(&gateway, "/").await.status,
        502,
        "it wakes all the same, and nothing listens"
    );
    gateway.finish().await;
}

#[tokio::test]
async fn header_fields_name_a_sandbox_where_the_host_cannot() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway.probed(json!({})).await;
    let request = gateway
        .http
        .get(format!("{}/count", gateway.url()))
        .header("E2b-Sandbox-Id", &sandbox.id)
        .header("E2b-Sandbox-Port", Sandbox::PROBE);
    Reply::of(request.send().await.unwrap()).await.unwrap().ok();
    gateway.finish().await;
}
