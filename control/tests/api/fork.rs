//! Rows of the specification: responses and codes of fork.

use serde_json::{Value, json};

use crate::rig::{Rig, lifetime};

#[tokio::test]
async fn forks_have_their_own_ids_and_tokens() {
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
