//! `catnap template`.

use anyhow::{Context, Result};
use reqwest::Method;

use crate::{
    cli::{BuildArgs, ClientArgs},
    client::Client,
    output::{self, property},
};

pub(super) async fn list(args: &ClientArgs) -> Result<()> {
    let templates = Client::new(args)?
        .call(Method::GET, "/templates", None)
        .await
        .context("failed to list templates")?;
    if args.json {
        return Ok(output::print_json(&templates)?);
    }
    let names = [
        "templateID",
        "buildStatus",
        "cpuCount",
        "memoryMB",
        "diskSizeMB",
        "updatedAt",
    ];
    let rows: Vec<Vec<String>> = templates
        .as_array()
        .into_iter()
        .flatten()
        .map(|template| names.map(|name| property(template, name)).to_vec())
        .collect();
    Ok(output::print_table(
        &[
            "TEMPLATE",
            "STATUS",
            "CPUS",
            "MEMORY MB",
            "DISK MB",
            "BUILT",
        ],
        &rows,
    )?)
}

pub(super) async fn build(args: &BuildArgs) -> Result<()> {
    // Characters that no name has become dots, which the API refuses.
    let name: String = args
        .name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_".contains(c) {
                c
            } else {
                '.'
            }
        })
        .collect();
    let path = format!("/templates/{name}/build");
    let template = Client::new(&args.client)?
        .call(Method::POST, &path, None)
        .await
        .with_context(|| format!("failed to build template {}", args.name))?;
    if args.client.json {
        output::print_json(&template)?;
    } else {
        output::print_line(&property(&template, "templateID"))?;
    }
    Ok(())
}
