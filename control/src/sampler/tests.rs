use std::collections::BTreeMap;

use pool_api::{Epoch, Origin, SandboxSpec, fake::FakeNode};

use super::*;

async fn sandboxes(fake: &FakeNode, count: usize) {
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

/// A host whose guests are asked from now on.
fn asked() -> FakeNode {
    let fake = FakeNode::with_templates(&["base"]);
    let samples = Samples::new(Arc::new(fake.clone()));
    let events = fake.events();
    tokio::spawn(async move { run(&samples, events).await });
    fake
}

#[tokio::test(start_paused = true)]
async fn guests_are_asked_at_once_and_then_in_rounds() {
    let fake = asked();
    // The first round finds nobody.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let begun = Instant::now();
    sandboxes(&fake, 3).await;
    fake.wait_for_metrics(3).await;
    assert!(begun.elapsed() < Duration::from_millis(100));
    for round in 1..4 {
        fake.wait_for_metrics(3 + 3 * round).await;
    }
    let (least, most) = (
        SHORTEST_ROUND * 3,
        SHORTEST_ROUND * 3 + Duration::from_millis(100),
    );
    let took = begun.elapsed() + Duration::from_millis(1);
    assert!((least..most).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn guests_that_are_slow_are_asked_seldom_and_a_few_at_a_time() {
    let fake = asked();
    tokio::time::sleep(Duration::from_millis(1)).await;
    fake.set_metrics_delay(Duration::from_millis(500));
    sandboxes(&fake, 40).await;
    // Not all of a crowd is asked at once; a round finds them.
    tokio::time::sleep(SHORTEST_ROUND - Duration::from_millis(2)).await;
    let first = fake.metrics_calls();
    let few = u64::try_from(CROWD + AT_ONCE).unwrap();
    assert!((1..=few).contains(&first), "{first}");
    fake.wait_for_metrics(first + 40).await;
    let begun = Instant::now();
    fake.wait_for_metrics(first + 41).await;
    // 40 of half a second each.
    assert!(begun.elapsed() > Duration::from_secs(20 * u64::from(REST) - 20));
    assert_eq!(
        fake.max_concurrent_metrics(),
        u64::try_from(AT_ONCE).unwrap()
    );
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_never_answers_holds_nobody_up() {
    let fake = asked();
    fake.set_metrics_delay(Duration::from_secs(3600));
    sandboxes(&fake, 5).await;
    let begun = Instant::now();
    fake.wait_for_metrics(5).await;
    assert!(begun.elapsed() < PATIENCE * 3);
}
