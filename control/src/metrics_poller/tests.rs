use std::collections::BTreeMap;

use pool_api::{Epoch, Origin, SandboxSpec, SnapshotScope, fake::FakeNode};

use super::*;

async fn create(fake: &FakeNode, count: usize) {
    for number in 0..count {
        let spec = SandboxSpec {
            id: format!("i{number}").parse().unwrap(),
            epoch: Epoch(1),
            origin: Origin::Template("base".parse().unwrap()),
            template: "base".parse().unwrap(),
            idle: None,
            env: BTreeMap::new(),
            access_token: None,
        };
        fake.create(spec).await.unwrap();
    }
}

/// A host whose guests are polled.
fn polled_node() -> FakeNode {
    let fake = FakeNode::with_templates(&["base"]);
    let poller = MetricsPoller::new(Arc::new(fake.clone()));
    let events = fake.events();
    tokio::spawn(async move { poller.run(events).await });
    fake
}

#[tokio::test(start_paused = true)]
async fn guests_are_polled_on_start_and_then_in_rounds() {
    let fake = polled_node();
    // The first round finds no guest.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let start = Instant::now();
    create(&fake, 3).await;
    fake.wait_for_metrics(3).await;
    assert!(start.elapsed() < Duration::from_millis(100));
    for round in 1..4 {
        fake.wait_for_metrics(3 + 3 * round).await;
    }
    let (min, max) = (
        MIN_INTERVAL * 3,
        MIN_INTERVAL * 3 + Duration::from_millis(100),
    );
    let took = start.elapsed() + Duration::from_millis(1);
    assert!((min..max).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn wake_is_not_followed_by_a_poll() {
    let fake = polled_node();
    tokio::time::sleep(Duration::from_millis(1)).await;
    create(&fake, 1).await;
    fake.wait_for_metrics(1).await;
    let id = "i0".parse().unwrap();
    fake.pause(&id, Epoch(1), SnapshotScope::Full)
        .await
        .unwrap();
    fake.resume(&id, SnapshotScope::Full).await.unwrap();
    tokio::time::sleep(MIN_INTERVAL / 2).await;
    assert_eq!(fake.metrics_calls(), 1);
    fake.wait_for_metrics(2).await;
}

#[tokio::test(start_paused = true)]
async fn slow_guests_are_polled_rarely_and_few_at_a_time() {
    let fake = polled_node();
    tokio::time::sleep(Duration::from_millis(1)).await;
    fake.set_metrics_delay(Duration::from_millis(500));
    create(&fake, 40).await;
    // Only some are polled on start; the next round polls the others.
    tokio::time::sleep(MIN_INTERVAL - Duration::from_millis(2)).await;
    let first = fake.metrics_calls();
    let max = u64::try_from(MAX_PENDING + MAX_CONCURRENT).unwrap();
    assert!((1..=max).contains(&first), "{first}");
    fake.wait_for_metrics(first + 40).await;
    let start = Instant::now();
    fake.wait_for_metrics(first + 41).await;
    // A round of 40 polls takes 20 s of polling time.
    assert!(start.elapsed() > Duration::from_secs(20 * u64::from(DUTY_CYCLE) - 20));
    assert_eq!(
        fake.max_concurrent_metrics(),
        u64::try_from(MAX_CONCURRENT).unwrap()
    );
}

#[tokio::test(start_paused = true)]
async fn unresponsive_guests_do_not_delay_other_polls() {
    let fake = polled_node();
    fake.set_metrics_delay(Duration::from_secs(3600));
    create(&fake, 5).await;
    let start = Instant::now();
    fake.wait_for_metrics(5).await;
    assert!(start.elapsed() < POLL_TIMEOUT * 3);
}
