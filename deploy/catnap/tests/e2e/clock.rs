//! Time in guests.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::rig::{Gateway, Sandbox};

/// How far a guest's clock may be from ours.
const OFF: Duration = Duration::from_secs(2);

#[tokio::test]
async fn sleeps_take_their_time_before_and_after_a_wake() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway.probed(json!({})).await;
    sleeps(&gateway, &sandbox).await;
    sandbox.pause(&gateway).await;
    sandbox.get(&gateway, "/count").await.ok();
    sleeps(&gateway, &sandbox).await;
    gateway.finish().await;
}

/// A second on each of two clocks takes a second, by the guest's account and by ours.
async fn sleeps(gateway: &Gateway, sandbox: &Sandbox) {
    let began = Instant::now();
    let slept = sandbox.get(gateway, "/sleep/1000").await.ok();
    let both = began.elapsed();
    for clock in ["monotonic", "realtime"] {
        let took = Duration::from_micros(slept.value(clock));
        assert!(
            (Duration::from_millis(999)..Duration::from_millis(1500)).contains(&took),
            "{clock}: {took:?}"
        );
    }
    assert!(
        (Duration::from_millis(1998)..Duration::from_secs(6)).contains(&both),
        "{both:?}"
    );
}

#[tokio::test]
async fn the_clock_is_right_after_a_long_pause() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway.probed(json!({})).await;
    is_right(&gateway, &sandbox).await;
    sandbox.pause(&gateway).await;
    // Longer than the clock may be off.
    tokio::time::sleep(OFF * 3).await;
    is_right(&gateway, &sandbox).await;
    gateway.finish().await;
}

async fn is_right(gateway: &Gateway, sandbox: &Sandbox) {
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let guest = Duration::from_micros(sandbox.get(gateway, "/now").await.ok().value("now"));
    let after = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    assert!(
        before.saturating_sub(OFF) <= guest && guest <= after + OFF,
        "{before:?} {guest:?} {after:?}"
    );
}
