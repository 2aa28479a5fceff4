//! What Prometheus is told.

use std::collections::BTreeMap;

use futures::future::join_all;
use pool_api::Port;

use crate::rig::{PATIENCE, Rig, open, private};

async fn rig() -> Rig {
    Rig::with(|config| config.metrics = Some("127.0.0.1:0".parse().unwrap())).await
}

fn samples(text: &str) -> BTreeMap<&str, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name, value.parse().unwrap())
        })
        .collect()
}

const EXPECTED: [(&str, f64); 17] = [
    (
        r#"catnap_requests_total{status="2xx",target="sandbox"}"#,
        11.0,
    ),
    (r#"catnap_requests_total{status="5xx",target="api"}"#, 1.0),
    (
        r#"catnap_requests_total{status="5xx",target="sandbox"}"#,
        1.0,
    ),
    (r#"catnap_requests_total{status="4xx",target="none"}"#, 2.0),
    (r#"catnap_requests_total{status="5xx",target="none"}"#, 1.0),
    (r#"catnap_requests_refused_total{reason="forbidden"}"#, 1.0),
    (r#"catnap_requests_refused_total{reason="not_found"}"#, 1.0),
    (r#"catnap_requests_refused_total{reason="bad_host"}"#, 1.0),
    (
        r#"catnap_requests_refused_total{reason="port_closed"}"#,
        1.0,
    ),
    (
        r#"catnap_requests_refused_total{reason="unavailable"}"#,
        1.0,
    ),
    (r#"catnap_wakes_total{start="restore"}"#, 1.0),
    (r#"catnap_wake_stage_seconds_count{stage="load"}"#, 1.0),
    (r#"catnap_wake_stage_seconds_sum{stage="all"}"#, 0.003),
    (r#"catnap_request_stage_seconds_count{stage="dial"}"#, 11.0),
    (r#"catnap_requests_in_flight{target="sandbox"}"#, 0.0),
    (r#"catnap_sandboxes{state="running"}"#, 2.0),
    (r#"catnap_sandboxes{state="paused"}"#, 0.0),
];

#[tokio::test]
async fn requests_refusals_and_wakes_are_counted() {
    let rig = rig().await;
    let (id, asleep) = (
        rig.sandbox("iabc", private("t")).await,
        rig.sleeping("izzz", open()).await,
    );
    rig.visit(80, &id, &[]).await;
    rig.visit(80, &id, &[("e2b-traffic-access-token", "t")])
        .await;
    rig.visit(80, &"iunknown".parse().unwrap(), &[]).await;
    rig.get("/", &[("host", "a b")]).await;
    rig.get("/", &[("host", "localhost")]).await;
    rig.fake.script_port(
        Port::try_from(81).unwrap(),
        pool_api::fake::PortScript::Closed,
    );
    rig.visit(81, &id, &[("e2b-traffic-access-token", "t")])
        .await;
    // Many wait for one wake.
    rig.fake.hold_wakes(true);
    let waiting = join_all((0..10).map(|_| rig.visit(80, &asleep, &[])));
    let release = async {
        rig.fake.wait_for_entering(10).await;
        rig.fake.hold_wakes(false);
    };
    tokio::join!(waiting, release);
    tokio::time::timeout(PATIENCE, rig.fake.wait_for_leases(0))
        .await
        .unwrap();
    // Wakes are counted after their requests are admitted.
    let counted = async {
        while !rig.scrape().await.contains("catnap_wakes_total") {}
    };
    tokio::time::timeout(PATIENCE, counted).await.unwrap();
    let text = rig.scrape().await;
    let samples = samples(&text);
    for (name, expected) in EXPECTED {
        assert_eq!(samples.get(name), Some(&expected), "{name}\n{text}");
    }
    assert!(samples[r#"catnap_body_bytes_total{direction="out",target="sandbox"}"#] > 1000.0);
    assert!(samples[r#"catnap_connections_total{transport="plain"}"#] >= 16.0);
    assert!(
        !text.contains("iabc") && !text.contains("izzz"),
        "no names of sandboxes"
    );
}

#[tokio::test]
async fn they_are_at_one_path_and_nowhere_else() {
    let rig = rig().await;
    let port = rig.metrics_port.unwrap();
    let mut sender = crate::rig::connect(port).await;
    for (path, status) in [("/", 404), ("/metrics", 200)] {
        sender.ready().await.unwrap();
        let reply = crate::rig::get_on(&mut sender, path, &[("host", "x")]).await;
        assert_eq!(reply.status, status, "{path}");
        assert!(reply.header("content-type").starts_with("text/plain"));
    }
    assert_eq!(
        rig.get("/metrics", &[("host", "localhost")]).await.status,
        503,
        "there it is the API's"
    );
    let off = Rig::new().await;
    assert_eq!(off.metrics_port, None);
}
