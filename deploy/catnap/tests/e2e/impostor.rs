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

    // Whether it lies that all is well or says what nobody understands: each call is answered, and the sandbox is somewhere.
    for memory in [false, true, true, true] {
        let body = json!({ "memory": memory });
        call(&gateway, &sandbox, "pause", body).await;
        call(&gateway, &sandbox, "connect", json!({})).await;
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

/// Calls the API until the sandbox is not on its way between two states: after a pause that failed its guest is asked to
/// thaw, and may take its time. It either does as asked, or says that it could not, or that it was so before.
async fn call(gateway: &Gateway, sandbox: &Sandbox, what: &str, body: Value) {
    let path = format!("/sandboxes/{}/{what}", sandbox.id);
    let (status, answer) = until(what, async || {
        let (status, answer) = gateway.api(Method::POST, &path, Some(body.clone())).await;
        if status == 409 && answer["message"].to_string().contains("transitioning") {
            Err(answer.to_string())
        } else {
            Ok((status, answer))
        }
    })
    .await;
    let told = status == 409 || status >= 500 && answer["message"].is_string();
    assert!(status < 300 || told, "{what}: {status} {answer}");
    let state = sandbox.state(gateway).await;
    assert!(["running", "paused"].contains(&state.as_str()), "{state}");
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
