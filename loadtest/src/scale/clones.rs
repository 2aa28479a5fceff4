//! Copies of a paused sandbox, made on disk.

use std::{fs, path::Path};

use anyhow::Context;
use pool_api::SnapshotId;
use serde_json::Value;
use snapshotter::Manifest;
use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions};

/// Makes copies of a paused sandbox in the data directory of a gateway that does not run.
pub(super) async fn make(data: &Path, model: &str, count: u32) -> anyhow::Result<()> {
    let mut ids = Vec::new();
    let model_dir = data.join("sandboxes").join(model);
    let record: Value = serde_json::from_slice(&fs::read(model_dir.join("sandbox.json"))?)?;
    let snapshot: SnapshotId = record["snapshot"]
        .as_str()
        .context("no snapshot")?
        .parse()?;
    let snapshot_dir = data.join("snapshots").join(snapshot.as_str());
    let manifest = Manifest::decode(&fs::read(snapshot_dir.join("manifest"))?, &snapshot)?;
    for number in 0..count {
        let id = format!("copy{number:016}");
        let copied = clone_snapshot(data, &snapshot_dir, &manifest, number)?;
        clone_sandbox(data, &model_dir, record.clone(), &id, &copied)?;
        ids.push(id);
    }
    clone_rows(&data.join("control.db"), model, &ids).await
}

/// Copies a snapshot: a manifest of its own, and links to the other files.
fn clone_snapshot(
    data: &Path,
    from: &Path,
    manifest: &Manifest,
    number: u32,
) -> anyhow::Result<SnapshotId> {
    let manifest = Manifest {
        created_at: manifest.created_at + 1 + u64::from(number),
        ..manifest.clone()
    };
    let (id, bytes) = manifest.encode()?;
    let to = data.join("snapshots").join(id.as_str());
    fs::create_dir(&to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_name() != "manifest" {
            fs::hard_link(entry.path(), to.join(entry.file_name()))?;
        }
    }
    fs::write(to.join("manifest"), bytes)?;
    Ok(id)
}

fn clone_sandbox(
    data: &Path,
    from: &Path,
    mut record: Value,
    id: &str,
    snapshot: &SnapshotId,
) -> anyhow::Result<()> {
    let to = data.join("sandboxes").join(id);
    fs::create_dir(&to)?;
    record["spec"]["id"] = id.into();
    record["snapshot"] = snapshot.as_str().into();
    fs::write(to.join("sandbox.json"), record.to_string())?;
    let token = from.join("token");
    if token.exists() {
        fs::copy(token, to.join("token"))?;
    }
    Ok(())
}

/// Copies the row of a sandbox, whatever its columns are.
async fn clone_rows(ledger: &Path, model: &str, ids: &[String]) -> anyhow::Result<()> {
    let options = SqliteConnectOptions::new().filename(ledger);
    let mut connection = SqliteConnection::connect_with(&options).await?;
    let columns: Vec<String> = sqlx::query("SELECT name FROM pragma_table_info('sandboxes')")
        .fetch_all(&mut connection)
        .await?
        .iter()
        .map(|row| row.get::<String, _>(0))
        .filter(|name| name != "id")
        .collect();
    let columns = columns.join(", ");
    let insert = format!(
        "INSERT INTO sandboxes (id, {columns}) SELECT ?1, {columns} FROM sandboxes WHERE id = ?2"
    );
    let mut transaction = connection.begin().await?;
    for id in ids {
        let insert = sqlx::query(sqlx::AssertSqlSafe(insert.as_str()));
        insert
            .bind(id)
            .bind(model)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    connection.close().await?;
    Ok(())
}
