//! `catnap ledger` and `catnap sandbox ls --quarantined`.

use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::Value;

use crate::{
    cli::{ClientArgs, DiscardArgs, RebuildArgs},
    client::Client,
    output::{self, property},
};

const QUARANTINE: &str = "/catnap/v1/quarantine";

/// Lists the objects in quarantine.
pub(super) async fn list_quarantine(args: &ClientArgs) -> Result<()> {
    let listed = quarantined(&Client::new(args)?).await?;
    if args.json {
        return Ok(output::print_json(&listed.into())?);
    }
    let rows: Vec<Vec<String>> = listed
        .iter()
        .map(|entry| {
            ["id", "kind", "since", "removedAt"]
                .map(|name| property(entry, name))
                .to_vec()
        })
        .collect();
    Ok(output::print_table(
        &["ID", "KIND", "SINCE", "REMOVED"],
        &rows,
    )?)
}

/// Takes objects back, and prints the id of each.
pub(super) async fn rebuild(args: &RebuildArgs) -> Result<()> {
    let client = Client::new(&args.client)?;
    let mut ids = args.ids.clone();
    if ids.is_empty() {
        let listed = quarantined(&client).await?;
        ids.extend(listed.iter().map(|entry| property(entry, "id")));
    }
    for id in ids {
        let path = format!("{QUARANTINE}/{}/restore", segment(&id));
        let found = client
            .call(Method::POST, &path, None)
            .await
            .with_context(|| format!("failed to take {id} back"))?;
        output::print_line(&property(&found, "id"))?;
    }
    Ok(())
}

/// Removes objects.
pub(super) async fn discard(args: &DiscardArgs) -> Result<()> {
    let client = Client::new(&args.client)?;
    for id in &args.ids {
        client
            .call(
                Method::DELETE,
                &format!("{QUARANTINE}/{}", segment(id)),
                None,
            )
            .await
            .with_context(|| format!("failed to remove {id}"))?;
    }
    Ok(())
}

async fn quarantined(client: &Client) -> Result<Vec<Value>> {
    let listed = client.call(Method::GET, QUARANTINE, None).await;
    let listed = listed.context("failed to list the quarantine")?;
    Ok(listed.as_array().cloned().unwrap_or_default())
}

/// Ids consist of letters and digits; anything else is no id.
fn segment(id: &str) -> String {
    id.chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect()
}
