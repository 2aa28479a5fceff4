//! Each route: what it does, and every way it says no.

use pool_api::{Node, SandboxState};
use serde_json::{Value, json};

use crate::rig::{KEY, Rig, sandbox};

const UNKNOWN: &str = "/sandboxes/iunknown";

fn missing(id: &str) -> String {
    format!("Sandbox \"{id}\" doesn't exist or you don't have access to it")
}

#[tokio::test]
async fn only_health_is_open_to_all() {
    let rig = Rig::new().await;
    let health = rig.raw("GET", "/health", &[], "").await;
    assert_eq!(health.expect(200), json!({ "status": "ok" }));
    for path in ["/sandboxes", "/v2/sandboxes", "/templates", "/nothing"] {
        assert_eq!(
            rig.raw("GET", path, &[], "").await.error(401),
            "authorization header is missing"
        );
        let wrong = rig
            .raw("GET", path, &[("X-API-KEY", "e2b_1")], "")
            .await
            .error(401);
        assert!(
            wrong.starts_with("Invalid API key, please visit"),
            "{wrong}"
        );
    }
    assert_eq!(
        rig.raw("GET", "/sandboxes", &[("X-API-KEY", KEY)], "")
            .await
            .status,
        200
    );
    rig.end().await;
}

#[tokio::test]
async fn a_second_generation_sandbox_is_secured_and_lives_300_seconds() {
    let rig = Rig::new().await;
    let body = json!({
        "templateID": " Team/Base:default ", "metadata": { "a b": "c&d" }, "envVars": { "FOO": "bar" },
        "autoPause": true, "autoResume": { "enabled": true, "odd": 1 }, "idleTimeout": 7, "unknown": [1],
        "allow_internet_access": false,
        "network": { "allowPublicTraffic": false, "maskRequestHost": "h:${PORT}", "egressProxy": { "address": "a", "password": "p" } },
    });
    let made = rig.call("POST", "/v2/sandboxes", body).await.expect(201);
    assert_eq!(
        (&made["templateID"], &made["clientID"], &made["envdVersion"]),
        (&json!("base"), &json!("6532622b"), &json!("0.6.13"))
    );
    assert_eq!(made["domain"], Value::Null);
    let (id, token) = (
        made["sandboxID"].as_str().unwrap(),
        made["envdAccessToken"].as_str().unwrap(),
    );
    let traffic = made["trafficAccessToken"].as_str().unwrap();
    assert!(token.len() == 40 && traffic.len() == 40 && token != traffic);

    let seen = rig
        .get(&format!("/sandboxes/{id}-6532622b"))
        .await
        .expect(200);
    assert_eq!(
        (&seen["state"], &seen["metadata"]),
        (&json!("running"), &json!({ "a b": "c&d" }))
    );
    assert_eq!(
        (&seen["cpuCount"], &seen["memoryMB"], &seen["diskSizeMB"]),
        (&json!(1), &json!(256), &json!(1024))
    );
    assert_eq!(
        seen["lifecycle"],
        json!({ "autoResume": true, "onTimeout": "pause" })
    );
    assert_eq!(
        (&seen["idleTimeout"], &seen["allowInternetAccess"]),
        (&json!(7), &json!(false))
    );
    assert_eq!(seen["envdAccessToken"], token);
    assert_eq!(
        seen["network"]["egressProxy"],
        json!({ "address": "a" }),
        "no password"
    );
    assert_eq!(lifetime(&seen), 300_000_000);

    let access = rig.placement(id).await.unwrap().access;
    assert_eq!(access.envd_token.unwrap().expose(), token);
    assert_eq!(access.traffic_token.unwrap().expose(), traffic);
    assert_eq!(
        (access.auto_resume, access.mask_request_host.as_deref()),
        (true, Some("h:${PORT}"))
    );
}

/// Microseconds from `startedAt` to `endAt`.
fn lifetime(seen: &Value) -> i64 {
    let time = |name: &str| {
        seen[name]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .unwrap()
            .as_microsecond()
    };
    time("endAt") - time("startedAt")
}

#[tokio::test]
async fn a_first_generation_sandbox_is_secured_if_asked_and_lives_15_seconds() {
    let rig = Rig::new().await;
    let made = rig
        .call("POST", "/sandboxes", json!({ "templateID": "base" }))
        .await
        .expect(201);
    assert!(made.get("envdAccessToken").is_none());
    assert_eq!(made["trafficAccessToken"], Value::Null);
    let seen = rig
        .get(&format!(
            "/sandboxes/{}",
            made["sandboxID"].as_str().unwrap()
        ))
        .await
        .expect(200);
    assert_eq!(lifetime(&seen), 15_000_000);
    let made = rig
        .call(
            "POST",
            "/sandboxes",
            json!({ "templateID": "base", "secure": true }),
        )
        .await
        .expect(201);
    assert!(made["envdAccessToken"].is_string());
    let private = json!({ "templateID": "base", "network": { "allowPublicTraffic": false } });
    let message = rig.call("POST", "/sandboxes", private).await.error(400);
    assert!(
        message.starts_with("You cannot create a sandbox without public access unless"),
        "{message}"
    );
}

#[tokio::test]
async fn what_cannot_be_created_is_said() {
    let rig = Rig::new().await;
    for (body, status, message) in [
        (
            json!({ "templateID": "nope" }),
            404,
            "template 'nope' not found",
        ),
        (
            json!({ "templateID": "base:v2" }),
            404,
            "tag 'v2' does not exist for template 'base'",
        ),
        (
            json!({ "templateID": "base", "timeout": 0 }),
            400,
            "Timeout must be greater than 0",
        ),
        (
            json!({ "templateID": "base", "timeout": -5 }),
            400,
            "Timeout must be greater than 0",
        ),
        (
            json!({ "templateID": "base", "timeout": i64::MAX }),
            400,
            "Timeout cannot be greater than 24 hours",
        ),
        (
            json!({ "templateID": "base", "idleTimeout": 0 }),
            400,
            "idleTimeout must be greater than 0",
        ),
    ] {
        assert_eq!(
            rig.call("POST", "/v2/sandboxes", body).await.error(status),
            message
        );
    }
    for body in [
        json!({}),
        json!({ "templateID": 7 }),
        json!({ "templateID": "../x" }),
        json!([]),
        json!("x"),
        json!({ "templateID": "base", "network": { "maskRequestHost": "a b" } }),
    ] {
        rig.call("POST", "/v2/sandboxes", body).await.error(400);
    }
    rig.fake.set_full(true);
    let message = rig
        .call("POST", "/v2/sandboxes", json!({ "templateID": "base" }))
        .await
        .error(409);
    assert!(message.contains("memory"), "{message}");
    assert!(rig.fake.list().await.is_empty());
}

#[tokio::test]
async fn anything_odd_still_has_a_code_and_a_message() {
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
        "/sandboxes/A",
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
    // A body without a content type, and one with a charset, are fine.
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
async fn an_unknown_sandbox_is_404_on_every_route() {
    let rig = Rig::new().await;
    for (method, rest, body) in [
        ("GET", "", Value::Null),
        ("DELETE", "", Value::Null),
        ("POST", "/pause", Value::Null),
        ("POST", "/resume", Value::Null),
        ("POST", "/connect", json!({ "timeout": 5 })),
        ("POST", "/timeout", json!({ "timeout": 5 })),
        ("POST", "/refreshes", Value::Null),
        ("POST", "/fork", json!({})),
        ("GET", "/logs", Value::Null),
    ] {
        let reply = rig.call(method, &format!("{UNKNOWN}{rest}"), body).await;
        assert_eq!(reply.error(404), missing("iunknown"), "{method} {rest}");
    }
    assert_eq!(
        rig.call("POST", &format!("/v2{UNKNOWN}/connect"), json!({}))
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn pause_resume_and_kill() {
    let rig = Rig::new().await;
    let id = rig.create(json!({ "templateID": "base" })).await;
    let path = format!("/sandboxes/{id}");
    let running = rig
        .call("POST", &format!("{path}/resume"), Value::Null)
        .await
        .error(409);
    assert_eq!(running, format!("Sandbox {id} is already running"));
    rig.call("POST", &format!("{path}/pause"), json!({ "memory": true }))
        .await
        .expect(204);
    let again = rig
        .call("POST", &format!("{path}/pause"), Value::Null)
        .await
        .error(409);
    assert_eq!(
        again,
        format!("Error pausing sandbox - sandbox '{id}' is already paused")
    );
    let paused = rig.get(&path).await.expect(200);
    assert_eq!(paused["state"], "paused");
    let fork = rig
        .call("POST", &format!("{path}/fork"), Value::Null)
        .await
        .error(409);
    assert_eq!(
        fork,
        format!("Sandbox '{id}' is paused and cannot be forked; resume it first")
    );
    rig.call("POST", &format!("{path}/timeout"), json!({ "timeout": 5 }))
        .await
        .error(404);

    let resumed = rig
        .call("POST", &format!("{path}/resume"), json!({ "timeout": 60 }))
        .await
        .expect(201);
    assert_eq!(resumed["sandboxID"], id.as_str());
    let seen = rig.get(&path).await.expect(200);
    assert_eq!(
        (&seen["state"], lifetime(&seen)),
        (&json!("running"), 60_000_000)
    );
    assert!(seen["startedAt"].as_str() > paused["startedAt"].as_str());
    assert_eq!(rig.placement(&id).await.unwrap().epoch.0, 2);

    rig.call("DELETE", &path, Value::Null).await.expect(204);
    assert_eq!(
        rig.call("DELETE", &path, Value::Null).await.error(404),
        missing(&id)
    );
    assert_eq!(rig.placement(&id).await, None);
    assert!(rig.fake.info(&sandbox(&id)).await.is_none());
}

#[tokio::test]
async fn what_is_between_states_is_a_conflict() {
    let rig = Rig::new().await;
    let id = rig.create(json!({ "templateID": "base" })).await;
    rig.fake.force_state(&sandbox(&id), SandboxState::Pausing);
    assert_eq!(
        rig.get(&format!("/sandboxes/{id}")).await.expect(200)["state"],
        "paused"
    );
    rig.call(
        "POST",
        &format!("/sandboxes/{id}/timeout"),
        json!({ "timeout": 5 }),
    )
    .await
    .error(409);
    rig.fake.force_state(&sandbox(&id), SandboxState::Stopping);
    let message = rig
        .call("POST", &format!("/v2/sandboxes/{id}/connect"), json!({}))
        .await
        .error(409);
    assert_eq!(message, format!("Sandbox \"{id}\" is being killed"));
}

#[tokio::test]
async fn connect_wakes_or_extends_and_never_shortens() {
    let rig = Rig::new().await;
    let id = rig
        .create(json!({ "templateID": "base", "timeout": 1000 }))
        .await;
    let (path, v1, v2) = (
        format!("/sandboxes/{id}"),
        format!("/sandboxes/{id}/connect"),
        format!("/v2/sandboxes/{id}/connect"),
    );
    let before = rig.get(&path).await.expect(200);
    rig.call("POST", &v1, json!({ "timeout": 10 }))
        .await
        .expect(200);
    rig.call("POST", &v2, Value::Null).await.expect(200);
    assert_eq!(
        rig.get(&path).await.expect(200),
        before,
        "not a microsecond"
    );
    rig.call("POST", &v2, json!({ "timeout": 2000 }))
        .await
        .expect(200);
    assert!(lifetime(&rig.get(&path).await.expect(200)) > 1_900_000_000);
    for wrong in [json!({ "timeout": 0 }), json!({ "timeout": -2 })] {
        rig.call("POST", &v1, wrong).await.error(400);
    }
    rig.call("POST", &format!("{path}/pause"), json!({}))
        .await
        .expect(204);
    let token = before["envdAccessToken"].clone();
    let woken = rig.call("POST", &v2, json!({})).await.expect(201);
    assert_eq!(woken["envdAccessToken"], token, "the token stays");
    assert_eq!(lifetime(&rig.get(&path).await.expect(200)), 300_000_000);
}

#[tokio::test]
async fn timeout_replaces_and_refresh_extends() {
    let rig = Rig::new().await;
    let id = rig
        .create(json!({ "templateID": "base", "timeout": 1000 }))
        .await;
    let path = format!("/sandboxes/{id}");
    rig.call(
        "POST",
        &format!("{path}/timeout"),
        json!({ "timeout": 100 }),
    )
    .await
    .expect(204);
    let seen = rig.get(&path).await.expect(200);
    assert!(lifetime(&seen) < 200_000_000);
    rig.call("POST", &format!("{path}/refreshes"), Value::Null)
        .await
        .expect(204);
    assert_eq!(rig.get(&path).await.expect(200)["endAt"], seen["endAt"]);
    rig.call(
        "POST",
        &format!("{path}/refreshes"),
        json!({ "duration": 3600 }),
    )
    .await
    .expect(204);
    assert!(lifetime(&rig.get(&path).await.expect(200)) > 3_500_000_000);
    rig.call(
        "POST",
        &format!("{path}/refreshes"),
        json!({ "duration": 3601 }),
    )
    .await
    .error(400);
    rig.call("POST", &format!("{path}/timeout"), json!({ "timeout": -2 }))
        .await
        .error(400);
    rig.call("POST", &format!("{path}/timeout"), json!({}))
        .await
        .error(400);
    let message = rig
        .call(
            "POST",
            &format!("{path}/timeout"),
            json!({ "timeout": 86401 }),
        )
        .await
        .error(400);
    assert_eq!(message, "Max instance length exceeded");
}

#[tokio::test]
async fn forks_have_names_and_tokens_of_their_own() {
    let rig = Rig::new().await;
    let body = json!({ "templateID": "base", "metadata": { "k": "v" }, "network": { "allowPublicTraffic": false } });
    let origin = rig.call("POST", "/v2/sandboxes", body).await.expect(201);
    let path = format!("/sandboxes/{}/fork", origin["sandboxID"].as_str().unwrap());
    let forks = rig
        .call("POST", &path, json!({ "count": 3, "timeout": 30 }))
        .await
        .expect(201);
    let forks: Vec<&Value> = forks
        .as_array()
        .unwrap()
        .iter()
        .map(|fork| &fork["sandbox"])
        .collect();
    assert_eq!(forks.len(), 3);
    for name in ["sandboxID", "envdAccessToken", "trafficAccessToken"] {
        let mut values: Vec<&str> = forks
            .iter()
            .copied()
            .chain([&origin])
            .map(|sandbox| sandbox[name].as_str().unwrap())
            .collect();
        values.sort_unstable();
        values.dedup();
        assert_eq!(values.len(), 4, "{name}");
    }
    let child = rig
        .get(&format!(
            "/sandboxes/{}",
            forks[0]["sandboxID"].as_str().unwrap()
        ))
        .await
        .expect(200);
    assert_eq!(
        (&child["metadata"], lifetime(&child)),
        (&json!({ "k": "v" }), 30_000_000)
    );
    assert_eq!(
        rig.call("POST", &path, json!({ "count": 0 }))
            .await
            .error(400),
        "Count must be at least 1"
    );
    rig.call("POST", &path, json!({ "count": 101 }))
        .await
        .error(400);
    rig.fake.set_full(true);
    let full = rig.call("POST", &path, json!({})).await.expect(201);
    assert_eq!(full[0]["error"]["code"], 409);
    assert!(full[0]["error"]["message"].is_string());
}

#[tokio::test]
async fn templates_and_console() {
    let rig = Rig::new().await;
    let built = rig
        .call("POST", "/templates/mine/build", Value::Null)
        .await
        .expect(200);
    assert_eq!(
        (&built["templateID"], &built["buildStatus"]),
        (&json!("mine"), &json!("ready"))
    );
    let message = rig
        .call("POST", "/templates/no-kernel/build", Value::Null)
        .await
        .error(404);
    assert!(
        message.contains("no-kernel") && message.contains("vmlinux is missing"),
        "{message}"
    );
    rig.call("POST", "/templates/A%2F/build", Value::Null)
        .await
        .error(400);
    let names = rig.get("/templates").await.expect(200);
    let names: Vec<&str> = names
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["templateID"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["base", "mine"]);
    let id = rig.create(json!({ "templateID": "mine" })).await;
    let logs = rig.get(&format!("/sandboxes/{id}/logs")).await.expect(200);
    assert_eq!(logs["logs"].as_array().unwrap().len(), 2);
    assert_eq!(logs["logs"][0]["line"], "booting");
    let logs = rig
        .get(&format!("/sandboxes/{id}/logs?limit=1"))
        .await
        .expect(200);
    assert_eq!(logs["logEntries"][0]["message"], format!("{id} is ready"));
    rig.get(&format!("/sandboxes/{id}/logs?limit=x"))
        .await
        .error(400);
}
