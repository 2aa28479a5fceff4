//! Counts wakes from the events of the host.

use std::sync::Arc;

use pool_api::{Event, EventKind, StartCause};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tracing::warn;

use super::Metrics;

/// Counts wakes until the host closes its events. Events that the receiver misses are not counted.
pub(crate) async fn count(mut events: Receiver<Event>, metrics: Arc<Metrics>) {
    loop {
        match events.recv().await {
            Ok(event) => {
                if let EventKind::Started {
                    cause: StartCause::Woken,
                    report,
                } = &event.kind
                {
                    metrics.wake(report);
                }
            }
            Err(RecvError::Lagged(missed)) => warn!(missed, "wake events missed"),
            Err(RecvError::Closed) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use pool_api::{Epoch, PauseCause, SnapshotScope, Stage, Start, StopReason, WakeReport};
    use tokio::sync::broadcast;

    use super::*;

    fn event(kind: EventKind) -> Event {
        Event {
            id: "ia".parse().unwrap(),
            epoch: Epoch(1),
            at: SystemTime::UNIX_EPOCH,
            kind,
        }
    }

    fn started(cause: StartCause, start: Start) -> Event {
        event(EventKind::Started {
            cause,
            report: WakeReport {
                start,
                stages: vec![(Stage::Load, Duration::from_millis(1))],
            },
        })
    }

    fn woken(start: Start) -> Event {
        started(StartCause::Woken, start)
    }

    async fn count_of(capacity: usize, events: Vec<Event>) -> Vec<(Start, u64)> {
        let metrics = Arc::new(Metrics::new().unwrap());
        let (sender, receiver) = broadcast::channel(capacity);
        for event in events {
            sender.send(event).unwrap();
        }
        drop(sender);
        count(receiver, metrics.clone()).await;
        [Start::Boot, Start::Fork, Start::Restore, Start::Unpause]
            .map(|start| {
                (
                    start,
                    metrics.wakes.with_label_values(&[start.name()]).get(),
                )
            })
            .into()
    }

    #[tokio::test]
    async fn only_starts_of_paused_sandboxes_count_as_wakes() {
        let counts = count_of(
            16,
            vec![
                started(StartCause::Created, Start::Fork),
                started(StartCause::Created, Start::Boot),
                event(EventKind::Paused {
                    scope: SnapshotScope::Full,
                    cause: PauseCause::Idle,
                }),
                woken(Start::Restore),
                woken(Start::Restore),
                woken(Start::Boot),
                woken(Start::Unpause),
                started(StartCause::PauseFailed, Start::Unpause),
                started(StartCause::RolledBack, Start::Restore),
                event(EventKind::Stopped(StopReason::Killed)),
            ],
        )
        .await;
        assert_eq!(
            counts,
            [
                (Start::Boot, 1),
                (Start::Fork, 0),
                (Start::Restore, 2),
                (Start::Unpause, 1)
            ]
        );
    }

    #[tokio::test]
    async fn lagged_receiver_counts_the_remaining_wakes() {
        let counts = count_of(2, vec![woken(Start::Restore); 5]).await;
        assert_eq!(counts[2], (Start::Restore, 2));
    }
}
