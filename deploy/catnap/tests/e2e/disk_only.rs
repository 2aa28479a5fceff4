//! Boots from the disk of a paused sandbox.

use reqwest::Method;
use serde_json::json;

use crate::rig::Gateway;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

#[tokio::test]
async fn reboot_of_full_pause_keeps_unsynced_writes() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway.create(json!({})).await;
    let boot = sandbox.read(&gateway, BOOT_ID).await.ok().body;
    sandbox.write(&gateway, "/home/user/file", "text\n").await;
    sandbox.pause(&gateway).await;
    let path = format!("/v2/sandboxes/{}/connect", sandbox.id);
    let body = json!({ "memory": false, "timeout": 3600 });
    let (status, body) = gateway.api(Method::POST, &path, Some(body)).await;
    assert_eq!(status, 201, "{body}");
    assert_ne!(sandbox.read(&gateway, BOOT_ID).await.ok().body, boot);
    let file = sandbox.read(&gateway, "/home/user/file").await.ok().body;
    assert_eq!(file, "text\n");
    gateway.finish().await;
}
