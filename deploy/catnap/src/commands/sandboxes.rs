//! `catnap sandbox`, but for `exec` and snapshots.

use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::ledger::list_quarantine;
use crate::{
    cli::{
        ClientArgs, CreateArgs, ForkArgs, KillArgs, ListArgs, LogsArgs, PauseArgs, ResumeArgs,
        SandboxArg,
    },
    client::{Client, sandbox_path},
    output::{self, property},
};

/// Converts pairs to a JSON object.
fn json_object(pairs: &[(String, String)]) -> Value {
    pairs
        .iter()
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect::<Map<_, _>>()
        .into()
}

pub(super) async fn create(args: &CreateArgs) -> Result<()> {
    let mut body = json!({
        "templateID": args.template,
        "timeout": args.timeout,
        "autoPause": args.auto_pause,
        "autoResume": { "enabled": args.auto_resume },
        "metadata": json_object(&args.metadata),
        "envVars": json_object(&args.env),
    });
    if let Some(idle) = args.idle_timeout {
        body["idleTimeout"] = json!(idle);
    }
    let created = Client::new(&args.client)?
        .call(Method::POST, "/v2/sandboxes", Some(&body))
        .await;
    print_sandbox(
        &args.client,
        &created.context("failed to create a sandbox")?,
    )
}

/// Prints a sandbox as JSON, or its ID.
fn print_sandbox(args: &ClientArgs, sandbox: &Value) -> Result<()> {
    if args.json {
        output::print_json(sandbox)?;
    } else {
        output::print_line(&property(sandbox, "sandboxID"))?;
    }
    Ok(())
}

pub(super) async fn list(args: &ListArgs) -> Result<()> {
    if args.quarantined {
        return list_quarantine(&args.client).await;
    }
    let client = Client::new(&args.client)?;
    let state = args.state.as_deref().unwrap_or("running,paused");
    let mut sandboxes: Vec<Value> = Vec::new();
    let mut token = String::new();
    loop {
        let path = format!(
            "/v2/sandboxes?state={}{token}",
            state.replace(['&', '#', ' ', '%'], "_")
        );
        let (page, next) = client
            .call_paged(Method::GET, &path, None)
            .await
            .context("failed to list sandboxes")?;
        sandboxes.extend(page.as_array().cloned().unwrap_or_default());
        let Some(next) = next else { break };
        token = format!("&nextToken={next}");
    }
    if args.client.json {
        return Ok(output::print_json(&sandboxes.into())?);
    }
    let rows: Vec<Vec<String>> = sandboxes
        .iter()
        .map(|sandbox| {
            ["sandboxID", "templateID", "state", "startedAt", "endAt"]
                .map(|name| property(sandbox, name))
                .to_vec()
        })
        .collect();
    Ok(output::print_table(
        &["SANDBOX", "TEMPLATE", "STATE", "STARTED", "ENDS"],
        &rows,
    )?)
}

pub(super) async fn info(args: &SandboxArg) -> Result<()> {
    let client = Client::new(&args.client)?;
    let sandbox = client
        .call(Method::GET, &sandbox_path(&args.id, ""), None)
        .await
        .context("failed to get the sandbox")?;
    if args.client.json {
        return Ok(output::print_json(&sandbox)?);
    }
    let is_secret = |name: &str| name.ends_with("Token");
    let rows: Vec<Vec<String>> = sandbox
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, value)| !value.is_null() && !is_secret(name))
        .map(|(name, _)| vec![name.clone(), property(&sandbox, name)])
        .collect();
    Ok(output::print_table(&["", ""], &rows)?)
}

pub(super) async fn pause(args: &PauseArgs) -> Result<()> {
    let client = Client::new(&args.client)?;
    let body = json!({ "memory": !args.no_memory });
    let response = client
        .call(Method::POST, &sandbox_path(&args.id, "/pause"), Some(&body))
        .await
        .context("failed to pause the sandbox")?;
    if args.client.json {
        output::print_json(&response)?;
    }
    Ok(())
}

pub(super) async fn resume(args: &ResumeArgs) -> Result<()> {
    let client = Client::new(&args.client)?;
    let body = json!({ "timeout": args.timeout, "memory": !args.no_memory });
    let response = client
        .call(
            Method::POST,
            &sandbox_path(&args.id, "/resume"),
            Some(&body),
        )
        .await;
    print_sandbox(
        &args.client,
        &response.context("failed to resume the sandbox")?,
    )
}

pub(super) async fn fork(args: &ForkArgs) -> Result<()> {
    let client = Client::new(&args.client)?;
    let body = json!({ "count": args.count, "timeout": args.timeout });
    let response = client
        .call(Method::POST, &sandbox_path(&args.id, "/fork"), Some(&body))
        .await;
    let response = response.context("failed to fork the sandbox")?;
    let outcomes = response.as_array().cloned().unwrap_or_default();
    if args.client.json {
        output::print_json(&response)?;
    }
    let mut failed = 0;
    for outcome in &outcomes {
        match (outcome.get("sandbox"), outcome.get("error")) {
            (Some(sandbox), _) if !args.client.json => {
                output::print_line(&property(sandbox, "sandboxID"))?;
            }
            (_, Some(error)) => {
                failed += 1;
                eprintln!("catnap: fork: {}", property(error, "message"));
            }
            _ => {}
        }
    }
    anyhow::ensure!(failed == 0, "{failed} of {} forks failed", outcomes.len());
    Ok(())
}

/// Kills every sandbox, also after a failure. The last failure decides the exit code.
pub(super) async fn kill(args: &KillArgs) -> Result<()> {
    let client = Client::new(&args.client)?;
    let mut result = Ok(());
    for id in &args.ids {
        let killed = client
            .call(Method::DELETE, &sandbox_path(id, ""), None)
            .await;
        if let Err(error) = killed.with_context(|| format!("failed to kill {id}"))
            && let Err(earlier) = std::mem::replace(&mut result, Err(error))
        {
            eprintln!("catnap: {earlier:#}");
        }
    }
    result
}

pub(super) async fn logs(args: &LogsArgs) -> Result<()> {
    let client = Client::new(&args.client)?;
    let path = sandbox_path(&args.id, &format!("/logs?limit={}", args.limit));
    let response = client
        .call(Method::GET, &path, None)
        .await
        .context("failed to read the console")?;
    if args.client.json {
        return Ok(output::print_json(&response)?);
    }
    for entry in response
        .get("logs")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        output::print_line(&property(entry, "line"))?;
    }
    Ok(())
}

pub(super) async fn metrics(args: &SandboxArg) -> Result<()> {
    let client = Client::new(&args.client)?;
    let response = client
        .call(Method::GET, &sandbox_path(&args.id, "/metrics"), None)
        .await
        .context("failed to get the metrics")?;
    if args.client.json {
        return Ok(output::print_json(&response)?);
    }
    let mib = |sample: &Value, name: &str| {
        let bytes = sample.get(name).and_then(Value::as_u64);
        bytes.map_or(String::new(), |bytes| (bytes >> 20).to_string())
    };
    let rows: Vec<Vec<String>> = response
        .as_array()
        .into_iter()
        .flatten()
        .map(|sample| {
            let plain = ["timestamp", "cpuUsedPct"].map(|name| property(sample, name));
            let sizes = ["memUsed", "memTotal", "diskUsed", "diskTotal"];
            plain
                .into_iter()
                .chain(sizes.map(|name| mib(sample, name)))
                .collect()
        })
        .collect();
    Ok(output::print_table(
        &["TIME", "CPU %", "MEMORY MB", "OF", "DISK MB", "OF"],
        &rows,
    )?)
}
