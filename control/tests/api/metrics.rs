//! What guests say of themselves.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::rig::{Rig, missing};

fn unix() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_secs()
}

#[tokio::test]
async fn a_guest_is_asked_right_after_it_starts() {
    let rig = Rig::new().await;
    let id = rig.create(json!({ "templateID": "base" })).await;
    // Before anybody wants to know.
    rig.fake.wait_for_metrics(1).await;
    let seen = rig
        .get(&format!("/sandboxes/{id}/metrics"))
        .await
        .expect(200);
    let sample = seen.as_array().unwrap().last().unwrap();
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
    let many = rig
        .get(&format!("/sandboxes/metrics?sandbox_ids={id},iother"))
        .await
        .expect(200);
    assert_eq!(many["sandboxes"].as_object().unwrap().len(), 1);
    assert_eq!(many["sandboxes"][&id]["cpuCount"], 1);
}

#[tokio::test]
async fn a_range_is_a_range() {
    let rig = Rig::new().await;
    let id = rig.create(json!({ "templateID": "base" })).await;
    let of = async |query: &str| {
        let seen = rig.get(&format!("/sandboxes/{id}/metrics?{query}")).await;
        seen.expect(200).as_array().unwrap().len()
    };
    assert!(of("").await >= 1, "asked when nothing is known yet");
    let now = unix();
    assert_eq!(
        of(&format!("end={}", now - 60)).await,
        0,
        "before it was made"
    );
    assert_eq!(of(&format!("start={}", now + 60)).await, 0);
    assert!(of(&format!("start={}&end={}", now - 60, now + 60)).await >= 1);
    for wrong in ["start=x", "end=1.5"] {
        rig.get(&format!("/sandboxes/{id}/metrics?{wrong}"))
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
    let many = vec!["i"; 101].join(",");
    rig.get(&format!("/sandboxes/metrics?sandbox_ids={many}"))
        .await
        .error(400);
}

#[tokio::test]
async fn one_that_sleeps_or_is_silent_is_not_woken_for_it() {
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
    let asked = rig.fake.metrics_calls();
    assert_ne!(
        rig.get(&format!("{path}/metrics")).await.expect(200),
        json!([]),
        "what it said is remembered"
    );
    assert_eq!((rig.fake.metrics_calls(), rig.fake.wakes()), (asked, 0));
    rig.call("DELETE", &path, Value::Null).await.expect(204);
    let many = rig
        .get(&format!("/sandboxes/metrics?sandbox_ids={id}"))
        .await
        .expect(200);
    assert_eq!(many, json!({ "sandboxes": {} }));
}
