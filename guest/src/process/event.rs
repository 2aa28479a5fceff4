//! Process events as messages for followers.

use guest_api::envd::ExitStatus;

use crate::messages::{
    process::{
        ProcessEvent, StartResponse,
        process_event::{DataEvent, EndEvent, KeepAlive, StartEvent},
    },
    process_oneof::{Event, Output},
};

/// A message of `Start` and of `Connect`, which are identical on the wire.
pub(crate) type EventMessage = StartResponse;

/// Reports that a process started.
pub(super) fn start(pid: u32) -> EventMessage {
    message(StartEvent { pid })
}

/// Reports output of a process.
pub(super) fn data(output: Output) -> EventMessage {
    message(DataEvent {
        output: Some(output),
    })
}

/// Reports the end of a process.
pub(super) fn end(exit: ExitStatus) -> EventMessage {
    let status = exit.to_string();
    message(EndEvent {
        exit_code: exit.code(),
        exited: matches!(exit, ExitStatus::Code(_)),
        error: (exit != ExitStatus::Code(0)).then(|| status.clone()),
        status,
    })
}

/// Keeps an idle stream open.
pub(super) fn keepalive() -> EventMessage {
    message(KeepAlive {})
}

fn message(event: impl Into<Event>) -> EventMessage {
    StartResponse {
        event: ProcessEvent {
            event: Some(event.into()),
        }
        .into(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn json(message: &EventMessage) -> String {
        serde_json::to_string(message).unwrap()
    }

    #[test]
    fn events_have_the_wire_format_of_envd() {
        assert_eq!(json(&start(7)), r#"{"event":{"start":{"pid":7}}}"#);
        assert_eq!(
            json(&data(Output::Stdout(Bytes::from_static(b"hi")))),
            r#"{"event":{"data":{"stdout":"aGk="}}}"#
        );
        assert_eq!(json(&keepalive()), r#"{"event":{"keepalive":{}}}"#);
        assert_eq!(
            json(&end(ExitStatus::Code(1))),
            r#"{"event":{"end":{"exitCode":1,"exited":true,"status":"exit status 1","error":"exit status 1"}}}"#
        );
        assert_eq!(
            json(&end(ExitStatus::Code(0))),
            r#"{"event":{"end":{"exited":true,"status":"exit status 0"}}}"#
        );
        assert_eq!(
            json(&end(ExitStatus::Signal(9))),
            r#"{"event":{"end":{"exitCode":-1,"status":"signal: killed","error":"signal: killed"}}}"#
        );
    }
}
