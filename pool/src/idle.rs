//! The idle clock.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::gate::Gate;

/// Completes when the gate has had no passes for `window`, and not before `earliest`.
pub(crate) async fn idle(gate: &Gate, window: Duration, earliest: Instant) {
    sleep_until(earliest).await;
    loop {
        gate.emptied().await;
        let since = gate.empty_since();
        match since.checked_add(window) {
            Some(due) => sleep_until(due).await,
            // Later than the clock can tell.
            None => std::future::pending().await,
        }
        if gate.is_empty() && gate.empty_since() == since {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn idle_clock_stops_while_passes_exist() {
        let gate = Arc::new(Gate::new());
        gate.open();
        let began = Instant::now();
        let window = Duration::from_secs(10);
        let waiting = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move {
                idle(&gate, window, began).await;
                Instant::now()
            }
        });
        advance(Duration::from_secs(9)).await;
        let pass = gate.enter().unwrap();
        advance(Duration::from_secs(100)).await;
        drop(pass);
        let ended = waiting.await.unwrap();
        assert_eq!((ended - began).as_secs(), 119);
    }

    #[tokio::test(start_paused = true)]
    async fn idle_sandbox_stays_awake_for_the_least_time() {
        let gate = Gate::new();
        gate.open();
        let began = Instant::now();
        idle(
            &gate,
            Duration::from_secs(1),
            began + Duration::from_secs(5),
        )
        .await;
        assert_eq!(began.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn window_beyond_the_clock_never_ends() {
        let gate = Gate::new();
        gate.open();
        for window in [Duration::MAX, Duration::from_secs(i64::MAX.unsigned_abs())] {
            let waiting = idle(&gate, window, Instant::now());
            let day = Duration::from_secs(86_400);
            assert!(tokio::time::timeout(day, waiting).await.is_err());
        }
    }
}
