use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnection};

use super::*;

/// Creates a database with the first migration only, and rows.
async fn create_v1(dir: &TempDir) {
    let path = dir.path().join("control.db");
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true);
    let mut file: SqliteConnection = options.connect().await.unwrap();
    let mut first = sqlx::migrate!();
    first.migrations = first
        .migrations
        .iter()
        .filter(|migration| migration.version == 1)
        .cloned()
        .collect();
    first.run(&mut file).await.unwrap();
    for (id, state, network) in [
        (
            "irunning",
            "running",
            Some(
                r#"{"allowInternetAccess":false,"allowPublicTraffic":false,"maskRequestHost":"h"}"#,
            ),
        ),
        ("ipaused", "paused", None),
        (
            "iunreadable",
            "running",
            Some(r#"{"allowPublicTraffic":"no","httpsPorts":[8443]}"#),
        ),
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
async fn version_1_ledger_is_migrated() {
    let dir = tempfile::tempdir().unwrap();
    create_v1(&dir).await;
    let ledger = open(&dir).await;
    let record = ledger
        .get(&"irunning".parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(record.alias.as_deref(), Some("base"));
    assert_eq!(
        record.settings.lifetime,
        Lifetime::For(Duration::from_secs(420))
    );
    assert_eq!((record.pause_scope, record.kill_at), (None, None));
    assert_eq!(record.settings.auto_pause_scope, SnapshotScope::Full);
    assert!(record.settings.auto_pause && !record.settings.kill_paused);
    let access = record.access();
    assert_eq!(access.traffic_token.unwrap().expose(), "traffic");
    assert_eq!(access.mask_request_host.as_deref(), Some("h"));
    assert_eq!(
        ledger.next_deadline().await.unwrap(),
        Some(Micros(2_000_000))
    );
    assert_eq!(ledger.all().await.unwrap().0.len(), 3);
    // Network rules that cannot be read are replaced with the defaults, but the sandbox stays private.
    let unreadable = ledger.get(&"iunreadable".parse().unwrap()).await;
    let access = unreadable.unwrap().unwrap().access();
    assert_eq!(access.traffic_token.unwrap().expose(), "traffic");
    assert!(access.https_ports.is_empty());
    // Opening again changes nothing.
    ledger.close().await;
    assert_eq!(open(&dir).await.all().await.unwrap().0.len(), 3);
}
