//! Watching directories.

use std::fs;

use serde_json::Value;

use crate::rig::{Rig, text};

const WATCH_DIR: &str = "/filesystem.Filesystem/WatchDir";

async fn create_watcher(rig: &Rig, body: &str) -> String {
    let response = rig.filesystem("CreateWatcher", body).await;
    assert_eq!(response.status, 200, "{}", text(&response.body));
    response.json()["watcherId"].as_str().unwrap().to_owned()
}

/// Polls a watcher for changes, as `name TYPE`.
async fn poll(rig: &Rig, id: &str) -> Vec<String> {
    let body = format!(r#"{{"watcherId":"{id}"}}"#);
    let response = rig.filesystem("GetWatcherEvents", &body).await.json();
    let events = response["events"].as_array().cloned().unwrap_or_default();
    events.iter().map(summary).collect()
}

fn summary(event: &Value) -> String {
    let kind = event["type"].as_str().unwrap();
    let kind = kind.strip_prefix("EVENT_TYPE_").unwrap();
    format!("{} {kind}", event["name"].as_str().unwrap())
}

#[tokio::test]
async fn upload_is_create_chmod_and_write() {
    Rig::run(async |rig| {
        let id = create_watcher(&rig, r#"{"path":""}"#).await;
        assert_eq!(poll(&rig, &id).await, [""; 0]);
        rig.post("/files?path=new.txt", "application/octet-stream", &[], "text")
            .await;
        assert_eq!(
            poll(&rig, &id).await,
            ["new.txt CREATE", "new.txt CHMOD", "new.txt WRITE"]
        );
        let form = "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"b\"\r\n\r\nhi\r\n--B--\r\n";
        rig.post("/files", "multipart/form-data; boundary=B", &[], form).await;
        assert_eq!(poll(&rig, &id).await, ["b CREATE", "b CHMOD", "b WRITE"]);
        rig.filesystem("Move", r#"{"source":"b","destination":"c"}"#).await;
        rig.filesystem("Remove", r#"{"path":"c"}"#).await;
        assert_eq!(poll(&rig, &id).await, ["b RENAME", "c CREATE", "c REMOVE"]);
        // Subdirectories are not watched.
        fs::create_dir(rig.path("home/d")).unwrap();
        fs::write(rig.path("home/d/x"), "").unwrap();
        assert_eq!(poll(&rig, &id).await, ["d CREATE"]);

        let body = format!(r#"{{"watcherId":"{id}"}}"#);
        assert_eq!(rig.filesystem("RemoveWatcher", &body).await.status, 200);
        for procedure in ["GetWatcherEvents", "RemoveWatcher"] {
            let removed = rig.filesystem(procedure, &body).await.json();
            assert_eq!(removed["code"], "not_found");
            assert_eq!(removed["message"], format!("watcher with id {id} not found"));
        }
    })
    .await;
}

#[tokio::test]
async fn recursive_watch_follows_new_and_moved_directories() {
    Rig::run(async |rig| {
        fs::create_dir_all(rig.path("home/old/er")).unwrap();
        let id = create_watcher(&rig, r#"{"path":"~","recursive":true}"#).await;
        fs::write(rig.path("home/old/er/f"), "").unwrap();
        assert_eq!(poll(&rig, &id).await, ["old/er/f CREATE"]);
        // Created before the next poll: each entry is reported once, whether by inotify or by a scan.
        fs::create_dir_all(rig.path("home/new/er")).unwrap();
        fs::write(rig.path("home/new/er/f"), "").unwrap();
        assert_eq!(
            poll(&rig, &id).await,
            ["new CREATE", "new/er CREATE", "new/er/f CREATE"]
        );
        fs::write(rig.path("home/new/er/g"), "x").unwrap();
        assert_eq!(poll(&rig, &id).await, ["new/er/g CREATE", "new/er/g WRITE"]);
        // Entries moved within the tree are reported with their new path, entries moved out of it no more.
        fs::rename(rig.path("home/new"), rig.path("home/moved")).unwrap();
        assert_eq!(poll(&rig, &id).await, ["new RENAME", "moved CREATE"]);
        fs::write(rig.path("home/moved/er/h"), "").unwrap();
        assert_eq!(poll(&rig, &id).await, ["moved/er/h CREATE"]);
        fs::rename(rig.path("home/moved"), rig.path("etc/away")).unwrap();
        assert_eq!(poll(&rig, &id).await, ["moved RENAME"]);
        fs::write(rig.path("etc/away/er/i"), "").unwrap();
        assert_eq!(poll(&rig, &id).await, [""; 0]);
        fs::remove_dir_all(rig.path("home/old")).unwrap();
        assert_eq!(
            poll(&rig, &id).await,
            ["old/er/f REMOVE", "old/er REMOVE", "old REMOVE"]
        );
    })
    .await;
}

#[tokio::test]
async fn watch_stream_reports_changes_with_entries() {
    Rig::run(async |rig| {
        let headers = [("keepalive-ping-interval", "1")];
        let mut stream = rig
            .follow(WATCH_DIR, &headers, r#"{"path":"~","includeEntry":true}"#)
            .await;
        assert_eq!(stream.next_event().await, serde_json::json!({"start": {}}));
        // The keepalive interval passes without a change.
        assert_eq!(
            stream.next_event().await,
            serde_json::json!({"keepalive": {}})
        );
        fs::write(rig.path("home/x"), "abc").unwrap();
        let event = stream.next_event().await["filesystem"].clone();
        assert_eq!(summary(&event), "x CREATE");
        assert_eq!(event["entry"]["path"], rig.path("home/x"));
        let event = stream.next_event().await["filesystem"].clone();
        assert_eq!(
            (summary(&event).as_str(), event["entry"]["size"].as_str()),
            ("x WRITE", Some("3"))
        );
        fs::remove_file(rig.path("home/x")).unwrap();
        let event = stream.next_event().await["filesystem"].clone();
        assert_eq!(summary(&event), "x REMOVE");
        assert!(event["entry"].is_null());
    })
    .await;
}

#[tokio::test]
async fn watch_stream_ends_at_its_deadline() {
    Rig::run(async |rig| {
        let headers = [("connect-timeout-ms", "150")];
        let mut stream = rig.follow(WATCH_DIR, &headers, r#"{"path":"~"}"#).await;
        stream.next_event().await;
        let end = stream.next_event().await;
        assert_eq!(end["error"]["code"], "deadline_exceeded");
    })
    .await;
}

#[tokio::test]
async fn watch_of_file_or_missing_path_is_refused() {
    Rig::run(async |rig| {
        fs::write(rig.path("home/file"), "").unwrap();
        for (path, code) in [("none", "not_found"), ("file", "invalid_argument")] {
            let body = format!(r#"{{"path":"{path}"}}"#);
            assert_eq!(
                rig.filesystem("CreateWatcher", &body).await.json()["code"],
                code
            );
            let mut stream = rig.follow(WATCH_DIR, &[], &body).await;
            assert_eq!(stream.next_event().await["error"]["code"], code);
        }
    })
    .await;
}

#[tokio::test]
async fn unpolled_watcher_is_bounded_and_reports_overflow() {
    Rig::run(async |rig| {
        let id = create_watcher(&rig, r#"{"path":"~"}"#).await;
        for round in 0..3 {
            for name in 0..6_000 {
                fs::write(rig.path(&format!("home/{round}-{name}")), "").unwrap();
            }
            // Lets the agent read changes between polls.
            assert_eq!(rig.get("/health").await.status, 204);
        }
        let buffered = poll(&rig, &id).await.len();
        assert!((6_000..=16_384).contains(&buffered), "{buffered}");
        let body = format!(r#"{{"watcherId":"{id}"}}"#);
        let overflow = rig.filesystem("GetWatcherEvents", &body).await;
        assert_eq!(
            overflow.json()["code"],
            "resource_exhausted",
            "{}",
            text(&overflow.body)
        );
        let ids: Vec<Value> = futures::future::join_all(
            (0..110).map(|_| rig.filesystem("CreateWatcher", r#"{"path":"/"}"#)),
        )
        .await
        .iter()
        .map(crate::rig::TestResponse::json)
        .collect();
        assert_eq!(ids.last().unwrap()["code"], "resource_exhausted");
    })
    .await;
}
