//! What the codecs make of clients' messages, and of anything else.

use http::HeaderValue;
use proptest::prelude::*;

use super::*;
use crate::messages::{
    filesystem::{EntryInfo, FileType, ListDirResponse, WatchDirRequest},
    process::{
        ListResponse, ProcessConfig, ProcessSelector, SendInputRequest, SendSignalRequest, Signal,
        StartRequest, StreamInputRequest,
    },
    process_oneof::{Input, InputEvent, Selector},
};

fn format(text: &str) -> Option<Format> {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_str(text).unwrap());
    Format::read(&headers)
}

#[test]
fn the_content_type_tells_codec_and_kind() {
    let read = |text| format(text).map(|format| (format.codec, format.streams));
    assert_eq!(read("application/connect+json"), Some((Codec::Json, true)));
    assert_eq!(
        read("application/connect+proto"),
        Some((Codec::Proto, true))
    );
    assert_eq!(
        read("application/json; charset=utf-8"),
        Some((Codec::Json, false))
    );
    assert_eq!(read("Application/Proto"), Some((Codec::Proto, false)));
    assert_eq!(read("application/grpc"), None);
}

#[test]
fn json_is_taken_as_clients_write_it() {
    let text = br#"{"process":{"cmd":"/bin/bash","args":["-l","-c","ls"],"envs":{"A":"b"}},"stdin":false,"new":1}"#;
    let request: StartRequest = Codec::Json.decode(text).unwrap();
    assert_eq!(request.process.args, ["-l", "-c", "ls"]);
    assert_eq!((request.stdin, request.pty.is_set()), (Some(false), false));

    for signal in [r#""SIGNAL_SIGKILL""#, "9"] {
        let text = format!(r#"{{"process":{{"tag":"x"}},"signal":{signal}}}"#);
        let request: SendSignalRequest = Codec::Json.decode(text.as_bytes()).unwrap();
        assert_eq!(request.signal, Signal::SIGNAL_SIGKILL);
        assert_eq!(
            request.process.selector,
            Some(Selector::Tag("x".to_owned()))
        );
    }
    // Unpadded and URL-safe base64, and numbers as text, are JSON of protobuf as well.
    for bytes in ["-_-_aQ", "+/+/aQ=="] {
        let text = format!(r#"{{"process":{{"pid":"7"}},"input":{{"stdin":"{bytes}"}}}}"#);
        let request: SendInputRequest = Codec::Json.decode(text.as_bytes()).unwrap();
        assert_eq!(request.process.selector, Some(Selector::Pid(7)));
        assert_eq!(
            request.input.input,
            Some(Input::Stdin(Bytes::from_static(b"\xfb\xff\xbfi")))
        );
    }
    let empty: WatchDirRequest = Codec::Json.decode(b"").unwrap();
    assert_eq!(empty, WatchDirRequest::default());
}

#[test]
fn an_entry_is_written_as_clients_read_it() {
    let entry = EntryInfo {
        name: "a".to_owned(),
        r#type: FileType::FILE_TYPE_FILE.into(),
        path: "/a".to_owned(),
        size: 7,
        mode: 0o644,
        modified_time: buffa_types::google::protobuf::Timestamp {
            seconds: 1,
            nanos: 500_000_000,
            ..Default::default()
        }
        .into(),
        ..EntryInfo::default()
    };
    assert_eq!(
        Codec::Json.encode(&entry).unwrap(),
        r#"{"name":"a","type":"FILE_TYPE_FILE","path":"/a","size":"7","mode":420,"modifiedTime":"1970-01-01T00:00:01.500Z"}"#
    );
}

#[test]
fn protobuf_has_the_numbers_of_the_clients() {
    // What a published client writes for {process: {cmd: "a"}, tag: "t", stdin: false}.
    let bytes = b"\x0a\x03\x0a\x01a\x1a\x01t\x20\x00";
    let request: StartRequest = Codec::Proto.decode(bytes).unwrap();
    assert_eq!(
        (
            request.process.cmd.as_str(),
            request.tag.as_deref(),
            request.stdin
        ),
        ("a", Some("t"), Some(false))
    );
    assert_eq!(Codec::Proto.encode(&request).unwrap(), &bytes[..]);
    // {data: {input: {pty: "x"}}}: the input has number 2.
    let bytes = b"\x12\x05\x12\x03\x12\x01x";
    let message: StreamInputRequest = Codec::Proto.decode(bytes).unwrap();
    let Some(InputEvent::Data(data)) = message.event else {
        panic!("no data")
    };
    assert_eq!(data.input.input, Some(Input::Pty(Bytes::from_static(b"x"))));
}

fn reads_or_refuses(codec: Codec, bytes: &[u8]) {
    let _start: Result<StartRequest, _> = codec.decode(bytes);
    let _input: Result<StreamInputRequest, _> = codec.decode(bytes);
    let _signal: Result<SendSignalRequest, _> = codec.decode(bytes);
    let _watch: Result<WatchDirRequest, _> = codec.decode(bytes);
    // Not taken from callers, and deeper.
    let _list: Result<ListResponse, _> = codec.decode(bytes);
    let _entries: Result<ListDirResponse, _> = codec.decode(bytes);
}

fn sample() -> impl Strategy<Value = StartRequest> {
    let text = "[ -~é]{0,12}";
    let envs = prop::collection::btree_map(text, text, 0..4);
    let args = prop::collection::vec(text, 0..4);
    (
        text,
        args,
        envs,
        prop::option::of(text),
        any::<Option<bool>>(),
    )
        .prop_map(|(cmd, args, envs, tag, stdin)| StartRequest {
            process: ProcessConfig {
                cmd,
                args,
                envs,
                cwd: tag.clone(),
            }
            .into(),
            tag,
            stdin,
            ..StartRequest::default()
        })
}

proptest! {
    #[test]
    fn messages_survive_either_codec(message in sample()) {
        for codec in [Codec::Json, Codec::Proto] {
            let bytes = codec.encode(&message).unwrap();
            prop_assert_eq!(&codec.decode::<StartRequest>(&bytes).unwrap(), &message);
        }
    }

    #[test]
    fn any_bytes_are_a_message_or_are_refused(bytes: Vec<u8>) {
        reads_or_refuses(Codec::Json, &bytes);
        reads_or_refuses(Codec::Proto, &bytes);
    }

    #[test]
    fn a_changed_or_cut_message_is_read_or_refused(
        message in sample(),
        at: prop::sample::Index,
        byte: u8,
        cut: prop::sample::Index,
    ) {
        for codec in [Codec::Json, Codec::Proto] {
            let mut bytes = codec.encode(&message).unwrap().to_vec();
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
                bytes.truncate(cut.index(bytes.len()) + 1);
            }
            reads_or_refuses(codec, &bytes);
        }
    }

    #[test]
    fn json_of_any_shape_is_a_message_or_is_refused(text in r#"[\{\}\[\]":,a-z0-9\\]{0,80}"#) {
        reads_or_refuses(Codec::Json, text.as_bytes());
    }

    #[test]
    fn a_selector_of_any_number_is_read_or_refused(number: i64) {
        let text = format!(r#"{{"pid":{number}}}"#);
        let read: Result<ProcessSelector, _> = Codec::Json.decode(text.as_bytes());
        prop_assert_eq!(read.is_ok(), u32::try_from(number).is_ok());
    }
}
