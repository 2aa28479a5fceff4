//! Streams the changes of a watched directory.

use std::io;

use tokio::{sync::mpsc, task::spawn_local};

use super::{inotify::QueueState, watch_scope::WatchScope};
use crate::{
    messages::{
        filesystem::{
            WatchDirResponse,
            watch_dir_response::{KeepAlive, StartEvent},
        },
        filesystem_oneof::WatchEvent,
    },
    rpc::{Code, ResponseStream, RpcError},
};

/// Changes that are buffered for a slow reader. Further ones stay in the kernel's queue.
const STREAM_BUFFER: usize = 16;

/// Reports changes as they happen, until the caller disconnects.
pub(crate) fn stream_changes(
    scope: WatchScope,
) -> Result<ResponseStream<WatchDirResponse>, RpcError> {
    let (sender, messages) = mpsc::channel(STREAM_BUFFER);
    // A new channel has room.
    let _sent = sender.try_send(Ok(message(StartEvent {})));
    spawn_local(async move {
        if let Err(error) = forward_changes(scope, &sender).await {
            // The caller may have disconnected.
            let _sent = sender.send(Err(error)).await;
        }
    });
    Ok(ResponseStream {
        messages,
        keepalive: || message(KeepAlive {}),
    })
}

async fn forward_changes(
    mut scope: WatchScope,
    sender: &mpsc::Sender<Result<WatchDirResponse, RpcError>>,
) -> Result<(), RpcError> {
    let queue = scope.queue();
    loop {
        let mut ready = tokio::select! {
            () = sender.closed() => return Ok(()),
            ready = queue.readable() => ready.map_err(|error| poll_error(&error))?,
        };
        let batch = scope.read_events()?;
        if batch.queue == QueueState::Drained {
            ready.clear_ready();
        }
        for event in batch.items {
            if sender.send(Ok(message(event))).await.is_err() {
                return Ok(());
            }
        }
    }
}

fn message(event: impl Into<WatchEvent>) -> WatchDirResponse {
    WatchDirResponse {
        event: Some(event.into()),
    }
}

fn poll_error(error: &io::Error) -> RpcError {
    RpcError::new(
        Code::Internal,
        format!("failed to wait for changes: {error}"),
    )
}
