//! Sandboxes without an end, and the ends of the others.

use pool_api::SandboxState;
use serde_json::{Value, json};

use crate::rig::{PATIENCE, Rig, lifetime, sandbox};

const PYTHON: (&str, &str) = ("user-agent", "e2b-python-sdk/2.45.1");

async fn ends(rig: &Rig, id: &str, fields: &[(&str, &str)]) -> Value {
    let path = format!("/sandboxes/{id}");
    let seen = rig
        .call_with("GET", &path, json!({}), fields)
        .await
        .expect(200);
    let listed = rig
        .call_with("GET", "/v2/sandboxes", json!({}), fields)
        .await
        .expect(200);
    let mut listed = listed.as_array().unwrap().iter();
    let listed = listed.find(|sandbox| sandbox["sandboxID"] == id).unwrap();
    assert_eq!(
        listed["endAt"], seen["endAt"],
        "a list and a look say the same"
    );
    seen["endAt"].clone()
}

/// Makes a sandbox that has no end.
async fn endless(rig: &Rig) -> String {
    let body = json!({ "templateID": "base", "timeout": -1 });
    let made = rig.call("POST", "/sandboxes", body).await.expect(201);
    made["sandboxID"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_sandbox_may_have_no_end() {
    let rig = Rig::new().await;
    let id = endless(&rig).await;
    let id = id.as_str();
    for agent in [
        "e2b-python-sdk/2.63.0",
        "e2b-js-sdk/2.51.0",
        "x e2b-code-interpreter/1",
    ] {
        assert_eq!(
            ends(&rig, id, &[("user-agent", agent)]).await,
            "9999-12-31T23:59:59Z"
        );
    }
    assert_eq!(
        ends(&rig, id, &[("user-agent", "python-requests/2")]).await,
        Value::Null
    );
    assert!(
        rig.get(&format!("/sandboxes/{id}"))
            .await
            .expect(200)
            .get("endAt")
            .is_none()
    );
}

#[tokio::test]
async fn nothing_but_a_timeout_gives_it_an_end_again() {
    let rig = Rig::new().await;
    let id = endless(&rig).await;
    let id = id.as_str();
    let other = rig
        .create(json!({ "templateID": "base", "timeout": 60 }))
        .await;
    // Nothing shortens it but a timeout.
    for (path, body, status) in [
        (
            format!("/v2/sandboxes/{id}/connect"),
            json!({ "timeout": 60 }),
            200,
        ),
        (
            format!("/sandboxes/{id}/refreshes"),
            json!({ "duration": 60 }),
            204,
        ),
        (format!("/sandboxes/{id}/connect"), json!({}), 200),
    ] {
        rig.call("POST", &path, body).await.expect(status);
        assert_eq!(ends(&rig, id, &[PYTHON]).await, "9999-12-31T23:59:59Z");
    }
    rig.call(
        "POST",
        &format!("/sandboxes/{id}/timeout"),
        json!({ "timeout": 60 }),
    )
    .await
    .expect(204);
    assert!(lifetime(&rig.get(&format!("/sandboxes/{id}")).await.expect(200)) < 70_000_000);
    // A timeout and a connect take it away again.
    for path in [
        format!("/sandboxes/{id}/timeout"),
        format!("/sandboxes/{other}/connect"),
    ] {
        let reply = rig.call("POST", &path, json!({ "timeout": -1 })).await;
        assert!(reply.status < 300, "{}", reply.text);
    }
    let (fake, dir) = rig.crash().await;
    let rig = Rig::over(fake, dir).await;
    for id in [id, &other] {
        assert_eq!(
            ends(&rig, id, &[PYTHON]).await,
            "9999-12-31T23:59:59Z",
            "over a crash"
        );
    }
}

#[tokio::test]
async fn a_client_of_cubesandbox_that_says_no_time_means_none() {
    let rig = Rig::new().await;
    let cube = [("user-agent", "python-requests/2.32.5")];
    let body = json!({ "templateID": "base" });
    let made = rig
        .call_with("POST", "/sandboxes", body, &cube)
        .await
        .expect(201);
    let id = made["sandboxID"].as_str().unwrap();
    assert_eq!(ends(&rig, id, &cube).await, Value::Null);
    let path = format!("/sandboxes/{id}");
    rig.call("POST", &format!("{path}/pause"), Value::Null)
        .await
        .expect(204);
    rig.call_with("POST", &format!("{path}/resume"), json!({}), &cube)
        .await
        .expect(201);
    assert_eq!(ends(&rig, id, &cube).await, Value::Null);
    let body = json!({ "templateID": "base", "timeout": 30 });
    let made = rig
        .call_with("POST", "/sandboxes", body, &cube)
        .await
        .expect(201);
    let path = format!("/sandboxes/{}", made["sandboxID"].as_str().unwrap());
    assert_eq!(lifetime(&rig.get(&path).await.expect(200)), 30_000_000);
}

#[tokio::test]
async fn e2bs_own_routes_do_not_know_of_it() {
    let rig = Rig::new().await;
    let id = rig.create(json!({ "templateID": "base" })).await;
    for (path, body) in [
        (
            "/v2/sandboxes".to_owned(),
            json!({ "templateID": "base", "timeout": -1 }),
        ),
        (
            format!("/v2/sandboxes/{id}/connect"),
            json!({ "timeout": -1 }),
        ),
        (
            "/sandboxes".to_owned(),
            json!({ "templateID": "base", "timeout": -2 }),
        ),
    ] {
        assert_eq!(
            rig.call("POST", &path, body).await.error(400),
            "Timeout must be greater than 0"
        );
    }
}

#[tokio::test]
async fn one_that_sleeps_has_no_window_until_it_wakes() {
    let rig = Rig::new().await;
    let id = endless(&rig).await;
    let id = id.as_str();
    let path = format!("/sandboxes/{id}");
    rig.call("POST", &format!("{path}/pause"), Value::Null)
        .await
        .expect(204);
    let paused = rig.get(&path).await.expect(200);
    assert!(
        paused["endAt"].as_str() < Some("9999"),
        "the time of the pause"
    );
    // A connect that says nothing gives it what it was made with.
    rig.call("POST", &format!("{path}/connect"), json!({}))
        .await
        .expect(201);
    assert_eq!(ends(&rig, id, &[PYTHON]).await, "9999-12-31T23:59:59Z");
    rig.call("POST", &format!("{path}/pause"), Value::Null)
        .await
        .expect(204);
    rig.call("POST", &format!("{path}/resume"), json!({ "timeout": 30 }))
        .await
        .expect(201);
    assert_eq!(lifetime(&rig.get(&path).await.expect(200)), 30_000_000);
}

#[tokio::test]
async fn no_life_is_longer_than_the_longest() {
    let rig = Rig::new().await;
    let id = rig
        .create(json!({ "templateID": "base", "timeout": 86_400 }))
        .await;
    let (path, day) = (format!("/sandboxes/{id}"), 86_400_000_000);
    let before = rig.get(&path).await.expect(200);
    assert_eq!(lifetime(&before), day);
    for (route, status) in [("timeout", 204), ("connect", 200)] {
        let body = json!({ "timeout": 86_400 });
        rig.call("POST", &format!("{path}/{route}"), body)
            .await
            .expect(status);
        assert_eq!(
            rig.get(&path).await.expect(200),
            before,
            "{route} is clamped"
        );
    }
    for (route, message) in [
        ("timeout", "Max instance length exceeded"),
        ("connect", "Timeout cannot be greater than 24 hours"),
        ("fork", "Timeout cannot be greater than 24 hours"),
    ] {
        let body = json!({ "timeout": 86_401 });
        let reply = rig.call("POST", &format!("{path}/{route}"), body).await;
        assert_eq!(reply.error(400), message);
    }
    // A wake begins a life: it has all of its time again.
    rig.call("POST", &format!("{path}/pause"), Value::Null)
        .await
        .expect(204);
    let body = json!({ "timeout": 86_400 });
    rig.call("POST", &format!("{path}/connect"), body)
        .await
        .expect(201);
    assert_eq!(lifetime(&rig.get(&path).await.expect(200)), day);
}

#[tokio::test]
async fn one_to_be_killed_at_its_end_is_killed_asleep() {
    let rig = Rig::new().await;
    let make = async |lifecycle: Value| {
        let body = json!({ "templateID": "base", "timeout": 2, "lifecycle": lifecycle });
        let made = rig.call("POST", "/sandboxes", body).await.expect(201);
        made["sandboxID"].as_str().unwrap().to_owned()
    };
    let doomed = make(json!({ "onTimeout": "kill" })).await;
    let kept = make(json!({ "onTimeout": "pause", "autoResume": true })).await;
    let seen = rig.get(&format!("/sandboxes/{kept}")).await.expect(200);
    assert_eq!(
        seen["lifecycle"],
        json!({ "onTimeout": "pause", "autoResume": true })
    );
    let before = rig.get(&format!("/sandboxes/{doomed}")).await.expect(200);
    rig.call("POST", &format!("/sandboxes/{doomed}/pause"), Value::Null)
        .await
        .expect(204);
    let paused = rig.get(&format!("/sandboxes/{doomed}")).await.expect(200);
    assert_eq!(
        (&paused["state"], &paused["endAt"]),
        (&json!("paused"), &before["endAt"])
    );
    let (fake, dir) = rig.crash().await;
    let rig = Rig::over(fake, dir).await;
    let name = sandbox(&doomed);
    let gone = rig
        .fake
        .wait_for(&name, |state| matches!(state, SandboxState::Stopped(_)));
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
    rig.until(&doomed, |reply| reply.status == 404).await;
    let asleep = |reply: &crate::rig::Reply| reply.expect(200)["state"] == "paused";
    rig.until(&kept, asleep).await;
    let body = json!({ "templateID": "base", "lifecycle": { "onTimeout": "sleep" } });
    rig.call("POST", "/sandboxes", body).await.error(400);
}
