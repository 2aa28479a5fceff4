//! Range and conditional requests.

use crate::rig::Rig;

#[tokio::test]
async fn range_request_returns_only_the_range() {
    Rig::run(async |rig| {
        for size in [1000u32, 300_000] {
            let content: Vec<u8> = (0..size)
                .map(|index| (index % 251).to_le_bytes()[0])
                .collect();
            std::fs::write(rig.path("home/r"), &content).unwrap();
            let len = content.len();
            for (range, from, to) in [
                ("bytes=0-0", 0, 1),
                ("bytes=10-99", 10, 100),
                ("bytes=900-", 900, len),
                ("bytes=-5", len - 5, len),
            ] {
                let response = rig
                    .get_with(
                        "/files?path=r",
                        &[("range", range), ("accept-encoding", "gzip")],
                    )
                    .await;
                assert_eq!(response.status, 206, "{range} of {size}");
                assert!(response.body == content[from..to], "{range} of {size}");
                assert_eq!(
                    response.header("content-range"),
                    format!("bytes {from}-{}/{len}", to - 1)
                );
                assert_eq!(response.header("content-length"), (to - from).to_string());
                assert!(response.headers.get("content-encoding").is_none());
            }
            let beyond = rig
                .get_with("/files?path=r", &[("range", "bytes=400000-")])
                .await;
            assert_eq!(
                (beyond.status, beyond.header("content-range")),
                (416, format!("bytes */{len}").as_str())
            );
            let several = rig
                .get_with("/files?path=r", &[("range", "bytes=0-1,5-6")])
                .await;
            assert_eq!((several.status, several.body.len()), (200, len));
            let head = rig.call("HEAD", "/files?path=r", &[], "").await;
            assert_eq!(
                (head.status, head.header("content-length"), head.body.len()),
                (200, len.to_string().as_str(), 0)
            );
        }
    })
    .await;
}

#[tokio::test]
async fn unmodified_file_is_304() {
    Rig::run(async |rig| {
        std::fs::write(rig.path("home/c"), "content").unwrap();
        let first = rig.get("/files?path=c").await;
        assert_eq!(first.header("content-type"), "text/plain; charset=utf-8");
        let modified = first.header("last-modified");
        let again = rig
            .get_with("/files?path=c", &[("if-modified-since", modified)])
            .await;
        assert_eq!((again.status, again.body.len()), (304, 0));
        let old = "Sun, 06 Nov 1994 08:49:37 GMT";
        let newer = rig
            .get_with("/files?path=c", &[("if-modified-since", old)])
            .await;
        assert_eq!(
            (newer.status, newer.body.as_slice()),
            (200, &b"content"[..])
        );
        let failed = rig
            .get_with("/files?path=c", &[("if-unmodified-since", old)])
            .await;
        assert_eq!(failed.status, 412);
        let range = rig
            .get_with(
                "/files?path=c",
                &[("range", "bytes=0-2"), ("if-range", modified)],
            )
            .await;
        assert_eq!((range.status, range.body.as_slice()), (206, &b"con"[..]));
    })
    .await;
}

#[tokio::test]
async fn virtual_file_is_read_to_its_end() {
    Rig::run(async |rig| {
        // Reports a size of 0, and is longer than a chunk.
        let long = rig.get("/files?path=/proc/kallsyms").await;
        assert!(
            long.status == 200 && long.body.len() > 64 * 1024,
            "{}",
            long.body.len()
        );
        let page = rig
            .get("/files?path=/sys/kernel/mm/transparent_hugepage/enabled")
            .await;
        assert_eq!(page.header("content-length"), page.body.len().to_string());
        assert!(page.status != 200 || page.body.len() < 4096);
    })
    .await;
}
