mod list;
mod migration;

use std::str::FromStr;

use pool_api::{Epoch, PauseCause, Resources, SnapshotId, SnapshotScope};
use serde_json::json;
use sqlx::Row as _;
use tempfile::TempDir;

use super::*;
use crate::{
    ids::BuildId,
    network::Network,
    reference::Tag,
    time::{Lifetime, Micros},
};

async fn open(dir: &TempDir) -> Ledger {
    Ledger::open(dir.path().join("control.db")).await.unwrap()
}

fn record(id: &str) -> SandboxRecord {
    SandboxRecord {
        id: id.parse().unwrap(),
        template: "base".parse().unwrap(),
        alias: None,
        running: true,
        epoch: Epoch(1),
        started_at: Micros(1),
        end_at: Micros::NEVER,
        kill_at: None,
        pause_scope: Some(SnapshotScope::DiskOnly),
        resources: Resources {
            vcpus: 2,
            memory: 1 << 30,
            disk: 1 << 32,
        },
        envd_token: None,
        traffic_token: None,
        settings: SandboxSettings {
            lifetime: Lifetime::Unlimited,
            idle_timeout: Some(Duration::from_secs(9)),
            auto_pause: true,
            auto_pause_scope: SnapshotScope::DiskOnly,
            kill_paused: true,
            auto_resume: false,
            metadata: [("k".to_owned(), "v\0'\"".to_owned())].into(),
            env: [("A".to_owned(), "B".to_owned())].into(),
            network: serde_json::from_value(json!({ "denyOut": ["1.1.1.1"] })).unwrap(),
        },
    }
}

#[tokio::test]
async fn records_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(&dir).await;
    let inserted = record("ione");
    ledger.insert(&inserted, None).await.unwrap();
    let read = ledger.get(&inserted.id).await.unwrap().unwrap();
    assert_eq!(format!("{read:?}"), format!("{inserted:?}"));
}

#[tokio::test]
async fn record_and_response_are_inserted_atomically() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(&dir).await;
    let response = StoredResponse {
        key: "k".to_owned(),
        digest: "d".to_owned(),
        body: "b".to_owned(),
    };
    ledger
        .insert(&record("ione"), Some(&response))
        .await
        .unwrap();
    let duplicate = ledger.insert(&record("itwo"), Some(&response)).await;
    assert!(duplicate.is_err());
    assert!(
        ledger
            .get(&"itwo".parse().unwrap())
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(ledger.response("k").await.unwrap(), Some(response.clone()));
    assert_eq!(ledger.response("other").await.unwrap(), None);

    // After a day the response has expired and the key is free.
    sqlx::query("UPDATE answers SET created_at = created_at - 86400000001")
        .execute(&ledger.writer)
        .await
        .unwrap();
    assert_eq!(ledger.response("k").await.unwrap(), None);
    ledger
        .insert(&record("itwo"), Some(&response))
        .await
        .unwrap();
    assert_eq!(ledger.response("k").await.unwrap(), Some(response));
}

#[tokio::test]
async fn oldest_responses_beyond_the_maximum_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(&dir).await;
    let now = Micros::now().0;
    sqlx::query(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100003) \
         INSERT INTO answers (number, key, digest, body, created_at) SELECT i, 'k' || i, 'd', 'b', ? FROM n",
    )
    .bind(now)
    .execute(&ledger.writer)
    .await
    .unwrap();
    let response = StoredResponse {
        key: "new".to_owned(),
        digest: "d".to_owned(),
        body: "b".to_owned(),
    };
    ledger
        .insert(&record("ione"), Some(&response))
        .await
        .unwrap();
    let row = sqlx::query("SELECT count(*), min(number) FROM answers")
        .fetch_one(&ledger.writer)
        .await
        .unwrap();
    assert_eq!((row.get::<i64, _>(0), row.get::<i64, _>(1)), (100_000, 5));
    assert!(ledger.response("new").await.unwrap().is_some());
}

#[tokio::test]
async fn unreadable_network_is_replaced_with_the_default() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(&dir).await;
    let inserted = record("ione");
    ledger.insert(&inserted, None).await.unwrap();
    for network in ["[1]", "{", r#"{"rules":5}"#] {
        sqlx::query("UPDATE sandboxes SET network = ?")
            .bind(network)
            .execute(&ledger.writer)
            .await
            .unwrap();
        let read = ledger.get(&inserted.id).await.unwrap().unwrap();
        assert_eq!(read.settings.network, Network::default(), "{network}");
    }
}

#[tokio::test]
async fn malformed_row_is_reported_with_its_column() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(&dir).await;
    ledger.insert(&record("ione"), None).await.unwrap();
    for (change, column) in [
        ("metadata = '[]'", "metadata"),
        ("timeout = -2", "timeout"),
        ("vcpus = 300", "vcpus"),
    ] {
        let record = record("itwo");
        ledger.insert(&record, None).await.unwrap();
        let sql = sqlx::AssertSqlSafe(format!("UPDATE sandboxes SET {change} WHERE id = 'itwo'"));
        sqlx::query(sql).execute(&ledger.writer).await.unwrap();
        let error = ledger.get(&record.id).await.unwrap_err().to_string();
        assert_eq!(error, format!("ledger row itwo has an invalid {column}"));
        assert!(ledger.remove(&record.id).await.unwrap());
    }
}

fn build(number: u8) -> Build {
    Build {
        id: BuildId::generate(),
        template: format!("t{number}").parse().unwrap(),
        snapshot: SnapshotId::from_str(&format!("{number:064x}")).unwrap(),
        scope: SnapshotScope::Full,
        origin: "iorigin".parse().unwrap(),
        resources: record("ione").resources,
        created_at: Micros(7),
    }
}

#[tokio::test]
async fn concurrent_builds_of_one_name_share_a_template() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(&dir).await;
    let (name, tag) = ("n".parse().unwrap(), Tag::default());
    let builds: Vec<Build> = (0..8).map(build).collect();
    let added = builds
        .iter()
        .map(|build| ledger.add_build(build, Some(&name), &tag));
    let mut templates = Vec::new();
    let mut released = Vec::new();
    for added in futures::future::join_all(added).await {
        let (template, snapshots) = added.unwrap().unwrap();
        templates.push(template);
        released.extend(snapshots);
    }
    templates.dedup();
    assert_eq!(templates.len(), 1);
    assert_eq!(released.len(), 7, "each build replaces the one before");
    let referenced = ledger.referenced_snapshots().await.unwrap();
    assert_eq!(referenced.len(), 1);
    assert!(!released.contains(&referenced[0]));
    let removed = ledger.remove_template(&templates[0]).await.unwrap();
    assert_eq!(removed, Some(referenced));
    assert_eq!(ledger.template_named(&name).await.unwrap(), None);
    assert_eq!(ledger.remove_template(&templates[0]).await.unwrap(), None);
    let left = sqlx::query("SELECT (SELECT count(*) FROM templates) + (SELECT count(*) FROM tags) + (SELECT count(*) FROM builds)")
        .fetch_one(&ledger.writer)
        .await
        .unwrap();
    assert_eq!(left.get::<i64, _>(0), 0);
}

#[tokio::test]
async fn rollback_keeps_the_deadline_before_and_after_its_event() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(&dir).await;
    let mut rolled_back = record("ione");
    rolled_back.end_at = Micros(900);
    ledger.insert(&rolled_back, None).await.unwrap();
    let started = |epoch: Epoch| {
        let mut woken = record("ione");
        woken.start(
            epoch,
            Micros(50),
            Lifetime::For(Duration::from_micros(4950)),
        );
        woken
    };
    // The event is applied first, as a wake with a new deadline.
    rolled_back.epoch = Epoch(2);
    ledger
        .record_running(&started(Epoch(2)), StartSource::Host)
        .await
        .unwrap();
    ledger
        .record_running(&rolled_back, StartSource::Rollback)
        .await
        .unwrap();
    let read = ledger.get(&rolled_back.id).await.unwrap().unwrap();
    assert_eq!(
        (read.started_at, read.end_at, read.epoch),
        (Micros(1), Micros(900), Epoch(2))
    );
    // The event is applied last, and a request has moved the deadline meanwhile.
    let lifetime = Lifetime::For(Duration::from_secs(10));
    let max = Duration::from_secs(1 << 40);
    let moved = ledger
        .set_deadline(&rolled_back.id, lifetime, max, DeadlineChange::Extend)
        .await
        .unwrap()
        .unwrap();
    rolled_back.epoch = Epoch(3);
    ledger
        .record_running(&rolled_back, StartSource::Rollback)
        .await
        .unwrap();
    let applied = ledger
        .record_running(&started(Epoch(3)), StartSource::Host)
        .await
        .unwrap();
    assert!(!applied, "the epoch is recorded as running");
    let read = ledger.get(&rolled_back.id).await.unwrap().unwrap();
    assert_eq!((read.started_at, read.end_at), (Micros(1), moved));
}

#[tokio::test]
async fn request_replaces_the_times_that_an_event_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(&dir).await;
    let mut running = record("ione");
    ledger.insert(&running, None).await.unwrap();
    for (source, end_at, applied) in [
        (StartSource::Host, 100, true),
        (StartSource::Host, 200, false),
        (StartSource::Request, 300, true),
    ] {
        running.start(
            Epoch(2),
            Micros(0),
            Lifetime::For(Duration::from_micros(end_at)),
        );
        let changed = ledger.record_running(&running, source).await.unwrap();
        assert_eq!(changed, applied, "{source:?} {end_at}");
    }
    let read = ledger.get(&running.id).await.unwrap().unwrap();
    assert_eq!(read.end_at, Micros(300));
    running.epoch = Epoch(1);
    let stale = ledger.record_running(&running, StartSource::Request).await;
    assert!(!stale.unwrap(), "a stale epoch changes nothing");
}

#[tokio::test]
async fn cause_of_a_pause_decides_whether_the_deadline_stays() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(&dir).await;
    let idle = Some(Duration::from_secs(9));
    for (number, (cause, kill_paused, auto_pause, idle_timeout, stays)) in [
        (PauseCause::Requested, false, false, None, false),
        (PauseCause::Requested, false, false, idle, false),
        (PauseCause::Idle, false, false, idle, false),
        (PauseCause::Idle, true, false, idle, true),
        (PauseCause::Shutdown, false, false, None, true),
        (PauseCause::Shutdown, false, false, idle, true),
        (PauseCause::Shutdown, false, true, None, false),
        (PauseCause::MachineLost, false, false, None, true),
        (PauseCause::MachineLost, false, false, idle, false),
        (PauseCause::StartFailed, false, false, None, true),
        (PauseCause::StartFailed, false, false, idle, false),
    ]
    .into_iter()
    .enumerate()
    {
        let mut running = record(&format!("i{number}"));
        running.end_at = Micros(900);
        running.settings.kill_paused = kill_paused;
        running.settings.auto_pause = auto_pause;
        running.settings.idle_timeout = idle_timeout;
        ledger.insert(&running, None).await.unwrap();
        let pause = PauseReport {
            epoch: Epoch(1),
            at: Micros(500),
            scope: SnapshotScope::Full,
            cause,
        };
        assert!(ledger.record_paused(&running.id, &pause).await.unwrap());
        assert!(!ledger.record_paused(&running.id, &pause).await.unwrap());
        let paused = ledger.get(&running.id).await.unwrap().unwrap();
        let kill_at = stays.then_some(Micros(900));
        assert_eq!(
            (paused.end_at, paused.kill_at),
            (Micros(500), kill_at),
            "{cause:?} {kill_paused} {auto_pause} {idle_timeout:?}"
        );
        ledger
            .clear_kill_deadline(&running.id, Epoch(1))
            .await
            .unwrap();
        let cleared = ledger.get(&running.id).await.unwrap().unwrap();
        let kill_at = kill_at.filter(|_| kill_paused);
        assert_eq!(cleared.kill_at, kill_at, "{cause:?}");
    }
}
