//! Contract suite of [`Hypervisor`], [`crate::Blank`] and [`Machine`](crate::Machine).
//!
//! Each row checks one sentence of the doc comments in `machine.rs`. [`check`] runs all rows against one
//! implementation, which a [`Harness`] adapts. The fake and the real monitor with the flat guest both pass it. A row is
//! skipped only if the harness lacks a [`Capability`] that the row needs.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a row fails by panicking"
)]

mod capture;
mod disks;
mod end;
mod files;
mod harness;
mod lifecycle;
mod start;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

pub use self::harness::{Capability, Guest, Harness, Kernel, Workload};

/// Time limit of a row. Rows take milliseconds.
const ROW_TIMEOUT: Duration = Duration::from_secs(30);

type Check = fn(Arc<dyn Harness>) -> Pin<Box<dyn Future<Output = ()> + Send>>;

struct Row {
    name: &'static str,
    needs: &'static [Capability],
    check: Check,
}

macro_rules! rows {
    ($($(#[needs($($capability:ident),+)])? $module:ident::$row:ident,)+) => {
        &[$(Row {
            name: stringify!($row),
            needs: &[$($(Capability::$capability),+)?],
            check: |harness| Box::pin(async move { $module::$row(&*harness).await }),
        }),+]
    };
}

const ROWS: &[Row] = rows![
    start::blank_out_of_bounds_is_refused,
    start::blank_without_run_dir_fails,
    #[needs(Process)]
    start::dropped_blank_ends_its_process,
    start::booted_machine_is_running,
    start::invalid_kernel_is_refused,
    start::loaded_machine_is_paused_and_continues,
    start::loads_of_one_source_share_no_writes,
    start::altered_or_truncated_image_is_refused,
    start::image_of_another_shape_is_refused,
    start::memory_file_of_another_size_is_refused,
    #[needs(Paging)]
    start::failing_pager_fails_the_load,
    start::load_report_exists_for_loaded_machines_only,
    lifecycle::resume_of_a_running_machine_has_no_effect,
    lifecycle::pause_of_a_paused_machine_has_no_effect,
    lifecycle::dropped_call_does_not_affect_a_later_result,
    #[needs(Vsock)]
    lifecycle::dial_opens_a_stream_to_an_open_port,
    #[needs(Vsock)]
    lifecycle::dial_of_a_closed_port_is_closed,
    #[needs(Vsock)]
    lifecycle::dial_waits_while_paused,
    capture::capture_of_a_running_machine_is_refused,
    capture::capture_leaves_the_machine_paused_and_unchanged,
    capture::captured_pages_are_those_written_since_the_load,
    capture::capture_result_matches_the_files,
    capture::full_file_is_no_space_and_changes_nothing,
    disks::disk_only_capture_writes_bitmaps_only,
    disks::wrong_bitmap_count_is_refused,
    disks::bitmap_marks_the_written_block,
    disks::advance_directs_writes_to_the_new_top,
    disks::advance_of_a_running_machine_is_refused,
    disks::advance_to_folded_layers_directs_writes_to_the_top,
    disks::advance_to_an_unreadable_layer_changes_nothing,
    disks::wrong_top_count_is_refused_and_changes_nothing,
    end::kill_ends_the_process_and_publishes_killed,
    end::kill_of_an_ended_machine_has_no_effect,
    end::dropped_machine_is_killed,
    #[needs(Process)]
    end::drained_hypervisor_has_no_processes,
    end::guest_reset_is_published,
    end::dead_process_is_published,
    end::calls_on_an_ended_machine_fail,
];

/// Runs every row against one implementation. Panics with the names of the rows that failed or timed out.
pub async fn check(harness: Arc<dyn Harness>) {
    let mut failed = Vec::new();
    for row in ROWS {
        if let Some(lacking) = row.needs.iter().find(|need| !harness.has(**need)) {
            eprintln!("skipped {}: the harness lacks {lacking:?}", row.name);
            continue;
        }
        let mut check = tokio::spawn((row.check)(Arc::clone(&harness)));
        match tokio::time::timeout(ROW_TIMEOUT, &mut check).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => failed.push(row.name),
        }
        check.abort();
    }
    assert!(failed.is_empty(), "failed rows: {failed:#?}");
}
