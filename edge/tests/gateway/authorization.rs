//! SPECIFICATION.md, Requests: no sandbox wakes before the tokens of the request are checked; host-only paths.

use tokio::io::AsyncReadExt;

use crate::rig::{Rig, TIMEOUT, public, with_agent_token, with_traffic_token};

const LOCAL: (&str, &str) = ("host", "localhost:3000");

#[tokio::test]
async fn traffic_token_is_checked_before_the_wake() {
    let rig = Rig::new().await;
    let (id, paused) = (
        rig.sandbox("iabc", with_traffic_token("right")).await,
        rig.paused_sandbox("izzz", with_traffic_token("right"))
            .await,
    );
    let secured = "Sandbox is secured with traffic access token.";
    let missing = format!("{secured} Token header 'e2b-traffic-access-token' is missing");
    let invalid =
        format!("{secured} Provided token in header 'e2b-traffic-access-token' is invalid");
    let wrong = &[("e2b-traffic-access-token", "wrong")][..];
    for (headers, message) in [(&[][..], &missing), (wrong, &invalid)] {
        let reply = rig.get_port(80, &id, headers).await;
        let body = format!(r#"{{"sandboxId":"iabc","message":"{message}","code":403}}"#);
        assert_eq!((reply.status, reply.body), (403, body));
        let reply = rig.get_port(80, &paused, headers).await;
        assert_eq!(reply.status, 403);
        assert!(
            reply
                .body
                .contains("This sandbox can't be resumed with the credentials provided."),
            "{}",
            reply.body
        );
    }
    assert_eq!(rig.node.wakes(), 0, "no wake without a token");
    let token = ("e2b-traffic-access-token", "right");
    let echo = rig.get_port(80, &paused, &[token]).await.echo();
    assert!(
        !echo.headers.contains_key("e2b-traffic-access-token"),
        "the guest does not receive the token"
    );
    assert_eq!(rig.node.wakes(), 1);
    assert_eq!(
        rig.get_port(49983, &id, &[]).await.status,
        200,
        "the agent checks its own token"
    );
}

#[tokio::test]
async fn agent_port_wakes_only_with_its_token() {
    let rig = Rig::new().await;
    let id = rig.paused_sandbox("iabc", with_agent_token("right")).await;
    for headers in [&[][..], &[("x-access-token", "wrong")]] {
        let reply = rig.get_port(49983, &id, headers).await;
        let body = r#"{"sandboxId":"iabc","message":"This sandbox can't be resumed with the credentials provided. Check your access token and try again.","code":403}"#;
        assert_eq!((reply.status, reply.body.as_str()), (403, body));
    }
    assert_eq!(rig.node.wakes(), 0);
    let token = ("x-access-token", "right");
    let echo = rig.get_port(49983, &id, &[token]).await.echo();
    assert_eq!(echo.epoch, 2);
}

#[tokio::test]
async fn running_agent_is_reached_with_its_token_only() {
    let rig = Rig::new().await;
    let id = rig.sandbox("iabc", with_agent_token("right")).await;
    let host = format!("49983-{id}.x");
    for headers in [&[][..], &[("x-access-token", "wrong")]] {
        let reply = rig.get_port(49983, &id, headers).await;
        let body = r#"{"code":401,"message":"unauthorized access, please provide a valid access token or method signing if supported"}"#;
        assert_eq!((reply.status, reply.body.as_str()), (401, body));
    }
    assert_eq!(rig.node.dials(), 0, "the guest is not asked");
    for path in ["/health", "/files?path=a&signature=b"] {
        assert_eq!(
            rig.get(path, &[("host", &host)]).await.status,
            200,
            "{path}"
        );
    }
    let token = ("x-access-token", "right");
    assert_eq!(rig.get_port(49983, &id, &[token]).await.status, 200);
}

#[tokio::test]
async fn host_only_paths_are_404() {
    let rig = Rig::new().await;
    let id = rig.sandbox("iabc", public()).await;
    let host = format!("49983-{id}.x");
    let reply = rig.get("/x/..//init", &[("host", &host)]).await;
    assert_eq!(reply.status, 404);
    assert!(
        reply
            .body
            .starts_with(r#"{"message":"This endpoint is reserved for the E2B control plane"#)
    );
    let unknown = rig.get("/init", &[("host", "49983-iunknown.x")]).await;
    assert_eq!(unknown.status, 502);
    assert_eq!(rig.get("/health", &[("host", &host)]).await.status, 200);
}

#[tokio::test]
async fn path_prefix_does_not_bypass_authorization() {
    let rig = Rig::new().await;
    rig.paused_sandbox("iabc", with_traffic_token("right"))
        .await;
    assert_eq!(rig.get("/sandbox/iabc/80/", &[LOCAL]).await.status, 403);
    let host_only = rig.get("/sandbox/iabc/49983/x/../init", &[LOCAL]).await;
    assert_eq!(host_only.status, 404);
    assert!(
        host_only.body.contains(r#""path":"/x/../init""#),
        "{}",
        host_only.body
    );
    assert_eq!(rig.node.wakes(), 0);
    let token = ("cube-traffic-access-token", "right");
    let reply = rig.get("/sandbox/iabc/80/", &[LOCAL, token]).await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn encoded_prefix_paths_cannot_reach_host_only_paths() {
    let rig = Rig::new().await;
    let id = rig.paused_sandbox("iabc", public()).await;
    for path in [
        "/sandbox/iabc/49983/%69nit",
        "/sandbox/iabc/49983/./init",
        "/sandbox/iabc/49983//init",
        "/sandbox/iabc/49983/x/%2e%2e/init?q",
        "/sandbox/iabc/49983/%2e%2e/%2e%2e/init",
        "/sandbox/iabc/49983/init#f",
        "/sandbox/IABC-old/49983/init",
        "http://localhost:3000/sandbox/iabc/49983/init",
    ] {
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: localhost:3000\r\nConnection: close\r\n\r\n");
        let mut socket = rig.send_raw(&head).await;
        let mut response = String::new();
        let read = tokio::time::timeout(TIMEOUT, socket.read_to_string(&mut response)).await;
        read.unwrap().unwrap();
        assert!(response.starts_with("HTTP/1.1 404 "), "{path}: {response}");
    }
    assert_eq!(rig.node.wakes(), 0);
    let echo = rig.get("/sandbox/iabc/49983/a/%2e%2e/b", &[LOCAL]).await;
    assert_eq!(
        echo.echo().target,
        "/a/%2e%2e/b",
        "the checked path of {id}"
    );
}
