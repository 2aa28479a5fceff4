//! Describes, lists and watches files.

mod entry;
mod error;
mod inotify;
mod listing;
mod watch_scope;
mod watch_stream;
mod watcher_registry;

pub(crate) use self::{
    entry::EntryReader,
    error::{FileOperation, file_error, is_missing},
    listing::list,
    watch_scope::WatchScope,
    watch_stream::stream_changes,
    watcher_registry::WatcherRegistry,
};
