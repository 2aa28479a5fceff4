//! The messages of `process.Process`, as JSON has them. Unknown fields are ignored, zero values may be absent.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Exit;
use crate::rpc;

/// What to run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ProcessConfig {
    pub(crate) cmd: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) args: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) envs: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cwd: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct StartRequest {
    pub(crate) process: ProcessConfig,
    pub(crate) pty: Option<serde_json::Value>,
    pub(crate) tag: Option<String>,
    pub(crate) stdin: Option<bool>,
}

/// Which process a caller means.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Selector {
    Pid(u32),
    Tag(String),
}

#[derive(Debug, Deserialize)]
pub(crate) struct ConnectRequest {
    pub(crate) process: Selector,
}

#[derive(Debug, Deserialize)]
pub(crate) struct CloseStdinRequest {
    pub(crate) process: Selector,
}

#[derive(Debug, Deserialize)]
pub(crate) struct SendInputRequest {
    pub(crate) process: Selector,
    pub(crate) input: Input,
}

/// Bytes for a process, in base64.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Input {
    pub(crate) stdin: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct SendSignalRequest {
    pub(crate) process: Selector,
    pub(crate) signal: Signal,
}

/// The signals that can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Terminate,
    Kill,
}

#[derive(Debug, Serialize)]
pub(crate) struct ListResponse {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) processes: Vec<ListedProcess>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ListedProcess {
    pub(crate) config: ProcessConfig,
    pub(crate) pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tag: Option<String>,
}

/// A message of a stream of events.
#[derive(Debug, Serialize)]
pub(crate) struct StreamResponse<'a> {
    pub(crate) event: &'a Event,
}

/// Something that happened to a process.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Event {
    Start { pid: u32 },
    Data(Data),
    Keepalive {},
    End(End),
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Data {
    Stdout(#[serde(serialize_with = "as_base64")] Vec<u8>),
    Stderr(#[serde(serialize_with = "as_base64")] Vec<u8>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct End {
    #[serde(skip_serializing_if = "is_zero")]
    exit_code: i32,
    exited: bool,
    status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl From<Exit> for End {
    fn from(exit: Exit) -> Self {
        let status = exit.status();
        let error = (!exit.is_success()).then(|| status.clone());
        Self {
            exit_code: exit.code(),
            exited: matches!(exit, Exit::Code(_)),
            status,
            error,
        }
    }
}

impl<'de> Deserialize<'de> for Signal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Name(String),
            Number(i64),
        }
        match Raw::deserialize(deserializer)? {
            Raw::Name(name) if name == "SIGNAL_SIGKILL" => Ok(Self::Kill),
            Raw::Name(name) if name == "SIGNAL_SIGTERM" => Ok(Self::Terminate),
            Raw::Number(9) => Ok(Self::Kill),
            Raw::Number(15) => Ok(Self::Terminate),
            _ => Err(serde::de::Error::custom(
                "signal is neither SIGNAL_SIGKILL nor SIGNAL_SIGTERM",
            )),
        }
    }
}

fn as_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rpc::to_base64(bytes))
}

// Serde wants a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::*;

    fn json(event: &Event) -> String {
        serde_json::to_string(&StreamResponse { event }).unwrap()
    }

    #[test]
    fn events_are_those_of_the_wire() {
        assert_eq!(
            json(&Event::Start { pid: 7 }),
            r#"{"event":{"start":{"pid":7}}}"#
        );
        assert_eq!(
            json(&Event::Data(Data::Stdout(b"hi".to_vec()))),
            r#"{"event":{"data":{"stdout":"aGk="}}}"#
        );
        assert_eq!(json(&Event::Keepalive {}), r#"{"event":{"keepalive":{}}}"#);
        assert_eq!(
            json(&Event::End(Exit::Code(1).into())),
            r#"{"event":{"end":{"exitCode":1,"exited":true,"status":"exit status 1","error":"exit status 1"}}}"#
        );
        assert_eq!(
            json(&Event::End(Exit::Code(0).into())),
            r#"{"event":{"end":{"exited":true,"status":"exit status 0"}}}"#
        );
        assert_eq!(
            json(&Event::End(Exit::Signal(9).into())),
            r#"{"event":{"end":{"exitCode":-1,"exited":false,"status":"signal: killed","error":"signal: killed"}}}"#
        );
    }

    #[test]
    fn requests_are_those_of_the_clients() {
        let text = r#"{"process":{"cmd":"/bin/bash","args":["-l","-c","ls"],"envs":{"A":"b"}},"stdin":false,"new":1}"#;
        let request: StartRequest = serde_json::from_str(text).unwrap();
        assert_eq!(request.process.args, ["-l", "-c", "ls"]);
        assert_eq!((request.stdin, request.process.cwd), (Some(false), None));
        let text = r#"{"process":{"tag":"x"},"signal":"SIGNAL_SIGKILL"}"#;
        let request: SendSignalRequest = serde_json::from_str(text).unwrap();
        assert_eq!(
            (request.process, request.signal),
            (Selector::Tag("x".to_owned()), Signal::Kill)
        );
    }

    proptest! {
        #[test]
        fn any_json_is_a_request_or_is_refused(text in r#"[\{\}\[\]":,a-z0-9\\]{0,80}"#) {
            let _start: Result<StartRequest, _> = serde_json::from_str(&text);
            let _signal: Result<SendSignalRequest, _> = serde_json::from_str(&text);
        }
    }
}
