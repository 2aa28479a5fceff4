//! What the commands about snapshots do.

use anyhow::{Context, Result};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::path;
use crate::{
    cli::{Remove, Rollback, Snapshots, Take},
    client::Client,
    output::{self, member},
};

/// A text as one segment of a path, or one value of a query.
fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

pub(super) async fn take(args: &Take) -> Result<()> {
    let mut body = Map::from_iter([("memory".to_owned(), json!(!args.no_memory))]);
    if let Some(name) = &args.name {
        body.insert("name".to_owned(), json!(name));
    }
    let taken = Client::new(&args.remote)?
        .call(
            Method::POST,
            &path(&args.id, "/snapshots"),
            Some(&body.into()),
        )
        .await
        .context("take a snapshot of the sandbox")?;
    if args.remote.json {
        output::json(&taken)?;
    } else {
        output::line(&member(&taken, "snapshotID"))?;
    }
    Ok(())
}

pub(super) async fn roll_back(args: &Rollback) -> Result<()> {
    let body = json!({ "snapshotID": args.snapshot });
    let done = Client::new(&args.remote)?
        .call(Method::POST, &path(&args.id, "/rollback"), Some(&body))
        .await
        .context("roll the sandbox back")?;
    if args.remote.json {
        output::json(&done)?;
    }
    Ok(())
}

pub(super) async fn list(args: &Snapshots) -> Result<()> {
    let client = Client::new(&args.remote)?;
    let sandbox = args.sandbox.as_deref();
    let sandbox = sandbox.map_or(String::new(), |id| format!("sandboxID={}", encoded(id)));
    let (mut snapshots, mut from) = (Vec::new(), String::new());
    loop {
        let path = format!("/snapshots?{sandbox}{from}");
        let (page, next) = client
            .call_paged(Method::GET, &path, None)
            .await
            .context("list snapshots")?;
        snapshots.extend(page.as_array().cloned().unwrap_or_default());
        let Some(next) = next else { break };
        from = format!("&nextToken={next}");
    }
    if args.remote.json {
        return Ok(output::json(&snapshots.into())?);
    }
    let rows: Vec<Vec<String>> = snapshots
        .iter()
        .map(|snapshot: &Value| vec![member(snapshot, "snapshotID")])
        .collect();
    Ok(output::table(&["SNAPSHOT"], &rows)?)
}

pub(super) async fn remove(args: &Remove) -> Result<()> {
    let client = Client::new(&args.remote)?;
    let mut outcome = Ok(());
    for snapshot in &args.snapshots {
        let path = format!("/templates/{}", encoded(snapshot));
        let removed = client.call(Method::DELETE, &path, None).await;
        if let Err(error) = removed.with_context(|| format!("delete {snapshot}")) {
            // The others are deleted all the same; the last failure decides the exit code.
            if let Err(earlier) = std::mem::replace(&mut outcome, Err(error)) {
                eprintln!("catnap: {earlier:#}");
            }
        }
    }
    outcome
}
