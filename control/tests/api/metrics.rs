//! Rows of the specification: guest metrics.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::rig::{Rig, missing};

fn unix() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_secs()
}

#[tokio::test]
async fn guest_is_polled_right_after_its_start() {
    let rig = Rig::new().await;
    let id = rig.create(json!({ "templateID": "base" })).await;
    // Before the first request for metrics.
    rig.fake.wait_for_metrics(1).await;
    let listed = rig
        .get(&format!("/sandboxes/{id}/metrics"))
        .await
        .expect(200);
    let sample = listed.as_array().unwrap().last().unwrap();
    let (mib, gib) = (1u64 << 20, 1u64 << 30);
    assert_eq!(
        [
            &sample["cpuCount"],
            &sample["memTotal"],
            &sample["memUsed"],
            &sample["memCache"],
            &sample["diskUsed"],
            &sample["diskTotal"]
        ],
        [
            &json!(1),
            &json!(256 * mib),
            &json!(128 * mib),
            &json!(32 * mib),
            &json!(gib / 4),
            &json!(gib)
        ]
    );
    assert_eq!(sample["cpuUsedPct"], json!(12.5));
    let at: jiff::Timestamp = sample["timestamp"].as_str().unwrap().parse().unwrap();
    assert_eq!(sample["timestampUnix"], at.as_second());
    let latest = rig
        .get(&format!("/sandboxes/metrics?sandbox_ids={id},iother"))
        .await
        .expect(200);
    assert_eq!(latest["sandboxes"].as_object().unwrap().len(), 1);
    assert_eq!(latest["sandboxes"][&id]["cpuCount"], 1);
}

#[tokio::test]
async fn metrics_are_filtered_by_time_range() {
    let rig = Rig::new().await;
    let id = rig.create(json!({ "templateID": "base" })).await;
    let samples = async |query: &str| {
        let listed = rig.get(&format!("/sandboxes/{id}/metrics?{query}")).await;
        listed.expect(200).as_array().unwrap().len()
    };
    assert!(samples("").await >= 1, "polled if there is no sample");
    let now = unix();
    assert_eq!(
        samples(&format!("end={}", now - 60)).await,
        0,
        "before its creation"
    );
    assert_eq!(samples(&format!("start={}", now + 60)).await, 0);
    assert!(samples(&format!("start={}&end={}", now - 60, now + 60)).await >= 1);
    for invalid in ["start=x", "end=1.5"] {
        rig.get(&format!("/sandboxes/{id}/metrics?{invalid}"))
            .await
            .error(400);
    }
    assert_eq!(
        rig.get("/sandboxes/iunknown/metrics").await.error(404),
        missing("iunknown")
    );
    rig.get("/sandboxes/metrics").await.error(400);
    rig.get("/sandboxes/metrics?sandbox_ids=a_b")
        .await
        .error(400);
    let latest = vec!["i"; 101].join(",");
    rig.get(&format!("/sandboxes/metrics?sandbox_ids={latest}"))
        .await
        .error(400);
}

#[tokio::test]
async fn metrics_request_does_not_wake_a_sandbox() {
    let rig = Rig::new().await;
    rig.fake.set_metrics_unanswered(true);
    let id = rig.create(json!({ "templateID": "base" })).await;
    let path = format!("/sandboxes/{id}");
    assert_eq!(
        rig.get(&format!("{path}/metrics")).await.expect(200),
        json!([])
    );
    rig.fake.set_metrics_unanswered(false);
    assert_ne!(
        rig.get(&format!("{path}/metrics")).await.expect(200),
        json!([])
    );
    rig.call("POST", &format!("{path}/pause"), Value::Null)
        .await
        .expect(204);
    let calls = rig.fake.metrics_calls();
    assert_ne!(
        rig.get(&format!("{path}/metrics")).await.expect(200),
        json!([]),
        "earlier samples are returned"
    );
    assert_eq!((rig.fake.metrics_calls(), rig.fake.wakes()), (calls, 0));
    rig.call("DELETE", &path, Value::Null).await.expect(204);
    let latest = rig
        .get(&format!("/sandboxes/metrics?sandbox_ids={id}"))
        .await
        .expect(200);
    assert_eq!(latest, json!({ "sandboxes": {} }));
}
