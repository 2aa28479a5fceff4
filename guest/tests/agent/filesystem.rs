//! The service `filesystem.Filesystem`.

use std::{fs, os::unix::fs::symlink};

use serde_json::Value;

use crate::rig::{Rig, text};

async fn entry(rig: &Rig, procedure: &str, body: &str) -> Value {
    let response = rig.filesystem(procedure, body).await;
    assert_eq!(response.status, 200, "{}", text(&response.body));
    response.json()["entry"].clone()
}

async fn code(rig: &Rig, procedure: &str, body: &str) -> (u16, String) {
    let response = rig.filesystem(procedure, body).await;
    (
        response.status,
        response.json()["code"]
            .as_str()
            .unwrap_or("none")
            .to_owned(),
    )
}

#[tokio::test]
async fn stat_describes_a_file() {
    Rig::run(async |rig| {
        fs::write(rig.path("home/a.txt"), "12345").unwrap();
        let entry = entry(&rig, "Stat", r#"{"path":"~/a.txt"}"#).await;
        assert_eq!(entry["name"], "a.txt");
        assert_eq!(entry["type"], "FILE_TYPE_FILE");
        assert_eq!(entry["path"], rig.path("home/a.txt"));
        assert_eq!(entry["size"], "5");
        assert_eq!(entry["mode"], 0o644);
        assert_eq!(entry["permissions"], "-rw-r--r--");
        assert_eq!(entry["owner"], "user");
        assert!(
            entry["modifiedTime"].as_str().unwrap().ends_with('Z'),
            "{entry}"
        );
        for absent in ["isSymlink", "symlinkTarget", "metadata"] {
            assert!(entry[absent].is_null(), "{absent}: {entry}");
        }
        assert_eq!(
            code(&rig, "Stat", r#"{"path":"/no/such"}"#).await,
            (404, "not_found".to_owned())
        );
        assert_eq!(
            code(&rig, "Stat", r#"{"path":"a.txt/below"}"#).await,
            (404, "not_found".to_owned())
        );
        let (status, code) = code(&rig, "Stat", "{\"path\":\"a\\u0000b\"}").await;
        assert_eq!((status, code.as_str()), (400, "invalid_argument"));
    })
    .await;
}

#[tokio::test]
async fn stat_describes_a_symlink_by_its_target() {
    Rig::run(async |rig| {
        let home = fs::canonicalize(rig.path("home")).unwrap();
        fs::write(home.join("real"), "x").unwrap();
        symlink("real", home.join("link")).unwrap();
        let link = entry(&rig, "Stat", r#"{"path":"link"}"#).await;
        assert_eq!(link["type"], "FILE_TYPE_FILE");
        assert_eq!(link["permissions"], "Lrwxrwxrwx");
        assert_eq!(link["symlinkTarget"], home.join("real").to_str().unwrap());
        assert!(link["isSymlink"].is_null());
    })
    .await;
}

#[tokio::test]
async fn directories_are_created_moved_and_removed() {
    Rig::run(async |rig| {
        let created = entry(&rig, "MakeDir", r#"{"path":"a/b/c"}"#).await;
        assert_eq!(
            (created["type"].as_str(), created["permissions"].as_str()),
            (Some("FILE_TYPE_DIRECTORY"), Some("drwxr-xr-x"))
        );
        assert_eq!(
            code(&rig, "MakeDir", r#"{"path":"a/b/c"}"#).await,
            (409, "already_exists".to_owned())
        );
        fs::write(rig.path("home/a/file"), "").unwrap();
        assert_eq!(
            code(&rig, "MakeDir", r#"{"path":"a/file"}"#).await.1,
            "invalid_argument"
        );
        assert_eq!(
            code(&rig, "MakeDir", r#"{"path":"a/file/below"}"#).await.1,
            "invalid_argument"
        );

        let moved = entry(&rig, "Move", r#"{"source":"a","destination":"new/place"}"#).await;
        assert_eq!(moved["path"], rig.path("home/new/place"));
        assert!(
            fs::metadata(rig.path("home/new/place/b/c"))
                .unwrap()
                .is_dir()
        );
        let missing = r#"{"source":"a","destination":"b"}"#;
        assert_eq!(
            code(&rig, "Move", missing).await,
            (404, "not_found".to_owned())
        );
        assert!(!fs::exists(rig.path("home/b")).unwrap());

        for _ in 0..2 {
            assert_eq!(
                rig.filesystem("Remove", r#"{"path":"new"}"#).await.json(),
                serde_json::json!({})
            );
        }
        assert!(!fs::exists(rig.path("home/new")).unwrap());
    })
    .await;
}

#[tokio::test]
async fn list_is_sorted_and_limited_to_the_depth() {
    Rig::run(async |rig| {
        fs::create_dir_all(rig.path("home/d/b/deep")).unwrap();
        for file in ["a", "b/x", "b/deep/y", "c"] {
            fs::write(rig.path(&format!("home/d/{file}")), "").unwrap();
        }
        symlink(rig.path("home/d"), rig.path("home/link")).unwrap();
        symlink("nowhere", rig.path("home/d/broken")).unwrap();
        let names = async |path: &str, depth: u32| {
            let body = format!(r#"{{"path":"{path}","depth":{depth}}}"#);
            let list = rig.filesystem("ListDir", &body).await.json();
            let entries = list["entries"].as_array().cloned().unwrap_or_default();
            let below = rig.path(&format!("home/{path}/"));
            let name = |entry: &Value| {
                entry["path"]
                    .as_str()
                    .unwrap()
                    .strip_prefix(&below)
                    .unwrap()
                    .to_owned()
            };
            entries.iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(names("d", 0).await, ["a", "b", "broken", "c"]);
        assert_eq!(names("d", 1).await, ["a", "b", "broken", "c"]);
        assert_eq!(
            names("d", 2).await,
            ["a", "b", "b/deep", "b/x", "broken", "c"]
        );
        // Paths are those of the request, not of the link's target.
        assert_eq!(
            names("link", 3).await,
            ["a", "b", "b/deep", "b/deep/y", "b/x", "broken", "c"]
        );
        assert_eq!(names("d/b/deep", 9).await, ["y"]);
        assert_eq!(
            code(&rig, "ListDir", r#"{"path":"d/a"}"#).await,
            (400, "invalid_argument".to_owned())
        );
        assert_eq!(
            code(&rig, "ListDir", r#"{"path":"none"}"#).await,
            (404, "not_found".to_owned())
        );
    })
    .await;
}

#[tokio::test]
async fn metadata_is_returned_until_the_next_upload() {
    Rig::run(async |rig| {
        let headers = [("x-metadata-Author", "me"), ("X-Metadata-b", "2")];
        let kind = "application/octet-stream";
        let written = rig.post("/files?path=m", kind, &headers, "x").await.json();
        assert_eq!(
            written[0]["metadata"],
            serde_json::json!({"author": "me", "b": "2"})
        );
        let stat = entry(&rig, "Stat", r#"{"path":"m"}"#).await;
        assert_eq!(
            stat["metadata"],
            serde_json::json!({"author": "me", "b": "2"})
        );
        let plain = rig.post("/files?path=m", kind, &[], "x").await.json();
        assert!(plain[0]["metadata"].is_null());
        assert!(entry(&rig, "Stat", r#"{"path":"m"}"#).await["metadata"].is_null());
    })
    .await;
}
