//! What every coordinator must do. Each implementation's tests call [`check`] on an empty one, with tokio's time paused
//! or real.

use std::time::Duration;

use pool_api::{Epoch, NodeId, SandboxId};

use crate::{Access, ClaimError, Coordinator, Placement, PublishError};

/// Runs every check. `coordinator` must be empty.
///
/// # Panics
///
/// When the coordinator does not do as it must.
pub async fn check(coordinator: &dyn Coordinator) {
    placements_are_ordered_by_epoch(coordinator).await;
    changes_are_watched(coordinator).await;
    one_host_holds_a_sandbox(coordinator).await;
    claims_end(coordinator).await;
}

fn name<T: std::str::FromStr>(text: &str) -> T {
    text.parse()
        .unwrap_or_else(|_| panic!("{text} is not a name"))
}

fn placement(epoch: u64) -> Placement {
    Placement {
        node: name("n1"),
        epoch: Epoch(epoch),
        access: Access {
            auto_resume: true,
            ..Access::default()
        },
    }
}

async fn placements_are_ordered_by_epoch(coordinator: &dyn Coordinator) {
    let id: SandboxId = name("iplaced");
    assert_eq!(
        coordinator.locate(&id).await.ok(),
        Some(None),
        "an unknown sandbox is nowhere"
    );
    assert!(coordinator.publish(&id, placement(2)).await.is_ok());
    let older = coordinator.publish(&id, placement(1)).await;
    assert!(
        matches!(
            older,
            Err(PublishError::Superseded {
                current: Epoch(2),
                ..
            })
        ),
        "{older:?}"
    );
    let mut same = placement(2);
    same.access.auto_resume = false;
    assert!(
        coordinator.publish(&id, same.clone()).await.is_ok(),
        "the same life may be published again"
    );
    assert_eq!(coordinator.locate(&id).await.ok(), Some(Some(same)));
    assert!(coordinator.withdraw(&id).await.is_ok());
    assert!(
        coordinator.withdraw(&id).await.is_ok(),
        "withdrawing twice is no error"
    );
    assert_eq!(coordinator.locate(&id).await.ok(), Some(None));
}

async fn changes_are_watched(coordinator: &dyn Coordinator) {
    let id: SandboxId = name("iwatched");
    let mut changes = coordinator.watch();
    assert!(coordinator.publish(&id, placement(1)).await.is_ok());
    assert_eq!(changes.recv().await.ok(), Some(id.clone()));
    assert!(coordinator.withdraw(&id).await.is_ok());
    assert_eq!(changes.recv().await.ok(), Some(id));
}

async fn one_host_holds_a_sandbox(coordinator: &dyn Coordinator) {
    let (id, first, second): (SandboxId, NodeId, NodeId) = (name("iheld"), name("n1"), name("n2"));
    let ttl = Duration::from_secs(60);
    assert!(coordinator.publish(&id, placement(7)).await.is_ok());
    let Ok(claim) = coordinator.claim(&id, &first, ttl).await else {
        panic!("a free sandbox can be claimed")
    };
    assert_eq!(
        claim.epoch,
        Epoch(8),
        "a claim is a later life than any before"
    );
    let held = coordinator.claim(&id, &second, ttl).await;
    assert!(
        matches!(held, Err(ClaimError::Held { ref holder, .. }) if *holder == first),
        "{held:?}"
    );
    let mut old = claim.clone();
    assert!(coordinator.release(claim).await.is_ok());
    let Ok(next) = coordinator.claim(&id, &second, ttl).await else {
        panic!("a released sandbox can be claimed")
    };
    assert_eq!(next.epoch, Epoch(9));
    assert!(matches!(
        coordinator.renew(&mut old, ttl).await,
        Err(ClaimError::Over(_))
    ));
    assert!(
        coordinator.release(old).await.is_ok(),
        "releasing an old claim does nothing"
    );
    let held = coordinator.claim(&id, &first, ttl).await;
    assert!(matches!(held, Err(ClaimError::Held { .. })), "{held:?}");
}

async fn claims_end(coordinator: &dyn Coordinator) {
    let (id, node): (SandboxId, NodeId) = (name("iending"), name("n1"));
    let ttl = Duration::from_millis(500);
    let Ok(mut claim) = coordinator.claim(&id, &node, ttl).await else {
        panic!("a free sandbox can be claimed")
    };
    let before = claim.until;
    assert!(coordinator.renew(&mut claim, ttl * 2).await.is_ok());
    assert!(claim.until > before, "renewing moves the end");
    tokio::time::sleep_until(claim.until).await;
    assert!(matches!(
        coordinator.renew(&mut claim, ttl).await,
        Err(ClaimError::Over(_))
    ));
    assert!(
        coordinator.claim(&id, &node, ttl).await.is_ok(),
        "an ended claim stands in nobody's way"
    );
}
