//! Templates, their names and tags.

use serde_json::{Value, json};

use crate::rig::Rig;

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
