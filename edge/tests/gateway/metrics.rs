//! SPECIFICATION.md, Requests: metrics and their endpoint.

use std::collections::BTreeMap;

use futures::future::join_all;
use http::Method;
use pool_api::{Port, fake::PortScript};

use crate::rig::{Rig, TIMEOUT, connect, get_on, public, request, with_traffic_token};

async fn rig() -> Rig {
    Rig::with_config(|config| config.metrics = Some("127.0.0.1:0".parse().unwrap())).await
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

/// Scrapes until `count` wakes are counted: the edge counts them after it admits their requests.
async fn scrape_after_wakes(rig: &Rig, count: u32) -> String {
    let counted = format!("catnap_wakes_total{{start=\"restore\"}} {count}\n");
    let scrape = async {
        loop {
            let text = rig.scrape().await;
            if text.contains(&counted) {
                return text;
            }
        }
    };
    tokio::time::timeout(TIMEOUT, scrape).await.unwrap()
}

#[tokio::test]
async fn requests_refusals_and_wakes_are_counted() {
    let rig = rig().await;
    let (id, paused) = (
        rig.sandbox("iabc", with_traffic_token("t")).await,
        rig.paused_sandbox("izzz", public()).await,
    );
    rig.get_port(80, &id, &[]).await;
    rig.get_port(80, &id, &[("e2b-traffic-access-token", "t")])
        .await;
    rig.get_port(80, &"iunknown".parse().unwrap(), &[]).await;
    rig.get("/", &[("host", "a b")]).await;
    rig.get("/", &[("host", "localhost")]).await;
    rig.node
        .script_port(Port::try_from(81).unwrap(), PortScript::Closed);
    rig.get_port(81, &id, &[("e2b-traffic-access-token", "t")])
        .await;
    // Ten requests wait for one wake.
    rig.node.hold_wakes(true);
    let waiting = join_all((0..10).map(|_| rig.get_port(80, &paused, &[])));
    let release = async {
        rig.wait_for_entering(10).await;
        rig.node.hold_wakes(false);
    };
    tokio::join!(waiting, release);
    rig.wait_for_leases(0).await;
    let text = scrape_after_wakes(&rig, 1).await;
    let samples = samples(&text);
    for (name, expected) in EXPECTED {
        assert_eq!(samples.get(name), Some(&expected), "{name}\n{text}");
    }
    assert!(samples[r#"catnap_body_bytes_total{direction="out",target="sandbox"}"#] > 1000.0);
    assert!(samples[r#"catnap_connections_total{transport="plain"}"#] >= 16.0);
    assert!(
        !text.contains("iabc") && !text.contains("izzz"),
        "no label names a sandbox"
    );
}

#[tokio::test]
async fn only_get_metrics_is_served() {
    let rig = rig().await;
    let port = rig.metrics_port.unwrap();
    let mut sender = connect(port).await;
    for (path, status) in [("/", 404), ("/metrics", 200)] {
        sender.ready().await.unwrap();
        let reply = get_on(&mut sender, path, &[("host", "x")]).await;
        assert_eq!(reply.status, status, "{path}");
        assert!(reply.header("content-type").starts_with("text/plain"));
    }
    let mut post = request("/metrics", &[("host", "x")]);
    *post.method_mut() = Method::POST;
    sender.ready().await.unwrap();
    assert_eq!(sender.send_request(post).await.unwrap().status(), 405);
    assert_eq!(
        rig.get("/metrics", &[("host", "localhost")]).await.status,
        503,
        "elsewhere the path is the API's"
    );
    let default = Rig::new().await;
    assert_eq!(default.metrics_port, None);
}
