//! Decoding and encoding of clients' messages and of arbitrary bytes.

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

fn parse_format(text: &str) -> Option<Format> {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_str(text).unwrap());
    Format::parse(&headers)
}

#[test]
fn content_type_selects_codec_and_kind() {
    let read = |text| parse_format(text).map(|format| (format.codec, format.kind));
    let (unary, streaming) = (CallKind::Unary, CallKind::Streaming);
    assert_eq!(
        read("application/connect+json"),
        Some((Codec::Json, streaming))
    );
    assert_eq!(
        read("application/connect+proto"),
        Some((Codec::Proto, streaming))
    );
    assert_eq!(
        read("application/json; charset=utf-8"),
        Some((Codec::Json, unary))
    );
    assert_eq!(read("Application/Proto"), Some((Codec::Proto, unary)));
    assert_eq!(read("application/grpc"), None);
}

#[test]
fn json_of_clients_is_decoded() {
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
    // JSON of protobuf also allows unpadded and URL-safe base64, and numbers as text.
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
fn entry_is_encoded_as_clients_decode_it() {
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
fn protobuf_has_the_field_numbers_of_the_clients() {
    // A published client's encoding of {process: {cmd: "a"}, tag: "t", stdin: false}.
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
    // {data: {input: {pty: "x"}}}, with the input as number 2.
    let bytes = b"\x12\x05\x12\x03\x12\x01x";
    let message: StreamInputRequest = Codec::Proto.decode(bytes).unwrap();
    let Some(InputEvent::Data(data)) = message.event else {
        panic!("no data")
    };
    assert_eq!(data.input.input, Some(Input::Pty(Bytes::from_static(b"x"))));
}

fn decode_without_panic(codec: Codec, bytes: &[u8]) {
    let _start: Result<StartRequest, _> = codec.decode(bytes);
    let _input: Result<StreamInputRequest, _> = codec.decode(bytes);
    let _signal: Result<SendSignalRequest, _> = codec.decode(bytes);
    let _watch: Result<WatchDirRequest, _> = codec.decode(bytes);
    // More deeply nested messages, which callers never send.
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
    fn messages_round_trip_in_both_codecs(message in sample()) {
        for codec in [Codec::Json, Codec::Proto] {
            let bytes = codec.encode(&message).unwrap();
            prop_assert_eq!(&codec.decode::<StartRequest>(&bytes).unwrap(), &message);
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes: Vec<u8>) {
        decode_without_panic(Codec::Json, &bytes);
        decode_without_panic(Codec::Proto, &bytes);
    }

    #[test]
    fn mutated_and_truncated_messages_do_not_panic(
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
            decode_without_panic(codec, &bytes);
        }
    }

    #[test]
    fn arbitrary_json_does_not_panic(text in r#"[\{\}\[\]":,a-z0-9\\]{0,80}"#) {
        decode_without_panic(Codec::Json, text.as_bytes());
    }

    #[test]
    fn selector_decodes_exactly_the_u32_range(number: i64) {
        let text = format!(r#"{{"pid":{number}}}"#);
        let read: Result<ProcessSelector, _> = Codec::Json.decode(text.as_bytes());
        prop_assert_eq!(read.is_ok(), u32::try_from(number).is_ok());
    }
}
