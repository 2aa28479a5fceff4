//! Disk layers of machines that are captured while they run. Specification: "Snapshots".

use pool_api::{Node, SnapshotScope};

use super::{Rig, id};

/// Own layers of a chain at most: the next one folds them.
const MAX_LAYERS: usize = 8;

#[tokio::test]
async fn machine_captured_often_runs_on_folded_layers() {
    let rig = Rig::with_data("a").await;
    for round in 0..20 {
        rig.say("a", &format!("disk-write {round} round{round}"))
            .await;
        capture(&rig).await;
        let layers: usize = rig.say("a", "disk-layers").await.parse().unwrap();
        assert!(layers <= MAX_LAYERS, "{layers} layers in round {round}");
    }
    for round in 0..20 {
        let read = rig.say("a", &format!("disk-read {round}")).await;
        assert_eq!(read, format!("round{round}"));
    }
    rig.pause("a").await;
    assert_eq!(rig.say("a", "disk-read 19").await, "round19");
    rig.pool.kill(&id("a")).await.unwrap();
}

async fn capture(rig: &Rig) {
    let taken = rig.pool.snapshot(&id("a"), SnapshotScope::Full).await;
    let taken = taken.unwrap();
    rig.pool.release_snapshot(&taken.id).await.unwrap();
}
