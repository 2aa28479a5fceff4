//! The durations of a request's steps, for `Server-Timing` and the metrics.

use std::{fmt::Write, time::Duration};

use pool_api::WakeReport;

/// Durations of the steps of one request.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Timing {
    /// Lookup of the sandbox.
    pub(crate) route: Duration,
    /// Admission, including a wake.
    pub(crate) admit: Duration,
    /// Connection to the port.
    pub(crate) dial: Duration,
}

impl Timing {
    /// Returns the value of `Server-Timing`, in milliseconds.
    pub(crate) fn header(&self, wake: Option<&WakeReport>) -> String {
        let mut text = String::new();
        if let Some(wake) = wake {
            let total: Duration = wake.stages.iter().map(|(_, duration)| *duration).sum();
            push(&mut text, "wake", total, Some(wake.start.name()));
            for (stage, duration) in &wake.stages {
                push(
                    &mut text,
                    &format!("wake-{}", stage.name()),
                    *duration,
                    None,
                );
            }
        }
        push(&mut text, "route", self.route, None);
        push(&mut text, "admit", self.admit, None);
        push(&mut text, "dial", self.dial, None);
        text
    }
}

fn push(text: &mut String, name: &str, duration: Duration, description: Option<&str>) {
    let comma = if text.is_empty() { "" } else { ", " };
    let millis = duration.as_secs_f64() * 1e3;
    let written = match description {
        Some(description) => write!(text, "{comma}{name};dur={millis:.3};desc=\"{description}\""),
        None => write!(text, "{comma}{name};dur={millis:.3}"),
    };
    debug_assert!(written.is_ok(), "writing to a string does not fail");
}

#[cfg(test)]
mod tests {
    use pool_api::{Stage, Start};

    use super::*;

    #[test]
    fn server_timing_lists_wake_stages_before_request_steps() {
        let ms = Duration::from_millis;
        let timing = Timing {
            route: Duration::from_micros(5),
            admit: ms(12),
            dial: ms(1),
        };
        assert_eq!(
            timing.header(None),
            "route;dur=0.005, admit;dur=12.000, dial;dur=1.000"
        );
        let stages = vec![(Stage::Blank, ms(1)), (Stage::Load, ms(3))];
        let wake = WakeReport {
            start: Start::Restore,
            stages,
        };
        assert_eq!(
            timing.header(Some(&wake)),
            "wake;dur=4.000;desc=\"restore\", wake-blank;dur=1.000, wake-load;dur=3.000, \
             route;dur=0.005, admit;dur=12.000, dial;dur=1.000"
        );
    }
}
