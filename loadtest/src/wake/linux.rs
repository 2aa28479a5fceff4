//! Requests through a gateway to a paused Linux sandbox, to the first byte of the response.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::Context;
use serde_json::json;

use crate::{gateway::Gateway, histogram::Histogram, report::Report};

/// Stages of a wake in their order, with their names in `Server-Timing`.
const STAGES: [&str; 8] = [
    "queue", "blank", "open", "load", "prefetch", "awaken", "admit", "dial",
];

pub(super) async fn measure(
    guest: Option<&Path>,
    count: u32,
    report: &mut Report,
) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    for (memory, working_sets, name) in [
        ("cow", WorkingSets::Keep, "Cow"),
        ("paged", WorkingSets::Remove, "Paged, no working set"),
        (
            "paged",
            WorkingSets::Keep,
            "Paged, working set of the previous wake",
        ),
    ] {
        let gateway =
            Gateway::start(&dir.path().join("data"), guest, &["--memory", memory]).await?;
        let wakes = wakes(&gateway, count, working_sets)
            .await
            .with_context(|| format!("failed to measure wakes with memory {memory}"))?;
        gateway.stop().await?;
        report_wakes(
            report,
            &format!("Linux guest: request to first byte, {name}"),
            &wakes,
        )?;
    }
    Ok(())
}

/// Treatment of recorded working sets before each wake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WorkingSets {
    /// Prefetch them.
    Keep,
    /// Remove them, so that every page faults.
    Remove,
}

/// Duration of a request, and of each stage that its response reports.
type Wake = (Duration, BTreeMap<String, Duration>);

async fn wakes(
    gateway: &Gateway,
    count: u32,
    working_sets: WorkingSets,
) -> anyhow::Result<Vec<Wake>> {
    let spec = json!({ "templateID": "base", "timeout": 3600, "secure": false, "autoPause": true, "autoResume": { "enabled": true } });
    let sandbox = gateway.api("POST", "/sandboxes", Some(&spec)).await?;
    let id = sandbox["sandboxID"]
        .as_str()
        .context("the new sandbox has no id")?
        .to_owned();
    let mut wakes = Vec::new();
    // The first wake restores the first snapshot of the sandbox, which shares its pages with the template; it is
    // discarded.
    for _ in 0..=count {
        gateway
            .api("POST", &format!("/sandboxes/{id}/pause"), None)
            .await?;
        if working_sets == WorkingSets::Remove {
            gateway.remove_working_sets()?;
        }
        wakes.push(gateway.client().request(&id).await?);
    }
    gateway
        .api("DELETE", &format!("/sandboxes/{id}"), None)
        .await?;
    wakes.remove(0);
    Ok(wakes)
}

fn report_wakes(report: &mut Report, name: &str, wakes: &[Wake]) -> anyhow::Result<()> {
    let mut total = Histogram::new()?;
    wakes.iter().for_each(|(duration, _)| total.add(*duration));
    report.add(name, &total, None);
    for stage in STAGES {
        let mut histogram = Histogram::new()?;
        for (_, stages) in wakes {
            let duration = stages
                .get(&format!("wake-{stage}"))
                .or_else(|| stages.get(stage));
            duration
                .iter()
                .for_each(|duration| histogram.add(**duration));
        }
        if histogram.count() > 0 {
            report.add(format!("    {stage}"), &histogram, None);
        }
    }
    Ok(())
}
