//! When nobody is using a sandbox.

use std::time::Duration;

use tokio::time::sleep_until;

use crate::gate::Gate;

/// Returns when nobody has been in for `window`. The clock runs only while nobody is in.
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
mod test {
    use std::sync::Arc;

    use tokio::time::{Instant, advance};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_clock_runs_only_while_nobody_is_in() {
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
