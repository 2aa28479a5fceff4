//! Uploads without HTTP.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use futures::stream;
use nix::unistd::{Gid, Uid};
use proptest::prelude::*;

use super::*;
use crate::{sys::Credentials, user::User};

fn current_user() -> User {
    let credentials = Credentials {
        uid: Uid::effective(),
        gid: Gid::effective(),
        groups: vec![],
    };
    User {
        name: "me".to_owned(),
        home: PathBuf::from("/"),
        credentials,
    }
}

fn target(dir: &Path) -> Target {
    Target {
        user: current_user(),
        path: None,
        workdir: dir.to_path_buf(),
    }
}

async fn store_at(path: &Path, chunks: &[&[u8]]) -> Result<StoredFile, FilesError> {
    let disk = Disk::new(None);
    let metadata = FileMetadata::new();
    store(&disk, path, &current_user(), &metadata, content(chunks)).await
}

async fn receive(target: &Target, form: Multipart<'_>) -> Result<Vec<StoredFile>, FilesError> {
    let disk = Disk::new(None);
    let metadata = FileMetadata::new();
    receive_form(&disk, target, &metadata, form, &AtomicUsize::new(0)).await
}

fn content(
    chunks: &[&[u8]],
) -> impl Stream<Item = Result<Bytes, io::Error>> + Unpin + Send + 'static {
    let chunks: Vec<_> = chunks
        .iter()
        .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
        .collect();
    stream::iter(chunks)
}

#[tokio::test]
async fn upload_creates_parents_and_keeps_the_inode() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/c.txt");
    store_at(&path, &[b"one ", b"two"]).await.unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"one two");
    let inode = fs::metadata(&path).unwrap().ino();
    store_at(&path, &[]).await.unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"");
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    assert_eq!(
        fs::metadata(dir.path().join("a")).unwrap().mode() & 0o777,
        0o755
    );
}

#[tokio::test]
async fn upload_to_non_regular_file_is_400() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    for path in [
        dir.path().to_path_buf(),
        fifo,
        dir.path().join("file/below"),
    ] {
        let error = store_at(&path, &[b"x"]).await.unwrap_err();
        assert_eq!(
            error.status,
            StatusCode::BAD_REQUEST,
            "{path:?}: {}",
            error.message
        );
    }
}

fn form_of(body: &str) -> Multipart<'static> {
    let body = body.replace('\n', "\r\n").into_bytes();
    // One byte at a time, so that parsing cannot depend on chunk boundaries.
    let bytes: Vec<_> = body
        .iter()
        .map(|byte| Ok::<_, io::Error>(Bytes::copy_from_slice(&[*byte])))
        .collect();
    Multipart::new(stream::iter(bytes), "B")
}

#[tokio::test]
async fn form_stores_files_and_skips_other_parts() {
    let dir = tempfile::tempdir().unwrap();
    let body = "--B\nContent-Disposition: form-data; name=\"other\"\n\nignored\n\
                --B\nContent-Disposition: form-data; name=\"file\"; filename=\"d/one\"\n\n1\n\
                --B\nContent-Disposition: form-data; name=\"file\"; filename=\"two\"\n\n22\n--B--\n";
    let files = receive(&target(dir.path()), form_of(body)).await.unwrap();
    assert_eq!(files.len(), 2);
    assert_eq!(fs::read(dir.path().join("d/one")).unwrap(), b"1");
    assert_eq!(fs::read(dir.path().join("two")).unwrap(), b"22");
    let response = serde_json::to_value(&files[0]).unwrap();
    let path = dir.path().join("d/one");
    assert_eq!(
        response,
        serde_json::json!({"path": path.to_str().unwrap(), "name": "one", "type": "file"})
    );
}

#[tokio::test]
async fn duplicate_and_missing_paths_are_400() {
    let dir = tempfile::tempdir().unwrap();
    let part =
        |name: &str| format!("--B\nContent-Disposition: form-data; name=\"file\"{name}\n\nx\n");
    let duplicate = format!(
        "{0}{1}--B--\n",
        part("; filename=\"a\""),
        part("; filename=\"./a\"")
    );
    let error = receive(&target(dir.path()), form_of(&duplicate))
        .await
        .unwrap_err();
    assert_eq!(error.status, StatusCode::BAD_REQUEST);
    let missing = format!("{}--B--\n", part(""));
    receive(&target(dir.path()), form_of(&missing))
        .await
        .unwrap_err();
    let named = Target {
        path: Some(dir.path().join("named")),
        ..target(dir.path())
    };
    receive(&named, form_of(&missing)).await.unwrap();
    assert_eq!(fs::read(dir.path().join("named")).unwrap(), b"x");
}

#[tokio::test]
async fn truncated_form_is_400() {
    let dir = tempfile::tempdir().unwrap();
    let truncated = "--B\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\n\nhal";
    let error = receive(&target(dir.path()), form_of(truncated))
        .await
        .unwrap_err();
    assert_eq!(error.status, StatusCode::BAD_REQUEST);
}

proptest! {
    #[test]
    fn arbitrary_part_name_resolves_to_a_normalized_path(name in any::<Option<String>>()) {
        if let Ok(path) = part_path(&target(Path::new("/work")), name.as_deref()) {
            prop_assert!(path.is_absolute());
            prop_assert!(!path.components().any(|part| part == std::path::Component::ParentDir));
        }
    }

    #[test]
    fn arbitrary_forms_do_not_panic(body: Vec<u8>, content_type in "[ -~]{0,40}") {
        let _boundary = multer::parse_boundary(&content_type);
        let dir = tempfile::tempdir().unwrap();
        let form = [b"--B\r\n".as_slice(), &body].concat();
        let content = stream::iter([Ok::<_, io::Error>(Bytes::from(form))]);
        let target = target(dir.path());
        let received = receive(&target, Multipart::new(content, "B"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _received = runtime.block_on(received);
    }
}
