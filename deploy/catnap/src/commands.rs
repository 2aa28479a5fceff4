//! What the commands do.

mod snapshots;

use std::process::ExitCode;

use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::{
    cli::{
        Build, Cli, Command, Create, Fork, List, Logs, Many, One, Pause, Remote, Resume, Sandbox,
        Snapshot, Template,
    },
    client::Client,
    exec,
    output::{self, member},
    up,
};

/// Runs a command; its exit code when it did what it was asked.
pub(crate) async fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Up(args) => up::up(args).await?,
        Command::Template(Template::Ls(remote)) => templates(&remote).await?,
        Command::Template(Template::Build(args)) => build(&args).await?,
        Command::Snapshot(Snapshot::Ls(args)) => snapshots::list(&args).await?,
        Command::Snapshot(Snapshot::Rm(args)) => snapshots::remove(&args).await?,
        Command::Sandbox(command) => return sandbox(command).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn sandbox(command: Sandbox) -> Result<ExitCode> {
    match command {
        Sandbox::Create(args) => create(&args).await?,
        Sandbox::Ls(args) => list(&args).await?,
        Sandbox::Info(args) => info(&args).await?,
        Sandbox::Pause(args) => pause(&args).await?,
        Sandbox::Resume(args) => resume(&args).await?,
        Sandbox::Fork(args) => fork(&args).await?,
        Sandbox::Kill(args) => kill(&args).await?,
        Sandbox::Logs(args) => logs(&args).await?,
        Sandbox::Metrics(args) => metrics(&args).await?,
        Sandbox::Snapshot(args) => snapshots::take(&args).await?,
        Sandbox::Rollback(args) => snapshots::roll_back(&args).await?,
        Sandbox::Exec(args) => return exec::run(&args).await,
    }
    Ok(ExitCode::SUCCESS)
}

fn object(pairs: &[(String, String)]) -> Value {
    pairs
        .iter()
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect::<Map<_, _>>()
        .into()
}

/// The path of a sandbox's route. An id that is not one cannot be found.
pub(crate) fn path(id: &str, rest: &str) -> String {
    let id: String = id
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' {
                c
            } else {
                '_'
            }
        })
        .collect();
    format!("/sandboxes/{id}{rest}")
}

async fn create(args: &Create) -> Result<()> {
    let mut body = json!({
        "templateID": args.template,
        "timeout": args.timeout,
        "autoPause": args.auto_pause,
        "autoResume": { "enabled": args.auto_resume },
        "metadata": object(&args.metadata),
        "envVars": object(&args.env),
    });
    if let Some(idle) = args.idle_timeout {
        body["idleTimeout"] = json!(idle);
    }
    let made = Client::new(&args.remote)?
        .call(Method::POST, "/v2/sandboxes", Some(&body))
        .await;
    show(&args.remote, &made.context("create a sandbox")?)
}

/// Prints a sandbox: all of it as JSON, or its id.
fn show(remote: &Remote, sandbox: &Value) -> Result<()> {
    if remote.json {
        output::json(sandbox)?;
    } else {
        output::line(&member(sandbox, "sandboxID"))?;
    }
    Ok(())
}

async fn list(args: &List) -> Result<()> {
    let client = Client::new(&args.remote)?;
    let state = args.state.as_deref().unwrap_or("running,paused");
    let mut sandboxes: Vec<Value> = Vec::new();
    let mut from = String::new();
    loop {
        let path = format!(
            "/v2/sandboxes?state={}{from}",
            state.replace(['&', '#', ' ', '%'], "_")
        );
        let (page, next) = client
            .call_paged(Method::GET, &path, None)
            .await
            .context("list sandboxes")?;
        sandboxes.extend(page.as_array().cloned().unwrap_or_default());
        let Some(next) = next else { break };
        from = format!("&nextToken={next}");
    }
    if args.remote.json {
        return Ok(output::json(&sandboxes.into())?);
    }
    let rows: Vec<Vec<String>> = sandboxes
        .iter()
        .map(|sandbox| {
            ["sandboxID", "templateID", "state", "startedAt", "endAt"]
                .map(|name| member(sandbox, name))
                .to_vec()
        })
        .collect();
    Ok(output::table(
        &["SANDBOX", "TEMPLATE", "STATE", "STARTED", "ENDS"],
        &rows,
    )?)
}

async fn info(args: &One) -> Result<()> {
    let client = Client::new(&args.remote)?;
    let sandbox = client
        .call(Method::GET, &path(&args.id, ""), None)
        .await
        .context("show the sandbox")?;
    if args.remote.json {
        return Ok(output::json(&sandbox)?);
    }
    let secret = |name: &str| name.ends_with("Token");
    let rows: Vec<Vec<String>> = sandbox
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, value)| !value.is_null() && !secret(name))
        .map(|(name, _)| vec![name.clone(), member(&sandbox, name)])
        .collect();
    Ok(output::table(&["", ""], &rows)?)
}

async fn pause(args: &Pause) -> Result<()> {
    let client = Client::new(&args.remote)?;
    let body = json!({ "memory": !args.no_memory });
    let answer = client
        .call(Method::POST, &path(&args.id, "/pause"), Some(&body))
        .await
        .context("pause the sandbox")?;
    if args.remote.json {
        output::json(&answer)?;
    }
    Ok(())
}

async fn resume(args: &Resume) -> Result<()> {
    let client = Client::new(&args.remote)?;
    let body = json!({ "timeout": args.timeout, "memory": !args.no_memory });
    let answer = client
        .call(Method::POST, &path(&args.id, "/resume"), Some(&body))
        .await;
    show(&args.remote, &answer.context("wake the sandbox")?)
}

async fn fork(args: &Fork) -> Result<()> {
    let client = Client::new(&args.remote)?;
    let body = json!({ "count": args.count, "timeout": args.timeout });
    let answer = client
        .call(Method::POST, &path(&args.id, "/fork"), Some(&body))
        .await;
    let answer = answer.context("fork the sandbox")?;
    let outcomes = answer.as_array().cloned().unwrap_or_default();
    if args.remote.json {
        output::json(&answer)?;
    }
    let mut failed = 0;
    for outcome in &outcomes {
        match (outcome.get("sandbox"), outcome.get("error")) {
            (Some(sandbox), _) if !args.remote.json => output::line(&member(sandbox, "sandboxID"))?,
            (_, Some(error)) => {
                failed += 1;
                eprintln!("catnap: fork: {}", member(error, "message"));
            }
            _ => {}
        }
    }
    anyhow::ensure!(failed == 0, "{failed} of {} forks failed", outcomes.len());
    Ok(())
}

async fn kill(args: &Many) -> Result<()> {
    let client = Client::new(&args.remote)?;
    let mut outcome = Ok(());
    for id in &args.ids {
        let killed = client.call(Method::DELETE, &path(id, ""), None).await;
        if let Err(error) = killed.with_context(|| format!("kill {id}")) {
            // The others are killed all the same; the last failure decides the exit code.
            if let Err(earlier) = std::mem::replace(&mut outcome, Err(error)) {
                eprintln!("catnap: {earlier:#}");
            }
        }
    }
    outcome
}

async fn logs(args: &Logs) -> Result<()> {
    let client = Client::new(&args.remote)?;
    let path = path(&args.id, &format!("/logs?limit={}", args.limit));
    let answer = client
        .call(Method::GET, &path, None)
        .await
        .context("read the console")?;
    if args.remote.json {
        return Ok(output::json(&answer)?);
    }
    for entry in answer
        .get("logs")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        output::line(&member(entry, "line"))?;
    }
    Ok(())
}

async fn metrics(args: &One) -> Result<()> {
    let client = Client::new(&args.remote)?;
    let answer = client
        .call(Method::GET, &path(&args.id, "/metrics"), None)
        .await
        .context("ask what the sandbox uses")?;
    if args.remote.json {
        return Ok(output::json(&answer)?);
    }
    let mib = |sample: &Value, name: &str| {
        let bytes = sample.get(name).and_then(Value::as_u64);
        bytes.map_or(String::new(), |bytes| (bytes >> 20).to_string())
    };
    let rows: Vec<Vec<String>> = answer
        .as_array()
        .into_iter()
        .flatten()
        .map(|sample| {
            let plain = ["timestamp", "cpuUsedPct"].map(|name| member(sample, name));
            let sizes = ["memUsed", "memTotal", "diskUsed", "diskTotal"];
            plain
                .into_iter()
                .chain(sizes.map(|name| mib(sample, name)))
                .collect()
        })
        .collect();
    Ok(output::table(
        &["TIME", "CPU %", "MEMORY MB", "OF", "DISK MB", "OF"],
        &rows,
    )?)
}

async fn templates(remote: &Remote) -> Result<()> {
    let answer = Client::new(remote)?
        .call(Method::GET, "/templates", None)
        .await
        .context("list templates")?;
    if remote.json {
        return Ok(output::json(&answer)?);
    }
    let names = [
        "templateID",
        "buildStatus",
        "cpuCount",
        "memoryMB",
        "diskSizeMB",
        "updatedAt",
    ];
    let rows: Vec<Vec<String>> = answer
        .as_array()
        .into_iter()
        .flatten()
        .map(|template| names.map(|name| member(template, name)).to_vec())
        .collect();
    Ok(output::table(
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

async fn build(args: &Build) -> Result<()> {
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
    let answer = Client::new(&args.remote)?
        .call(Method::POST, &path, None)
        .await;
    let answer = answer.with_context(|| format!("build template {}", args.name))?;
    if args.remote.json {
        output::json(&answer)?;
    } else {
        output::line(&member(&answer, "templateID"))?;
    }
    Ok(())
}
