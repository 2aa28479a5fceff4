//! The Linux guest behind the whole gateway: a request at a sleeping sandbox, to the first byte of its answer.

mod gateway;

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::Context;
use serde_json::json;

use self::gateway::Gateway;
use crate::{record::Record, report::Report};

/// The stages of a wake as `Server-Timing` names them, in their order.
const STAGES: [&str; 8] = [
    "queue", "blank", "open", "load", "prefetch", "awaken", "admit", "dial",
];

pub(super) async fn measure(
    guest: Option<&Path>,
    count: u32,
    report: &mut Report,
) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    for (memory, recorded, name) in [
        ("cow", true, "Cow"),
        ("paged", false, "Paged, nothing recorded"),
        ("paged", true, "Paged, working set of the life before"),
    ] {
        let gateway = Gateway::start(dir.path(), guest, memory).await?;
        let wakes = wakes(&gateway, count, recorded)
            .await
            .with_context(|| format!("wake with memory {memory}"))?;
        gateway.stop().await?;
        add(
            report,
            &format!("Linux guest: request to first byte, {name}"),
            &wakes,
        )?;
    }
    Ok(())
}

/// How long each request took, and what its answer says of the stages.
type Wake = (Duration, BTreeMap<String, Duration>);

async fn wakes(gateway: &Gateway, count: u32, recorded: bool) -> anyhow::Result<Vec<Wake>> {
    let spec = json!({ "templateID": "base", "timeout": 3600, "secure": false, "autoPause": true, "autoResume": { "enabled": true } });
    let sandbox = gateway.api("POST", "/sandboxes", Some(&spec)).await?;
    let id = sandbox["sandboxID"]
        .as_str()
        .context("the new sandbox has an id")?
        .to_owned();
    let mut wakes = Vec::new();
    // The first life comes from the template; its end is the first of the sandbox's own snapshots.
    for _ in 0..=count {
        gateway
            .api("POST", &format!("/sandboxes/{id}/pause"), None)
            .await?;
        if !recorded {
            gateway.forget_working_sets()?;
        }
        wakes.push(gateway.request(&id).await?);
    }
    gateway
        .api("DELETE", &format!("/sandboxes/{id}"), None)
        .await?;
    wakes.remove(0);
    Ok(wakes)
}

fn add(report: &mut Report, name: &str, wakes: &[Wake]) -> anyhow::Result<()> {
    let mut total = Record::new()?;
    wakes.iter().for_each(|(took, _)| total.add(*took));
    report.add(name, &total, None);
    for stage in STAGES {
        let mut record = Record::new()?;
        for (_, stages) in wakes {
            let took = stages
                .get(&format!("wake-{stage}"))
                .or_else(|| stages.get(stage));
            took.iter().for_each(|took| record.add(**took));
        }
        if record.count() > 0 {
            report.add(format!("    {stage}"), &record, None);
        }
    }
    Ok(())
}
