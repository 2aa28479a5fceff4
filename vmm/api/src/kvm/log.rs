//! The log of a monitor: a bounded number of its lines goes to the log of this process.
//!
//! A guest can make its monitor log. The bound keeps it from filling the log of the host.

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::ChildStderr,
};

/// The lines of one monitor that are logged.
const MAX_LINES: usize = 100;
/// The bytes of one line that are logged.
const MAX_LINE: u64 = 1024;

/// Logs the first lines of a monitor and discards the others.
pub(super) async fn forward(stderr: ChildStderr, pid: u32) {
    let mut reader = BufReader::new(stderr);
    let mut count = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        // A longer line counts as several.
        let mut limited = (&mut reader).take(MAX_LINE);
        match limited.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        count += 1;
        if count <= MAX_LINES {
            let text = String::from_utf8_lossy(&line);
            tracing::warn!(pid, line = text.trim_end(), "monitor logged");
        } else if count == MAX_LINES + 1 {
            tracing::warn!(pid, "monitor logs too much; further lines are discarded");
        }
    }
}
