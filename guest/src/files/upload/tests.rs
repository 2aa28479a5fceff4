//! Uploads, without the HTTP around them.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use futures::stream;
use nix::unistd::{Gid, Uid};
use proptest::prelude::*;

use super::*;
use crate::{sys::Credentials, user::User};

fn myself() -> User {
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
        user: myself(),
        path: None,
        workdir: dir.to_path_buf(),
    }
}

async fn store_at(path: &Path, chunks: &[&[u8]]) -> Result<Written, Failure> {
    let disk = Disk::new(None);
    store(&disk, path, &myself(), &Notes::new(), parts(chunks)).await
}

async fn receive(target: &Target, form: Multipart<'_>) -> Result<Vec<Written>, Failure> {
    let disk = Disk::new(None);
    receive_form(&disk, target, &Notes::new(), form, &AtomicUsize::new(0)).await
}

fn parts(
    chunks: &[&[u8]],
) -> impl Stream<Item = Result<Bytes, io::Error>> + Unpin + Send + 'static {
    let chunks: Vec<_> = chunks
        .iter()
        .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
        .collect();
    stream::iter(chunks)
}

#[tokio::test]
async fn parents_are_made_and_a_file_is_replaced_where_it_is() {
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
async fn what_is_no_file_is_not_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    for path in [
        dir.path().to_path_buf(),
        fifo,
        dir.path().join("file/below"),
    ] {
        let failure = store_at(&path, &[b"x"]).await.unwrap_err();
        assert_eq!(
            failure.0,
            StatusCode::BAD_REQUEST,
            "{path:?}: {}",
            failure.1
        );
    }
}

fn form_of(body: &str) -> Multipart<'static> {
    let body = body.replace('\n', "\r\n").into_bytes();
    // One byte at a time, so that nothing depends on where chunks end.
    let bytes: Vec<_> = body
        .iter()
        .map(|byte| Ok::<_, io::Error>(Bytes::copy_from_slice(&[*byte])))
        .collect();
    Multipart::new(stream::iter(bytes), "B")
}

#[tokio::test]
async fn a_form_holds_files_with_their_directories_and_other_fields() {
    let dir = tempfile::tempdir().unwrap();
    let body = "--B\nContent-Disposition: form-data; name=\"other\"\n\nignored\n\
                --B\nContent-Disposition: form-data; name=\"file\"; filename=\"d/one\"\n\n1\n\
                --B\nContent-Disposition: form-data; name=\"file\"; filename=\"two\"\n\n22\n--B--\n";
    let written = receive(&target(dir.path()), form_of(body)).await.unwrap();
    assert_eq!(written.len(), 2);
    assert_eq!(fs::read(dir.path().join("d/one")).unwrap(), b"1");
    assert_eq!(fs::read(dir.path().join("two")).unwrap(), b"22");
    let told = serde_json::to_value(&written[0]).unwrap();
    let path = dir.path().join("d/one");
    assert_eq!(
        told,
        serde_json::json!({"path": path.to_str().unwrap(), "name": "one", "type": "file"})
    );
}

#[tokio::test]
async fn a_path_twice_or_nowhere_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let part =
        |name: &str| format!("--B\nContent-Disposition: form-data; name=\"file\"{name}\n\nx\n");
    let twice = format!(
        "{0}{1}--B--\n",
        part("; filename=\"a\""),
        part("; filename=\"./a\"")
    );
    let failure = receive(&target(dir.path()), form_of(&twice))
        .await
        .unwrap_err();
    assert_eq!(failure.0, StatusCode::BAD_REQUEST);
    let nowhere = format!("{}--B--\n", part(""));
    receive(&target(dir.path()), form_of(&nowhere))
        .await
        .unwrap_err();
    let named = Target {
        path: Some(dir.path().join("named")),
        ..target(dir.path())
    };
    receive(&named, form_of(&nowhere)).await.unwrap();
    assert_eq!(fs::read(dir.path().join("named")).unwrap(), b"x");
}

#[tokio::test]
async fn a_form_cut_short_is_the_callers_fault() {
    let dir = tempfile::tempdir().unwrap();
    let cut = "--B\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\n\nhal";
    let failure = receive(&target(dir.path()), form_of(cut))
        .await
        .unwrap_err();
    assert_eq!(failure.0, StatusCode::BAD_REQUEST);
}

proptest! {
    #[test]
    fn any_part_name_is_a_clean_path_or_is_refused(name in any::<Option<String>>()) {
        if let Ok(path) = part_path(&target(Path::new("/work")), name.as_deref()) {
            prop_assert!(path.is_absolute());
            prop_assert!(!path.components().any(|part| part == std::path::Component::ParentDir));
        }
    }

    #[test]
    fn any_form_is_read_or_refused(body: Vec<u8>, kind in "[ -~]{0,40}") {
        let _boundary = multer::parse_boundary(&kind);
        let dir = tempfile::tempdir().unwrap();
        let whole = [b"--B\r\n".as_slice(), &body].concat();
        let content = stream::iter([Ok::<_, io::Error>(Bytes::from(whole))]);
        let target = target(dir.path());
        let reading = receive(&target, Multipart::new(content, "B"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _read = runtime.block_on(reading);
    }
}
