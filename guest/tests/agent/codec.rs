//! Calls in protobuf. Messages are encoded and decoded by hand, independently of the agent's codec.

use crate::rig::{Rig, enveloped, raw_messages};

const UNARY: &str = "application/proto";
const STREAM: &str = "application/connect+proto";

/// Encodes a length-delimited field.
fn field(number: u8, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    assert!(content.len() < 128);
    let len = u8::try_from(content.len()).unwrap();
    [&[number << 3 | 2, len], content].concat()
}

/// Encodes a varint field below 128.
fn number(field: u8, value: u8) -> Vec<u8> {
    assert!(value < 128);
    vec![field << 3, value]
}

#[tokio::test]
async fn start_streams_protobuf_events() {
    Rig::run(async |rig| {
        let config = [
            field(1, "/bin/sh"),
            field(2, "-c"),
            field(2, "printf hi; exit 3"),
        ];
        let start = [field(1, config.concat()), number(4, 0)].concat();
        let response = rig
            .post("/process.Process/Start", STREAM, &[], enveloped(start))
            .await;
        assert_eq!(
            (response.status, response.header("content-type")),
            (200, STREAM)
        );
        let (messages, end) = raw_messages(&response.body);
        // {event: {start: {pid}}}
        assert_eq!(messages[0][0..1], [0x0a]);
        assert_eq!(messages[0][2..3], [0x0a]);
        // {event: {data: {stdout: "hi"}}}
        let data = field(1, field(2, field(1, "hi")));
        assert_eq!(messages[1], data);
        // {event: {end: {exit_code: 3 (zigzag), exited: true, status, error}}}
        let end_event = [
            number(1, 6),
            number(2, 1),
            field(3, "exit status 3"),
            field(4, "exit status 3"),
        ];
        assert_eq!(messages[2], field(1, field(3, end_event.concat())));
        assert_eq!((messages.len(), end), (3, &b"{}"[..]));
    })
    .await;
}

#[tokio::test]
async fn stream_input_accepts_protobuf() {
    Rig::run(async |rig| {
        let mut events = rig
            .open_stream("Start", r#"{"process":{"cmd":"cat"},"tag":"t"}"#)
            .await;
        events.next_event().await;
        let (sending, response) =
            rig.start("/process.Process/StreamInput", &[("content-type", STREAM)]);
        let start = field(1, field(1, field(2, "t")));
        let data = field(2, field(2, field(1, "hello")));
        let keepalive = field(3, "");
        for message in [start, keepalive, data] {
            sending.unbounded_send(enveloped(message).into()).unwrap();
        }
        assert_eq!(
            events.next_event().await["event"]["data"]["stdout"],
            "aGVsbG8="
        );
        drop(sending);
        let response = response.await;
        let (messages, end) = raw_messages(&response.body);
        assert_eq!((messages, end), (vec![&b""[..]], &b"{}"[..]));
    })
    .await;
}

#[tokio::test]
async fn stat_returns_protobuf() {
    Rig::run(async |rig| {
        std::fs::write(rig.path("home/a"), "12345").unwrap();
        let response = rig
            .post("/filesystem.Filesystem/Stat", UNARY, &[], field(1, "a"))
            .await;
        assert_eq!(
            (response.status, response.header("content-type")),
            (200, UNARY)
        );
        let path = rig.path("home/a");
        let prefix = [field(1, "a"), number(2, 1), field(3, &path), number(4, 5)].concat();
        let entry = &response.body[response.body.len() - usize::from(response.body[1]).min(120)..];
        assert!(
            response
                .body
                .windows(prefix.len())
                .any(|bytes| bytes == prefix),
            "{entry:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn errors_are_json_and_unreadable_calls_are_refused() {
    Rig::run(async |rig| {
        let missing = rig
            .post("/filesystem.Filesystem/Stat", UNARY, &[], field(1, "none"))
            .await;
        assert_eq!(
            (missing.status, missing.header("content-type")),
            (404, "application/json")
        );
        assert_eq!(missing.json()["code"], "not_found");
        let malformed = rig
            .post("/filesystem.Filesystem/Stat", UNARY, &[], b"\x0a\x7fx")
            .await;
        assert_eq!(malformed.json()["code"], "invalid_argument");
        let gzip = [("content-encoding", "gzip")];
        let compressed = rig
            .post("/filesystem.Filesystem/Stat", UNARY, &gzip, b"\x1f\x8b")
            .await;
        assert_eq!(
            (compressed.status, compressed.json()["code"].as_str()),
            (501, Some("unimplemented"))
        );
        let mut compressed = enveloped("x");
        compressed[0] = 1;
        let response = rig
            .post("/process.Process/Start", STREAM, &[], compressed)
            .await;
        let (_, end) = raw_messages(&response.body);
        assert!(end.starts_with(br#"{"error":{"code":"unimplemented""#));
        let identity = [("content-encoding", "identity")];
        let plain = rig
            .post(
                "/filesystem.Filesystem/Stat",
                UNARY,
                &identity,
                field(1, "/"),
            )
            .await;
        assert_eq!(plain.status, 200);
        let unary = rig.post("/process.Process/Start", UNARY, &[], b"").await;
        assert_eq!(unary.status, 415);
    })
    .await;
}
