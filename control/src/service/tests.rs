use std::{collections::BTreeMap, time::Duration};

use pool_api::{Epoch, PauseCause, SnapshotScope, fake::FakeNode};
use tempfile::TempDir;

use super::*;
use crate::{
    ledger::{PauseReport, SandboxSettings},
    network::Network,
    time::{Lifetime, Micros},
};

async fn start_service(dir: &TempDir) -> SandboxService {
    let path = dir.path().join("control.db");
    let ledger = Ledger::open(path.clone()).await.unwrap();
    let config = Config::new(
        path,
        pool_api::Secret::new("e2b_0"),
        "local".parse().unwrap(),
    );
    let node = FakeNode::with_templates(&["base"]);
    SandboxService::new(config, Arc::new(node), Arc::default(), ledger)
}

async fn create(service: &SandboxService) -> SandboxRecord {
    let request = CreateRequest {
        reference: "base".parse().unwrap(),
        settings: SandboxSettings {
            lifetime: Lifetime::For(Duration::from_secs(300)),
            idle_timeout: None,
            auto_pause: false,
            auto_pause_scope: SnapshotScope::Full,
            kill_paused: false,
            auto_resume: true,
            metadata: BTreeMap::new(),
            env: BTreeMap::new(),
            network: Network::default(),
        },
        secure: true,
    };
    service.create(request).await.unwrap()
}

#[tokio::test]
async fn publish_after_a_kill_leaves_no_placement() {
    let dir = tempfile::tempdir().unwrap();
    let service = start_service(&dir).await;
    // A pause, an event or a resume read these records before the kill.
    let record = create(&service).await;
    service.kill(&record.id).await.unwrap();
    service.publish(&record).await.unwrap();
    assert_eq!(service.coordinator.locate(&record.id), None);
    for source in [StartSource::Request, StartSource::Rollback] {
        service.record_running(&record, source).await.unwrap();
        assert_eq!(service.coordinator.locate(&record.id), None, "{source:?}");
    }
}

#[tokio::test]
async fn publish_of_old_rules_ends_with_recorded_rules() {
    let dir = tempfile::tempdir().unwrap();
    let service = start_service(&dir).await;
    let old = create(&service).await;
    let private = serde_json::json!({ "allowPublicTraffic": false });
    let private = serde_json::from_value(private).unwrap();
    service.set_network(&old.id, private).await.unwrap();
    service.publish(&old).await.unwrap();
    let placement = service.coordinator.locate(&old.id).unwrap();
    assert!(placement.access.traffic_token.is_some());
}

#[tokio::test]
async fn transition_below_the_recorded_epoch_is_published() {
    let dir = tempfile::tempdir().unwrap();
    let service = start_service(&dir).await;
    let mut record = create(&service).await;
    record.epoch = Epoch(3);
    service
        .record_running(&record, StartSource::Host)
        .await
        .unwrap();
    record.epoch = Epoch(2);
    for source in [StartSource::Request, StartSource::Rollback] {
        service.coordinator.withdraw(&record.id);
        service.record_running(&record, source).await.unwrap();
        assert!(
            service.coordinator.locate(&record.id).is_some(),
            "{source:?}"
        );
    }
    service.coordinator.withdraw(&record.id);
    let pause = PauseReport {
        epoch: record.epoch,
        at: Micros::now(),
        scope: SnapshotScope::Full,
        cause: PauseCause::Shutdown,
    };
    service.record_paused(&record.id, &pause).await.unwrap();
    assert!(service.coordinator.locate(&record.id).is_some(), "pause");
}
