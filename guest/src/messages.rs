//! The messages of the two services, generated from `api/proto` by the build script.

#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::too_many_lines,
    clippy::needless_pass_by_value,
    clippy::semicolon_if_nothing_returned,
    clippy::unwrap_used,
    dead_code,
    missing_debug_implementations,
    missing_docs,
    rust_2018_idioms,
    unreachable_pub,
    reason = "generated"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/messages.rs"));
}

pub(crate) use self::generated::{filesystem, process};

/// The `oneof` types of the package `process`.
pub(crate) mod process_oneof {
    pub(crate) use super::generated::process::__buffa::oneof::{
        process_event::Event, process_event::data_event::Output, process_input::Input,
        process_selector::Selector, stream_input_request::Event as InputEvent,
    };
}

/// The `oneof` types of the package `filesystem`.
pub(crate) mod filesystem_oneof {
    pub(crate) use super::generated::filesystem::__buffa::oneof::watch_dir_response::Event as WatchEvent;
}
