//! A guest whose agent is not ours any more, and says what it likes.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::rig::{Gateway, PATIENCE, Reply, Sandbox, until};

/// Requests to it: each is answered in another wrong way.
const REQUESTS: usize = 7;

#[tokio::test]
async fn an_impostor_in_the_place_of_the_agent_harms_nobody_else() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let bystander = gateway.probed(json!({})).await;
    let sandbox = gateway.create(json!({})).await;
    take_over(&gateway, &sandbox).await;
    let figures = figures_of(&gateway, &sandbox).await;

    for port in [49983, 8080] {
        for _ in 0..REQUESTS {
            let asked = timeout(PATIENCE, ask(&gateway, &sandbox, port)).await;
            // What breaks off in its middle is seen as broken by whoever reads it.
            if let Ok(reply) = asked.expect("a wrong answer holds nobody") {
                assert!((502..=504).contains(&reply.status), "{reply:?}");
            }
        }
    }
    assert_eq!(sandbox.state(&gateway).await, "running");
    let now = figures_of(&gateway, &sandbox).await;
    assert_eq!(now, figures, "no figures are made up");

    // Whether it lies that all is well or says what nobody understands: the sandbox is where the API says it is.
    for memory in [false, true, true, true] {
        let path = format!("/sandboxes/{}/pause", sandbox.id);
        let body = json!({ "memory": memory });
        let (status, answer) = gateway.api(Method::POST, &path, Some(body)).await;
        let state = told(&sandbox, &gateway, status, ["paused", "running"], &answer).await;
        if state == "running" {
            assert!(!memory, "memory is kept whatever the guest says: {answer}");
            continue;
        }
        let path = format!("/v2/sandboxes/{}/connect", sandbox.id);
        let (status, answer) = gateway.api(Method::POST, &path, Some(json!({}))).await;
        let state = told(&sandbox, &gateway, status, ["running", "paused"], &answer).await;
        if state == "paused" {
            let (status, answer) = gateway.api(Method::POST, &path, Some(json!({}))).await;
            told(&sandbox, &gateway, status, ["running", "paused"], &answer).await;
            break;
        }
    }

    let hits: u64 = bystander.get(&gateway, "/count").await.ok().value("hits");
    assert!(hits > 0);
    sandbox.kill(&gateway).await;
    sandbox.becomes(&gateway, "").await;
    gateway.finish().await;
}

/// Lets the impostor be pid 1: the sandbox is booted from a disk that has it in the agent's place.
async fn take_over(gateway: &Gateway, sandbox: &Sandbox) {
    let impostor = std::fs::read(&gateway.built.impostor).unwrap();
    sandbox
        .write(gateway, "/home/user/impostor", impostor)
        .await;
    let replace = "chmod 755 /home/user/impostor && mv /home/user/impostor /sbin/catnap-guest";
    let replaced = sandbox
        .run(gateway, "root", &["/bin/sh", "-c", replace])
        .await;
    assert_eq!(replaced.code, 0, "{replaced:?}");
    let path = format!("/sandboxes/{}/pause", sandbox.id);
    let body = json!({ "memory": false });
    let (status, answer) = gateway.api(Method::POST, &path, Some(body)).await;
    assert_eq!(status, 204, "{answer}");
    let path = format!("/v2/sandboxes/{}/connect", sandbox.id);
    let (status, answer) = gateway
        .api(Method::POST, &path, Some(json!({ "timeout": 3600 })))
        .await;
    assert_eq!(status, 201, "{answer}");
    until("it runs", async || match sandbox.state(gateway).await {
        state if state == "running" => Ok(()),
        state => Err(state),
    })
    .await;
}

/// Where the sandbox is: in the first of these states if the call succeeded, else in the second.
async fn told(
    sandbox: &Sandbox,
    gateway: &Gateway,
    status: u16,
    [done, not_done]: [&'static str; 2],
    answer: &Value,
) -> &'static str {
    let expected = if status < 300 { done } else { not_done };
    assert!(
        status < 300 || status >= 500 && answer["message"].is_string(),
        "{status} {answer}"
    );
    assert_eq!(sandbox.state(gateway).await, expected, "{status} {answer}");
    expected
}

async fn figures_of(gateway: &Gateway, sandbox: &Sandbox) -> Value {
    let path = format!("/sandboxes/{}/metrics", sandbox.id);
    let (status, figures) = gateway.api(Method::GET, &path, None).await;
    assert_eq!(status, 200);
    figures
}

async fn ask(gateway: &Gateway, sandbox: &Sandbox, port: u16) -> reqwest::Result<Reply> {
    let request = sandbox.request(gateway, Method::GET, port, "/files?path=a");
    Reply::of(request.send().await?).await
}
