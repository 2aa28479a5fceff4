//! A guest whose agent was replaced by a program that sends malformed responses.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::rig::{Gateway, Reply, Sandbox, TIMEOUT, wait_until};

/// The number of requests to each port. The agent has six malformed responses.
const REQUESTS: usize = 7;

#[tokio::test]
async fn hostile_agent_affects_no_other_sandbox() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let bystander = gateway.create_with_probe(json!({})).await;
    let sandbox = gateway.create(json!({})).await;
    replace_agent(&gateway, &sandbox).await;
    let before = metrics(&gateway, &sandbox).await;

    for port in [49983, 8080] {
        for _ in 0..REQUESTS {
            let reply = timeout(TIMEOUT, request(&gateway, &sandbox, port)).await;
            // A truncated response is an error of the client.
            if let Ok(reply) = reply.expect("the gateway did not respond") {
                assert!((502..=504).contains(&reply.status), "{reply:?}");
            }
        }
    }
    assert_eq!(sandbox.state(&gateway).await, "running");
    let after = metrics(&gateway, &sandbox).await;
    assert_eq!(after, before, "malformed metrics are not stored");

    // The API responds to each call, and reports a state, whatever the agent sends.
    for memory in [false, true, true, true] {
        let body = json!({ "memory": memory });
        call(&gateway, &sandbox, "pause", body).await;
        call(&gateway, &sandbox, "connect", json!({})).await;
    }

    let hits: u64 = bystander.get(&gateway, "/count").await.ok().value("hits");
    assert!(hits > 0);
    sandbox.kill(&gateway).await;
    sandbox.wait_for_state(&gateway, "").await;
    gateway.finish().await;
}

/// Replaces the agent on the disk, and boots the sandbox from it.
async fn replace_agent(gateway: &Gateway, sandbox: &Sandbox) {
    let program = std::fs::read(&gateway.artefacts.hostile_agent).unwrap();
    sandbox.write(gateway, "/home/user/agent", program).await;
    let script = "chmod 755 /home/user/agent && mv /home/user/agent /sbin/catnap-guest";
    let replaced = sandbox
        .run(gateway, "root", &["/bin/sh", "-c", script])
        .await;
    assert_eq!(replaced.code, 0, "{replaced:?}");
    let path = format!("/sandboxes/{}/pause", sandbox.id);
    let body = json!({ "memory": false });
    let (status, body) = gateway.api(Method::POST, &path, Some(body)).await;
    assert_eq!(status, 204, "{body}");
    let path = format!("/v2/sandboxes/{}/connect", sandbox.id);
    let body = json!({ "timeout": 3600 });
    let (status, body) = gateway.api(Method::POST, &path, Some(body)).await;
    assert_eq!(status, 201, "{body}");
    sandbox.wait_for_state(gateway, "running").await;
}

/// Calls the API until the sandbox is between no two states: after a failed pause the pool asks the guest to thaw its
/// disk, which may take a while. Asserts that the call succeeds, is a conflict, or is a 5xx with a message.
async fn call(gateway: &Gateway, sandbox: &Sandbox, operation: &str, body: Value) {
    let path = format!("/sandboxes/{}/{operation}", sandbox.id);
    let (status, response) = wait_until(operation, async || {
        let (status, response) = gateway.api(Method::POST, &path, Some(body.clone())).await;
        if status == 409 && response["message"].to_string().contains("transitioning") {
            Err(response.to_string())
        } else {
            Ok((status, response))
        }
    })
    .await;
    let is_error = status == 409 || status >= 500 && response["message"].is_string();
    assert!(status < 300 || is_error, "{operation}: {status} {response}");
    let state = sandbox.state(gateway).await;
    assert!(["running", "paused"].contains(&state.as_str()), "{state}");
}

async fn metrics(gateway: &Gateway, sandbox: &Sandbox) -> Value {
    let path = format!("/sandboxes/{}/metrics", sandbox.id);
    let (status, metrics) = gateway.api(Method::GET, &path, None).await;
    assert_eq!(status, 200);
    metrics
}

async fn request(gateway: &Gateway, sandbox: &Sandbox, port: u16) -> reqwest::Result<Reply> {
    let request = sandbox.request(gateway, Method::GET, port, "/files?path=a");
    Reply::read(request.send().await?).await
}

/// Connects to each vsock address of the guest and tries to take over the agent's token.
const TAKEOVER: &str = r#"
import socket
body = b'{"accessToken":"stolen00000000000000000000"}'
head = b'POST /init HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n' % len(body)
for cid in (0, 1, 2, 3, 0xffffffff):
    for port in (1024, 1025, 1026, 49983):
        try:
            s = socket.socket(socket.AF_VSOCK)
            s.settimeout(5)
            s.connect((cid, port))
            s.sendall(head + body)
            if s.recv(100):
                print('answered', cid, port)
        except OSError:
            pass
print('done')
"#;

#[tokio::test]
async fn guest_process_cannot_speak_as_the_host() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway.create(json!({})).await;
    let tried = sandbox
        .run(&gateway, "daemon", &["python3", "-c", TAKEOVER])
        .await;
    assert_eq!((tried.code, tried.stdout.trim()), (0, "done"), "{tried:?}");
    // The owner's token is still the agent's.
    let run = sandbox.run(&gateway, "root", &["true"]).await;
    assert_eq!(run.code, 0, "{run:?}");
    gateway.finish().await;
}
