//! Health, metrics and HTTP/2.

use crate::rig::Rig;

#[tokio::test]
async fn health_and_metrics_are_served() {
    Rig::run(async |rig| {
        assert_eq!(rig.get("/health").await.status, 204);
        let metrics = rig.get("/metrics").await.json();
        for name in ["cpu_count", "mem_total", "mem_used", "disk_total", "ts"] {
            assert!(metrics[name].as_f64().unwrap() > 0.0, "{name}: {metrics}");
        }
        assert_eq!(rig.get("/missing").await.status, 404);
    })
    .await;
}

#[tokio::test]
async fn h2_without_tls_serves_concurrent_calls() {
    Rig::run(async |rig| {
        let json = "application/json";
        let responses = rig
            .call_h2(vec![
                ("GET", "/health", "", ""),
                ("POST", "/process.Process/List", json, "{}"),
                (
                    "POST",
                    "/files?path=two",
                    "application/octet-stream",
                    "content",
                ),
                (
                    "POST",
                    "/filesystem.Filesystem/Stat",
                    json,
                    r#"{"path":"/none"}"#,
                ),
            ])
            .await;
        let statuses: Vec<_> = responses.iter().map(|response| response.status).collect();
        assert_eq!(statuses, [204, 200, 200, 404]);
        assert_eq!(rig.get("/files?path=two").await.body, b"content");
    })
    .await;
}
