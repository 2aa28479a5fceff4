//! Being told of changes.

use std::fs;

use serde_json::Value;

use crate::rig::{Rig, text};

const WATCH: &str = "/filesystem.Filesystem/WatchDir";

async fn watcher(rig: &Rig, body: &str) -> String {
    let answer = rig.filesystem("CreateWatcher", body).await;
    assert_eq!(answer.status, 200, "{}", text(&answer.body));
    answer.json()["watcherId"].as_str().unwrap().to_owned()
}

/// What happened since the last time, as `name TYPE`.
async fn happened(rig: &Rig, id: &str) -> Vec<String> {
    let body = format!(r#"{{"watcherId":"{id}"}}"#);
    let answer = rig.filesystem("GetWatcherEvents", &body).await.json();
    let events = answer["events"].as_array().cloned().unwrap_or_default();
    events.iter().map(short).collect()
}

fn short(event: &Value) -> String {
    let kind = event["type"].as_str().unwrap();
    let kind = kind.strip_prefix("EVENT_TYPE_").unwrap();
    format!("{} {kind}", event["name"].as_str().unwrap())
}

#[tokio::test]
async fn a_new_file_makes_three_events() {
    Rig::run(async |rig| {
        let id = watcher(&rig, r#"{"path":""}"#).await;
        assert_eq!(happened(&rig, &id).await, [""; 0]);
        rig.post("/files?path=new.txt", "application/octet-stream", &[], "text")
            .await;
        assert_eq!(
            happened(&rig, &id).await,
            ["new.txt CREATE", "new.txt CHMOD", "new.txt WRITE"]
        );
        let form = "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"b\"\r\n\r\nhi\r\n--B--\r\n";
        rig.post("/files", "multipart/form-data; boundary=B", &[], form).await;
        assert_eq!(happened(&rig, &id).await, ["b CREATE", "b CHMOD", "b WRITE"]);
        rig.filesystem("Move", r#"{"source":"b","destination":"c"}"#).await;
        rig.filesystem("Remove", r#"{"path":"c"}"#).await;
        assert_eq!(happened(&rig, &id).await, ["b RENAME", "c CREATE", "c REMOVE"]);
        // Below it is not watched.
        fs::create_dir(rig.path("home/d")).unwrap();
        fs::write(rig.path("home/d/x"), "").unwrap();
        assert_eq!(happened(&rig, &id).await, ["d CREATE"]);

        let body = format!(r#"{{"watcherId":"{id}"}}"#);
        assert_eq!(rig.filesystem("RemoveWatcher", &body).await.status, 200);
        for procedure in ["GetWatcherEvents", "RemoveWatcher"] {
            let gone = rig.filesystem(procedure, &body).await.json();
            assert_eq!(gone["code"], "not_found");
            assert_eq!(gone["message"], format!("watcher with id {id} not found"));
        }
    })
    .await;
}

#[tokio::test]
async fn a_tree_is_watched_as_it_grows() {
    Rig::run(async |rig| {
        fs::create_dir_all(rig.path("home/old/er")).unwrap();
        let id = watcher(&rig, r#"{"path":"~","recursive":true}"#).await;
        fs::write(rig.path("home/old/er/f"), "").unwrap();
        assert_eq!(happened(&rig, &id).await, ["old/er/f CREATE"]);
        // All of it before anybody looks: each is told once, whether the kernel told it or it was found.
        fs::create_dir_all(rig.path("home/new/er")).unwrap();
        fs::write(rig.path("home/new/er/f"), "").unwrap();
        assert_eq!(
            happened(&rig, &id).await,
            ["new CREATE", "new/er CREATE", "new/er/f CREATE"]
        );
        fs::write(rig.path("home/new/er/g"), "x").unwrap();
        assert_eq!(
            happened(&rig, &id).await,
            ["new/er/g CREATE", "new/er/g WRITE"]
        );
        // What moves within the tree is told by its new name, and what leaves it no more.
        fs::rename(rig.path("home/new"), rig.path("home/moved")).unwrap();
        assert_eq!(happened(&rig, &id).await, ["new RENAME", "moved CREATE"]);
        fs::write(rig.path("home/moved/er/h"), "").unwrap();
        assert_eq!(happened(&rig, &id).await, ["moved/er/h CREATE"]);
        fs::rename(rig.path("home/moved"), rig.path("etc/away")).unwrap();
        assert_eq!(happened(&rig, &id).await, ["moved RENAME"]);
        fs::write(rig.path("etc/away/er/i"), "").unwrap();
        assert_eq!(happened(&rig, &id).await, [""; 0]);
        fs::remove_dir_all(rig.path("home/old")).unwrap();
        assert_eq!(
            happened(&rig, &id).await,
            ["old/er/f REMOVE", "old/er REMOVE", "old REMOVE"]
        );
    })
    .await;
}

#[tokio::test]
async fn a_stream_tells_as_it_happens_and_with_entries() {
    Rig::run(async |rig| {
        let headers = [("keepalive-ping-interval", "1")];
        let mut following = rig
            .follow(WATCH, &headers, r#"{"path":"~","includeEntry":true}"#)
            .await;
        assert_eq!(
            following.next_event().await,
            serde_json::json!({"start": {}})
        );
        // Nothing happens for a second.
        assert_eq!(
            following.next_event().await,
            serde_json::json!({"keepalive": {}})
        );
        fs::write(rig.path("home/x"), "abc").unwrap();
        let event = following.next_event().await["filesystem"].clone();
        assert_eq!(short(&event), "x CREATE");
        assert_eq!(event["entry"]["path"], rig.path("home/x"));
        let event = following.next_event().await["filesystem"].clone();
        assert_eq!(
            (short(&event).as_str(), event["entry"]["size"].as_str()),
            ("x WRITE", Some("3"))
        );
        fs::remove_file(rig.path("home/x")).unwrap();
        let event = following.next_event().await["filesystem"].clone();
        assert_eq!(short(&event), "x REMOVE");
        assert!(event["entry"].is_null());
    })
    .await;
}

#[tokio::test]
async fn a_stream_ends_at_its_deadline() {
    Rig::run(async |rig| {
        let headers = [("connect-timeout-ms", "150")];
        let mut following = rig.follow(WATCH, &headers, r#"{"path":"~"}"#).await;
        following.next_event().await;
        let end = following.next_event().await;
        assert_eq!(end["error"]["code"], "deadline_exceeded");
    })
    .await;
}

#[tokio::test]
async fn only_directories_are_watched() {
    Rig::run(async |rig| {
        fs::write(rig.path("home/file"), "").unwrap();
        for (path, code) in [("none", "not_found"), ("file", "invalid_argument")] {
            let body = format!(r#"{{"path":"{path}"}}"#);
            assert_eq!(
                rig.filesystem("CreateWatcher", &body).await.json()["code"],
                code
            );
            let mut following = rig.follow(WATCH, &[], &body).await;
            assert_eq!(following.next_event().await["error"]["code"], code);
        }
    })
    .await;
}

#[tokio::test]
async fn what_nobody_asks_for_is_kept_within_bounds_and_a_loss_is_told() {
    Rig::run(async |rig| {
        let id = watcher(&rig, r#"{"path":"~"}"#).await;
        for round in 0..3 {
            for name in 0..6_000 {
                fs::write(rig.path(&format!("home/{round}-{name}")), "").unwrap();
            }
            // The agent looks while nobody asks it.
            assert_eq!(rig.get("/health").await.status, 204);
        }
        let kept = happened(&rig, &id).await.len();
        assert!((6_000..=16_384).contains(&kept), "{kept}");
        let body = format!(r#"{{"watcherId":"{id}"}}"#);
        let lost = rig.filesystem("GetWatcherEvents", &body).await;
        assert_eq!(
            lost.json()["code"],
            "resource_exhausted",
            "{}",
            text(&lost.body)
        );
        let ids: Vec<Value> = futures::future::join_all(
            (0..110).map(|_| rig.filesystem("CreateWatcher", r#"{"path":"/"}"#)),
        )
        .await
        .iter()
        .map(crate::rig::Answer::json)
        .collect();
        assert_eq!(ids.last().unwrap()["code"], "resource_exhausted");
    })
    .await;
}
