//! What happens to a process, as its followers are told.

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Exit, table::Process};
use crate::{
    messages::{
        process::{
            ProcessEvent, StartResponse,
            process_event::{DataEvent, EndEvent, KeepAlive, StartEvent},
        },
        process_oneof::{Event, Output},
    },
    rpc::{Feed, RpcError},
};

/// A message of the stream of either `Start` or `Connect`: their messages are the same on the wire.
pub(super) type Message = StartResponse;
/// Where a follower takes its events from.
pub(super) type Follower = mpsc::Sender<Result<Message, RpcError>>;

/// Events that wait for a slow reader; with more the process's output waits.
const WAITING: usize = 4;

/// The following of a process.
pub(super) struct Events;

impl Events {
    /// Follows from now on: first that it started, then what happens. One that has ended tells that. Dropping the feed
    /// ends the following and not the process.
    pub(super) fn of(process: &Process) -> Feed<Message> {
        let (sender, messages) = mpsc::channel(WAITING);
        // There is room for two events in a new channel.
        let _sent = sender.try_send(Ok(message(StartEvent { pid: process.pid })));
        match process.end() {
            Some(exit) => {
                let _sent = sender.try_send(Ok(end(exit)));
            }
            None => process.followers.borrow_mut().push(sender),
        }
        Feed {
            messages,
            alive: || message(KeepAlive {}),
        }
    }
}

/// Output of a process.
pub(super) fn data(output: Output) -> Message {
    message(DataEvent {
        output: Some(output),
    })
}

/// The end of a process.
pub(super) fn end(exit: Exit) -> Message {
    let status = exit.status();
    message(EndEvent {
        exit_code: exit.code(),
        exited: matches!(exit, Exit::Code(_)),
        error: (!exit.is_success()).then(|| status.clone()),
        status,
    })
}

fn message(event: impl Into<Event>) -> Message {
    StartResponse {
        event: ProcessEvent {
            event: Some(event.into()),
        }
        .into(),
    }
}

/// Bytes of a stream of output.
pub(super) type Wrap = fn(Bytes) -> Output;

#[cfg(test)]
mod test {
    use super::*;

    fn json(message: &Message) -> String {
        serde_json::to_string(message).unwrap()
    }

    #[test]
    fn events_are_those_of_the_wire() {
        assert_eq!(
            json(&message(StartEvent { pid: 7 })),
            r#"{"event":{"start":{"pid":7}}}"#
        );
        assert_eq!(
            json(&data(Output::Stdout(Bytes::from_static(b"hi")))),
            r#"{"event":{"data":{"stdout":"aGk="}}}"#
        );
        assert_eq!(
            json(&message(KeepAlive {})),
            r#"{"event":{"keepalive":{}}}"#
        );
        assert_eq!(
            json(&end(Exit::Code(1))),
            r#"{"event":{"end":{"exitCode":1,"exited":true,"status":"exit status 1","error":"exit status 1"}}}"#
        );
        assert_eq!(
            json(&end(Exit::Code(0))),
            r#"{"event":{"end":{"exited":true,"status":"exit status 0"}}}"#
        );
        assert_eq!(
            json(&end(Exit::Signal(9))),
            r#"{"event":{"end":{"exitCode":-1,"status":"signal: killed","error":"signal: killed"}}}"#
        );
    }
}
