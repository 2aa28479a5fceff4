//! `catnap snapshot`, `catnap sandbox snapshot` and `catnap sandbox rollback`.

use anyhow::{Context, Result};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::{
    cli::{DeleteSnapshotArgs, ListSnapshotsArgs, RollbackArgs, SnapshotArgs},
    client::{Client, sandbox_path},
    output::{self, property},
};

/// Encodes a path segment or a query value.
fn percent_encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

pub(super) async fn create(args: &SnapshotArgs) -> Result<()> {
    let mut body = Map::from_iter([("memory".to_owned(), json!(!args.no_memory))]);
    if let Some(name) = &args.name {
        body.insert("name".to_owned(), json!(name));
    }
    let path = sandbox_path(&args.id, "/snapshots");
    let snapshot = Client::new(&args.client)?
        .call(Method::POST, &path, Some(&body.into()))
        .await
        .context("failed to snapshot the sandbox")?;
    if args.client.json {
        output::print_json(&snapshot)?;
    } else {
        output::print_line(&property(&snapshot, "snapshotID"))?;
    }
    Ok(())
}

pub(super) async fn rollback(args: &RollbackArgs) -> Result<()> {
    let body = json!({ "snapshotID": args.snapshot });
    let path = sandbox_path(&args.id, "/rollback");
    let response = Client::new(&args.client)?
        .call(Method::POST, &path, Some(&body))
        .await
        .context("failed to roll the sandbox back")?;
    if args.client.json {
        output::print_json(&response)?;
    }
    Ok(())
}

pub(super) async fn list(args: &ListSnapshotsArgs) -> Result<()> {
    let client = Client::new(&args.client)?;
    let filter = match &args.sandbox {
        Some(id) => format!("sandboxID={}", percent_encode(id)),
        None => String::new(),
    };
    let (mut snapshots, mut token) = (Vec::new(), String::new());
    loop {
        let path = format!("/snapshots?{filter}{token}");
        let (page, next) = client
            .call_paged(Method::GET, &path, None)
            .await
            .context("failed to list snapshots")?;
        snapshots.extend(page.as_array().cloned().unwrap_or_default());
        let Some(next) = next else { break };
        token = format!("&nextToken={next}");
    }
    if args.client.json {
        return Ok(output::print_json(&snapshots.into())?);
    }
    let rows: Vec<Vec<String>> = snapshots
        .iter()
        .map(|snapshot: &Value| vec![property(snapshot, "snapshotID")])
        .collect();
    Ok(output::print_table(&["SNAPSHOT"], &rows)?)
}

/// Deletes every snapshot, also after a failure. The last failure decides the exit code.
pub(super) async fn delete(args: &DeleteSnapshotArgs) -> Result<()> {
    let client = Client::new(&args.client)?;
    let mut result = Ok(());
    for snapshot in &args.snapshots {
        let path = format!("/templates/{}", percent_encode(snapshot));
        let deleted = client.call(Method::DELETE, &path, None).await;
        if let Err(error) = deleted.with_context(|| format!("failed to delete {snapshot}"))
            && let Err(earlier) = std::mem::replace(&mut result, Err(error))
        {
            eprintln!("catnap: {earlier:#}");
        }
    }
    result
}
