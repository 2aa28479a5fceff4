//! Where requests go, and the exact words of every refusal.

use std::sync::Arc;

use axum::{Json, Router, body::Body, routing::get};
use coordinator::Access;
use edge::{Config, Edge};
use pool_api::{
    Port, SandboxState,
    fake::{PortScript, WakeScript},
};
use serde_json::json;

use crate::rig::{Rig, open, private, secured};

const LOCAL: (&str, &str) = ("host", "localhost");
const CHROME: (&str, &str) = ("user-agent", "Mozilla/5.0 Chrome/140");
const JSON: &str = "application/json; charset=utf-8";

#[tokio::test]
async fn requests_go_to_the_api_or_to_a_sandbox() {
    let rig = Rig::new().await;
    let api = Router::new()
        .route("/health", get(async || "ok"))
        .fallback(async |body: Body| Json(json!({ "api": true, "body": body_text(body).await })));
    rig.serve_api(api);
    let id = rig.sandbox("iabc", open()).await;
    assert_eq!(rig.get("/health", &[LOCAL]).await.body, "ok");
    assert!(
        rig.get("/sandboxes", &[("host", "api.example.com:8443")])
            .await
            .body
            .contains("\"api\":true")
    );
    let echo = rig.visit(3000, &id, &[]).await.echo();
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

async fn body_text(body: Body) -> String {
    String::from_utf8(axum::body::to_bytes(body, 1024).await.unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn a_malformed_name_is_400_in_plain_text() {
    let rig = Rig::new().await;
    for (fields, text) in [
        (&[("host", "0-iabc.x")][..], "Invalid sandbox port"),
        (&[("host", "80-i_c.x")], "Invalid sandbox ID"),
        (&[("host", "a b")], "Invalid host"),
        (&[LOCAL, ("e2b-sandbox-id", "iabc")], "missing header"),
    ] {
        let reply = rig.get("/", fields).await;
        assert_eq!((reply.status, reply.body.as_str()), (400, text));
    }
}

#[tokio::test]
async fn a_missing_api_is_503_with_a_code_and_a_message() {
    let rig = Rig::new().await;
    let reply = rig.get("/health", &[LOCAL]).await;
    assert_eq!(reply.status, 503);
    let body: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!(body["code"], 503);
    assert!(body["message"].is_string());
}

#[tokio::test]
async fn an_unknown_sandbox_and_one_that_sleeps_for_good_are_not_found() {
    let rig = Rig::new().await;
    let id = rig.sleeping("iasleep", Access::default()).await;
    for id in [&"iunknown".parse().unwrap(), &id] {
        let reply = rig.visit(80, id, &[]).await;
        assert_eq!((reply.status, reply.header("content-type")), (502, JSON));
        assert_eq!(
            reply.body,
            format!(r#"{{"sandboxId":"{id}","message":"The sandbox was not found","code":502}}"#)
        );
    }
    let page = rig.visit(80, &id, &[CHROME]).await;
    assert_eq!(
        (page.status, page.header("content-type")),
        (502, "text/html; charset=utf-8")
    );
    assert!(page.body.starts_with("<html") && page.body.ends_with("</html>"));
    assert!(page.body.contains("<title>Sandbox Not Found</title>"));
    assert_eq!(rig.fake.wakes(), 0);
}

#[tokio::test]
async fn pages_of_other_origins_may_read_what_the_edge_says() {
    let rig = Rig::new().await;
    let gone = "igone".parse().unwrap();
    let told = rig.ask_ahead(49983, &gone).await;
    assert_eq!((told.status, told.body.as_str()), (204, ""));
    assert_eq!(told.header("access-control-allow-origin"), "*");
    assert_eq!(
        told.header("access-control-allow-headers"),
        "x-access-token"
    );
    let refused = rig
        .visit(49983, &gone, &[("origin", "https://a.example")])
        .await;
    assert_eq!(refused.status, 502);
    assert_eq!(refused.header("access-control-allow-origin"), "*");
    // One that is there answers for itself, also to those that ask ahead.
    let here = rig.sandbox("iabc", open()).await;
    let own = rig.ask_ahead(80, &here).await;
    assert_eq!(own.status, 200);
    assert!(!own.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn a_withdrawn_sandbox_is_not_found_before_it_is_killed() {
    let rig = Rig::new().await;
    let id = rig.sandbox("iabc", open()).await;
    assert_eq!(rig.visit(80, &id, &[]).await.status, 200);
    rig.coordinator.withdraw(&id).await.unwrap();
    assert_eq!(rig.visit(80, &id, &[]).await.status, 502);
}

#[tokio::test]
async fn a_closed_port_is_tried_five_times_and_then_said() {
    let rig = Rig::new().await;
    let id = rig.sandbox("iabc", open()).await;
    let port = |number: u16| Port::try_from(number).unwrap();
    rig.fake.script_port(port(3210), PortScript::Closed);
    rig.fake.script_port(port(3211), PortScript::ClosedTimes(4));
    let (closed, late) = tokio::join!(rig.visit(3210, &id, &[]), rig.visit(3211, &id, &[]));
    assert_eq!(closed.status, 502);
    let expected = r#"{"sandboxId":"iabc","message":"The sandbox is running but port is not open","port":3210,"code":502}"#;
    assert_eq!(closed.body, expected);
    assert_eq!(late.echo().port, 3211);
    assert_eq!(rig.fake.dials(), 10);
    let page = rig.visit(3210, &id, &[CHROME]).await;
    assert!(
        page.body.contains("Closed Port Error") && page.body.contains("no service running on port")
    );
}

#[tokio::test]
async fn private_traffic_is_checked_before_anything_wakes() {
    let rig = Rig::new().await;
    let (id, asleep) = (
        rig.sandbox("iabc", private("right")).await,
        rig.sleeping("izzz", private("right")).await,
    );
    let secured = "Sandbox is secured with traffic access token.";
    let missing = format!("{secured} Token header 'e2b-traffic-access-token' is missing");
    let invalid =
        format!("{secured} Provided token in header 'e2b-traffic-access-token' is invalid");
    let wrong = &[("e2b-traffic-access-token", "wrong")][..];
    for (fields, message) in [(&[][..], &missing), (wrong, &invalid)] {
        let reply = rig.visit(80, &id, fields).await;
        let body = format!(r#"{{"sandboxId":"iabc","message":"{message}","code":403}}"#);
        assert_eq!((reply.status, reply.body), (403, body));
        let reply = rig.visit(80, &asleep, fields).await;
        assert_eq!(reply.status, 403);
        assert!(
            reply
                .body
                .contains("This sandbox can't be resumed with the credentials provided."),
            "{}",
            reply.body
        );
    }
    assert_eq!(rig.fake.wakes(), 0, "no token, no wake");
    let echo = rig
        .visit(80, &asleep, &[("e2b-traffic-access-token", "right")])
        .await
        .echo();
    assert!(
        !echo.headers.contains_key("e2b-traffic-access-token"),
        "the guest does not see the token"
    );
    assert_eq!(rig.fake.wakes(), 1);
    assert_eq!(
        rig.visit(49983, &id, &[]).await.status,
        200,
        "the agent has its own token"
    );
}

#[tokio::test]
async fn the_agent_of_a_sleeping_sandbox_is_woken_by_its_token_only() {
    let rig = Rig::new().await;
    let id = rig.sleeping("iabc", secured("right")).await;
    for fields in [&[][..], &[("x-access-token", "wrong")]] {
        let reply = rig.visit(49983, &id, fields).await;
        let body = r#"{"sandboxId":"iabc","message":"This sandbox can't be resumed with the credentials provided. Check your access token and try again.","code":403}"#;
        assert_eq!((reply.status, reply.body.as_str()), (403, body));
    }
    assert_eq!(rig.fake.wakes(), 0);
    assert_eq!(
        rig.visit(49983, &id, &[("x-access-token", "right")])
            .await
            .echo()
            .epoch,
        2
    );
    assert_eq!(
        rig.visit(49983, &id, &[]).await.status,
        200,
        "a running agent checks for itself"
    );
}

#[tokio::test]
async fn states_and_failures_have_their_codes() {
    let rig = Rig::new().await;
    let id = rig.sandbox("iabc", open()).await;
    let never_woken = rig.sandbox("inever", Access::default()).await;
    rig.fake.set_state(&never_woken, SandboxState::Pausing);
    let reply = rig.visit(80, &never_woken, &[]).await;
    assert_eq!(reply.status, 502);
    assert!(reply.body.contains("The sandbox was not found"));
    rig.fake.set_state(&id, SandboxState::Stopping);
    assert_eq!(rig.visit(80, &id, &[]).await.status, 502);
    rig.fake.set_state(&id, SandboxState::Paused);
    for (script, status) in [(WakeScript::NoRoom, 503), (WakeScript::Fails, 503)] {
        rig.fake.script_wake(script);
        let reply = rig.visit(80, &id, &[]).await;
        assert_eq!((reply.status, reply.header("retry-after")), (status, "2"));
    }
    assert_eq!(
        rig.visit(80, &id, &[]).await.status,
        200,
        "the next good request works"
    );
}

#[tokio::test]
async fn reserved_paths_are_not_reachable() {
    let rig = Rig::new().await;
    let id = rig.sandbox("iabc", open()).await;
    let host = format!("49983-{id}.x");
    let reply = rig.get("/x/..//init", &[("host", &host)]).await;
    assert_eq!(reply.status, 404);
    assert!(
        reply
            .body
            .starts_with(r#"{"message":"This endpoint is reserved for the E2B control plane"#)
    );
    assert_eq!(
        rig.get("/init", &[("host", "49983-iunknown.x")])
            .await
            .status,
        502
    );
    assert_eq!(rig.get("/health", &[("host", &host)]).await.status, 200);
}

#[tokio::test]
async fn a_masked_host_is_shown_to_ports_but_not_to_the_agent() {
    let rig = Rig::new().await;
    let access = Access {
        mask_request_host: Some("h:${PORT}".to_owned()),
        ..open()
    };
    let id = rig.sandbox("iabc", access).await;
    let echo = rig.visit(8080, &id, &[]).await.echo();
    assert_eq!(echo.headers["host"], "h:8080");
    assert_eq!(echo.headers["x-forwarded-host"], "8080-iabc.example.com");
    assert_eq!(
        rig.visit(49983, &id, &[]).await.echo().headers["host"],
        "49983-iabc.example.com"
    );
}

#[tokio::test]
async fn a_port_in_use_is_one_clear_error() {
    let rig = Rig::new().await;
    let address = format!("127.0.0.1:{}", rig.port);
    let config = Config::new(address.parse().unwrap(), rig.dir.path().join("api.sock"));
    let error =
        Edge::bind(config, Arc::new(rig.fake.clone()), rig.coordinator.clone()).unwrap_err();
    assert_eq!(error.to_string(), format!("listen on {address}"));
    let edge::StartError::Bind(error) = error else {
        panic!("{error}")
    };
    assert_eq!(error.source.kind(), std::io::ErrorKind::AddrInUse);
    rig.stop().await.unwrap();
}
