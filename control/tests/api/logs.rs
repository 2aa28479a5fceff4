//! Rows of the specification: none; the console as logs.

use serde_json::{Value, json};

use crate::rig::{Rig, missing};

const CONSOLE: &[u8] =
    b"2026-11-22T01:35:11.000000Z one \x1b[1mbold\n2026-11-22T01:35:12.500000Z two\n\
    2026-11-22T01:35:13.000000Z three \xff\xfe\n";

async fn messages(rig: &Rig, path: &str) -> Vec<String> {
    let logs = rig.get(path).await.expect(200);
    let entries = logs
        .get("logEntries")
        .unwrap_or(&logs["logs"])
        .as_array()
        .unwrap();
    let text = |entry: &Value| {
        assert_eq!(
            (&entry["level"], &entry["fields"]),
            (&json!("info"), &json!({}))
        );
        entry["message"].as_str().unwrap().to_owned()
    };
    entries.iter().map(text).collect()
}

#[tokio::test]
async fn both_log_versions_return_console_lines() {
    let rig = Rig::new().await;
    let id = rig.create(json!({ "templateID": "base" })).await;
    rig.fake.set_console(CONSOLE);
    let (v1, v2) = (
        format!("/sandboxes/{id}/logs"),
        format!("/v2/sandboxes/{id}/logs"),
    );
    let all = ["one [1mbold", "two", "three \u{fffd}\u{fffd}"];
    assert_eq!(messages(&rig, &v1).await, all);
    assert_eq!(messages(&rig, &v2).await, all);
    let logs = rig.get(&v1).await.expect(200);
    assert_eq!(
        logs["logs"][1],
        json!({ "timestamp": "2026-11-22T01:35:12.500000Z", "line": "two" })
    );
    assert_eq!(
        logs["logEntries"][1]["timestamp"],
        "2026-11-22T01:35:12.500000Z"
    );
    let second = 1_795_311_312_500_i64;
    for (path, expected) in [
        (format!("{v1}?limit=1"), &all[2..]),
        (format!("{v1}?limit=0"), &all[..0]),
        (format!("{v1}?start={second}"), &all[1..]),
        (format!("{v1}?start={second}&limit=1"), &all[1..2]),
        (format!("{v2}?limit=2"), &all[..2]),
        (format!("{v2}?cursor={second}"), &all[1..]),
        (
            format!("{v2}?cursor={second}&direction=forward&limit=1"),
            &all[1..2],
        ),
        (format!("{v2}?search=w"), &all[1..2]),
        (format!("{v2}?level=info&search=three"), &all[2..]),
        (format!("{v2}?level=warn"), &all[..0]),
    ] {
        assert_eq!(messages(&rig, &path).await, expected, "{path}");
    }
    let backward = messages(&rig, &format!("{v2}?cursor={second}&direction=backward")).await;
    assert_eq!(backward, [all[1], all[0]]);
    for invalid in [
        "limit=x",
        "limit=-1",
        "cursor=x",
        "direction=up",
        "level=loud",
    ] {
        rig.get(&format!("{v2}?{invalid}")).await.error(400);
    }
    rig.get(&format!("{v1}?limit=x")).await.error(400);
    let long = "x".repeat(257);
    rig.get(&format!("{v2}?search={long}")).await.error(400);
    assert_eq!(
        rig.get("/v2/sandboxes/iunknown/logs").await.error(404),
        missing("iunknown")
    );
}

#[tokio::test]
async fn untimed_line_has_the_start_time_of_its_sandbox() {
    let rig = Rig::new().await;
    let id = rig.create(json!({ "templateID": "base" })).await;
    rig.fake.set_console("old\n");
    let started = rig.get(&format!("/sandboxes/{id}")).await.expect(200)["startedAt"].clone();
    let logs = rig.get(&format!("/sandboxes/{id}/logs")).await.expect(200);
    assert_eq!(
        logs["logs"],
        json!([{ "timestamp": started, "line": "old" }])
    );
    rig.fake.set_console("");
    let logs = rig.get(&format!("/sandboxes/{id}/logs")).await.expect(200);
    assert_eq!(logs, json!({ "logs": [], "logEntries": [] }));
}
