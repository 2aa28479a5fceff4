use std::str::FromStr;

use pool_api::{Resources, SnapshotId};
use serde_json::json;
use sqlx::{ConnectOptions, Connection, Row as _, sqlite::SqliteConnection};
use tempfile::TempDir;

use super::*;
use crate::{reference::Tag, time::Window};

async fn open(dir: &TempDir) -> Ledger {
    Ledger::open(dir.path().join("control.db")).await.unwrap()
}

/// The file as it was before the second migration, with rows.
async fn old(dir: &TempDir) {
    let path = dir.path().join("control.db");
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true);
    let mut file: SqliteConnection = options.connect().await.unwrap();
    let mut first = sqlx::migrate!();
    first.migrations = first
        .migrations
        .iter()
        .filter(|one| one.version == 1)
        .cloned()
        .collect();
    first.run(&mut file).await.unwrap();
    for (id, state, network) in [
        (
            "iruns",
            "running",
            Some(
                r#"{"allowInternetAccess":false,"allowPublicTraffic":false,"maskRequestHost":"h"}"#,
            ),
        ),
        ("isleeps", "paused", None),
    ] {
        sqlx::query(
            "INSERT INTO sandboxes VALUES (?, 'base', ?, 3, 1000000, 2000000, 420, NULL, 1, 1, 'envd', 'traffic', 1, \
             268435456, 1073741824, '{\"k\":\"v\"}', '{}', ?)",
        )
        .bind(id)
        .bind(state)
        .bind(network)
        .execute(&mut file)
        .await
        .unwrap();
    }
    file.close().await.unwrap();
}

#[tokio::test]
async fn a_ledger_of_the_first_version_is_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    old(&dir).await;
    let ledger = open(&dir).await;
    let entry = ledger
        .get(&"iruns".parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(entry.lasting.alias.as_deref(), Some("base"));
    assert_eq!(entry.lasting.timeout, Window::For(Duration::from_secs(420)));
    assert_eq!((entry.keep, entry.doomed_at), (None, None));
    assert_eq!(entry.lasting.auto_pause_keep, SnapshotScope::Full);
    assert!(entry.lasting.auto_pause && !entry.lasting.kill_paused);
    let access = entry.access();
    assert_eq!(access.traffic_token.unwrap().expose(), "traffic");
    assert_eq!(access.mask_request_host.as_deref(), Some("h"));
    assert_eq!(ledger.first_end().await.unwrap(), Some(Micros(2_000_000)));
    assert_eq!(ledger.all().await.unwrap().len(), 2);
    // Once more changes nothing.
    ledger.close().await;
    assert_eq!(open(&dir).await.all().await.unwrap().len(), 2);
}

fn entry(id: &str) -> Entry {
    Entry {
        id: id.parse().unwrap(),
        running: true,
        epoch: Epoch(1),
        started_at: Micros(1),
        end_at: Micros::NEVER,
        doomed_at: None,
        keep: Some(SnapshotScope::DiskOnly),
        resources: Resources {
            vcpus: 2,
            memory: 1 << 30,
            disk: 1 << 32,
        },
        envd_token: None,
        traffic_token: None,
        lasting: Lasting {
            template: "base".parse().unwrap(),
            alias: None,
            timeout: Window::Never,
            idle_timeout: Some(Duration::from_secs(9)),
            auto_pause: true,
            auto_pause_keep: SnapshotScope::DiskOnly,
            kill_paused: true,
            auto_resume: false,
            metadata: [("k".to_owned(), "v\0'\"".to_owned())].into(),
            env: [("A".to_owned(), "B".to_owned())].into(),
            network: Some(json!({ "denyOut": ["1.1.1.1"] })),
        },
    }
}

#[tokio::test]
async fn an_entry_comes_back_as_it_went() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(&dir).await;
    let kept = entry("ione");
    ledger.insert(&kept, None).await.unwrap();
    let read = ledger.get(&kept.id).await.unwrap().unwrap();
    assert_eq!(format!("{read:?}"), format!("{kept:?}"));
}

#[tokio::test]
async fn a_sandbox_and_its_answer_are_both_there_or_neither() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(&dir).await;
    let answer = Answer {
        key: "k".to_owned(),
        digest: "d".to_owned(),
        body: "b".to_owned(),
    };
    ledger.insert(&entry("ione"), Some(&answer)).await.unwrap();
    let twice = ledger.insert(&entry("itwo"), Some(&answer)).await;
    assert!(twice.is_err());
    assert!(
        ledger
            .get(&"itwo".parse().unwrap())
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(ledger.answer("k").await.unwrap(), Some(answer.clone()));
    assert_eq!(ledger.answer("other").await.unwrap(), None);

    // A day later it is forgotten, and the key is free.
    sqlx::query("UPDATE answers SET created_at = created_at - 86400000001")
        .execute(&ledger.pool)
        .await
        .unwrap();
    assert_eq!(ledger.answer("k").await.unwrap(), None);
    ledger.insert(&entry("itwo"), Some(&answer)).await.unwrap();
    assert_eq!(ledger.answer("k").await.unwrap(), Some(answer));
}

#[tokio::test]
async fn no_more_answers_are_kept_than_there_is_room_for() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(&dir).await;
    let now = Micros::now().0;
    sqlx::query(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100003) \
         INSERT INTO answers (number, key, digest, body, created_at) SELECT i, 'k' || i, 'd', 'b', ? FROM n",
    )
    .bind(now)
    .execute(&ledger.pool)
    .await
    .unwrap();
    let answer = Answer {
        key: "new".to_owned(),
        digest: "d".to_owned(),
        body: "b".to_owned(),
    };
    ledger.insert(&entry("ione"), Some(&answer)).await.unwrap();
    let row = sqlx::query("SELECT count(*), min(number) FROM answers")
        .fetch_one(&ledger.pool)
        .await
        .unwrap();
    assert_eq!((row.get::<i64, _>(0), row.get::<i64, _>(1)), (100_000, 5));
    assert!(ledger.answer("new").await.unwrap().is_some());
}

#[tokio::test]
async fn a_row_that_nobody_wrote_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(&dir).await;
    ledger.insert(&entry("ione"), None).await.unwrap();
    for (change, column) in [
        ("metadata = '[]'", "metadata"),
        ("timeout = -2", "timeout"),
        ("vcpus = 300", "vcpus"),
    ] {
        let mut row = entry("itwo");
        row.id = "itwo".parse().unwrap();
        ledger.insert(&row, None).await.unwrap();
        let sql = sqlx::AssertSqlSafe(format!("UPDATE sandboxes SET {change} WHERE id = 'itwo'"));
        sqlx::query(sql).execute(&ledger.pool).await.unwrap();
        let error = ledger.get(&row.id).await.unwrap_err().to_string();
        assert_eq!(
            error,
            format!("the ledger's row of sandbox itwo has no valid {column}")
        );
        assert!(ledger.remove(&row.id).await.unwrap());
    }
}

fn build(id: &str, snapshot: u8) -> Build {
    Build {
        id: id.to_owned(),
        template: format!("t{id}").parse().unwrap(),
        snapshot: SnapshotId::from_str(&format!("{snapshot:064x}")).unwrap(),
        keep: SnapshotScope::Full,
        origin: "iorigin".parse().unwrap(),
        resources: entry("ione").resources,
        created_at: Micros(7),
    }
}

#[tokio::test]
async fn builds_at_the_same_time_share_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(&dir).await;
    let (name, tag) = ("n".parse().unwrap(), Tag::default());
    let builds: Vec<Build> = (0..8).map(|n| build(&format!("b{n}"), n)).collect();
    let added = builds
        .iter()
        .map(|build| ledger.add_build(build, Some(&name), &tag));
    let mut templates = Vec::new();
    let mut dropped = Vec::new();
    for added in futures::future::join_all(added).await {
        let (template, gone) = added.unwrap().unwrap();
        templates.push(template);
        dropped.extend(gone);
    }
    templates.dedup();
    assert_eq!(templates.len(), 1);
    assert_eq!(dropped.len(), 7, "each pushed out the one before");
    let kept = ledger.promised().await.unwrap();
    assert_eq!(kept.len(), 1);
    assert!(!dropped.contains(&kept[0]));
    let gone = ledger.remove_template(&templates[0]).await.unwrap();
    assert_eq!(gone, Some(kept));
    assert_eq!(ledger.named(&name).await.unwrap(), None);
    assert_eq!(ledger.remove_template(&templates[0]).await.unwrap(), None);
    let left = sqlx::query("SELECT (SELECT count(*) FROM templates) + (SELECT count(*) FROM tags) + (SELECT count(*) FROM builds)")
        .fetch_one(&ledger.pool)
        .await
        .unwrap();
    assert_eq!(left.get::<i64, _>(0), 0);
}

#[tokio::test]
async fn a_rollback_keeps_the_end_whoever_noted_it_first() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(&dir).await;
    let mut known = entry("ione");
    known.end_at = Micros(900);
    ledger.insert(&known, None).await.unwrap();
    // The follower was faster, and took it for a wake.
    ledger
        .woken(&known.id, Epoch(2), Micros(50), Micros(5000))
        .await
        .unwrap();
    ledger.rolled_back(&known, Epoch(2)).await.unwrap();
    let read = ledger.get(&known.id).await.unwrap().unwrap();
    assert_eq!(
        (read.started_at, read.end_at, read.epoch),
        (Micros(1), Micros(900), Epoch(2))
    );
    // The follower was slower, and somebody moved the end meanwhile.
    let window = Window::For(Duration::from_secs(10));
    let longest = Duration::from_secs(1 << 40);
    let moved = ledger
        .set_end(&known.id, window, longest, true)
        .await
        .unwrap()
        .unwrap();
    ledger.rolled_back(&known, Epoch(3)).await.unwrap();
    ledger
        .woken(&known.id, Epoch(3), Micros(50), Micros(5000))
        .await
        .unwrap();
    let read = ledger.get(&known.id).await.unwrap().unwrap();
    assert_eq!((read.started_at, read.end_at), (Micros(1), moved));
}
