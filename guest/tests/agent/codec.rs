//! Calls in protobuf, written and read by hand, so that the agent's own codec is not what it is held against.

use crate::rig::{Rig, enveloped, raw_messages};

const UNARY: &str = "application/proto";
const STREAM: &str = "application/connect+proto";

/// A field that has a length.
fn field(number: u8, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    assert!(content.len() < 128);
    let len = u8::try_from(content.len()).unwrap();
    [&[number << 3 | 2, len], content].concat()
}

/// A field that is a number below 128.
fn number(field: u8, value: u8) -> Vec<u8> {
    assert!(value < 128);
    vec![field << 3, value]
}

#[tokio::test]
async fn a_process_is_run_in_protobuf() {
    Rig::run(async |rig| {
        let config = [
            field(1, "/bin/sh"),
            field(2, "-c"),
            field(2, "printf hi; exit 3"),
        ];
        let start = [field(1, config.concat()), number(4, 0)].concat();
        let answer = rig
            .post("/process.Process/Start", STREAM, &[], enveloped(start))
            .await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, STREAM)
        );
        let (messages, end) = raw_messages(&answer.body);
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
async fn a_stream_of_input_goes_in_in_protobuf() {
    Rig::run(async |rig| {
        let mut following = rig
            .open_stream("Start", r#"{"process":{"cmd":"cat"},"tag":"t"}"#)
            .await;
        following.next_event().await;
        let (sending, answer) =
            rig.start("/process.Process/StreamInput", &[("content-type", STREAM)]);
        let start = field(1, field(1, field(2, "t")));
        let data = field(2, field(2, field(1, "hello")));
        let keepalive = field(3, "");
        for message in [start, keepalive, data] {
            sending.unbounded_send(enveloped(message).into()).unwrap();
        }
        assert_eq!(
            following.next_event().await["event"]["data"]["stdout"],
            "aGVsbG8="
        );
        drop(sending);
        let answer = answer.await;
        let (messages, end) = raw_messages(&answer.body);
        assert_eq!((messages, end), (vec![&b""[..]], &b"{}"[..]));
    })
    .await;
}

#[tokio::test]
async fn files_are_looked_at_in_protobuf() {
    Rig::run(async |rig| {
        std::fs::write(rig.path("home/a"), "12345").unwrap();
        let answer = rig
            .post("/filesystem.Filesystem/Stat", UNARY, &[], field(1, "a"))
            .await;
        assert_eq!((answer.status, answer.header("content-type")), (200, UNARY));
        let path = rig.path("home/a");
        let begin = [field(1, "a"), number(2, 1), field(3, &path), number(4, 5)].concat();
        let entry = &answer.body[answer.body.len() - usize::from(answer.body[1]).min(120)..];
        assert!(
            answer.body.windows(begin.len()).any(|at| at == begin),
            "{entry:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn an_error_is_told_in_json_and_what_cannot_be_read_is_refused() {
    Rig::run(async |rig| {
        let missing = rig
            .post("/filesystem.Filesystem/Stat", UNARY, &[], field(1, "none"))
            .await;
        assert_eq!(
            (missing.status, missing.header("content-type")),
            (404, "application/json")
        );
        assert_eq!(missing.json()["code"], "not_found");
        let broken = rig
            .post("/filesystem.Filesystem/Stat", UNARY, &[], b"\x0a\x7fx")
            .await;
        assert_eq!(broken.json()["code"], "invalid_argument");
        let gzip = [("content-encoding", "gzip")];
        let packed = rig
            .post("/filesystem.Filesystem/Stat", UNARY, &gzip, b"\x1f\x8b")
            .await;
        assert_eq!(
            (packed.status, packed.json()["code"].as_str()),
            (501, Some("unimplemented"))
        );
        let mut packed = enveloped("x");
        packed[0] = 1;
        let answer = rig
            .post("/process.Process/Start", STREAM, &[], packed)
            .await;
        let (_, end) = raw_messages(&answer.body);
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
        let wrong = rig.post("/process.Process/Start", UNARY, &[], b"").await;
        assert_eq!(wrong.status, 415);
    })
    .await;
}
