//! The idle clock.

use std::time::Duration;

use tokio::time::sleep_until;

use crate::gate::Gate;

/// Completes when the gate has had no passes for `window`.
pub(crate) async fn idle(gate: &Gate, window: Duration) {
    loop {
        gate.emptied().await;
        let since = gate.empty_since();
        sleep_until(since + window).await;
        if gate.is_empty() && gate.empty_since() == since {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::{Instant, advance};

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
                idle(&gate, window).await;
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
}
