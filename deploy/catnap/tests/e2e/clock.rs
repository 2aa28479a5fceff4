//! Clocks of guests.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::rig::{Gateway, Sandbox};

/// The largest accepted difference between the clocks of guest and host.
const MAX_SKEW: Duration = Duration::from_secs(2);

#[tokio::test]
async fn sleep_durations_are_correct_before_and_after_a_wake() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway.create_with_probe(json!({})).await;
    check_sleeps(&gateway, &sandbox).await;
    sandbox.pause(&gateway).await;
    sandbox.get(&gateway, "/count").await.ok();
    check_sleeps(&gateway, &sandbox).await;
    gateway.finish().await;
}

/// Sleeps a second on each of two guest clocks, and asserts the durations that guest and host measure.
async fn check_sleeps(gateway: &Gateway, sandbox: &Sandbox) {
    let began = Instant::now();
    let slept = sandbox.get(gateway, "/sleep/1000").await.ok();
    let total = began.elapsed();
    for clock in ["monotonic", "realtime"] {
        let took = Duration::from_micros(slept.value(clock));
        assert!(
            (Duration::from_millis(999)..Duration::from_millis(1500)).contains(&took),
            "{clock}: {took:?}"
        );
    }
    assert!(
        (Duration::from_millis(1998)..Duration::from_secs(6)).contains(&total),
        "{total:?}"
    );
}

#[tokio::test]
async fn clock_is_correct_after_a_long_pause() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway.create_with_probe(json!({})).await;
    check_clock(&gateway, &sandbox).await;
    sandbox.pause(&gateway).await;
    // Exceeds the accepted skew, so that a clock that stopped during the pause fails the test.
    tokio::time::sleep(MAX_SKEW * 3).await;
    check_clock(&gateway, &sandbox).await;
    gateway.finish().await;
}

async fn check_clock(gateway: &Gateway, sandbox: &Sandbox) {
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let guest = Duration::from_micros(sandbox.get(gateway, "/now").await.ok().value("now"));
    let after = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    assert!(
        before.saturating_sub(MAX_SKEW) <= guest && guest <= after + MAX_SKEW,
        "{before:?} {guest:?} {after:?}"
    );
}
