//! What a request cost, stage by stage, as `Server-Timing` says it.

use std::{fmt::Write, time::Duration};

use pool_api::WakeReport;

/// Times of one request at the edge.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Timing {
    /// Until the sandbox was found.
    pub(crate) route: Duration,
    /// Until the request was let in, a wake included.
    pub(crate) admit: Duration,
    /// Until there was a connection to the port.
    pub(crate) dial: Duration,
}

impl Timing {
    /// The value of `Server-Timing`; durations in milliseconds.
    pub(crate) fn header(&self, wake: Option<&WakeReport>) -> String {
        let mut text = String::new();
        if let Some(wake) = wake {
            let whole: Duration = wake.stages.iter().map(|(_, took)| *took).sum();
            entry(&mut text, "wake", whole, Some(wake.start.name()));
            for (stage, took) in &wake.stages {
                entry(&mut text, &format!("wake-{}", stage.name()), *took, None);
            }
        }
        entry(&mut text, "route", self.route, None);
        entry(&mut text, "admit", self.admit, None);
        entry(&mut text, "dial", self.dial, None);
        text
    }
}

fn entry(text: &mut String, name: &str, took: Duration, desc: Option<&str>) {
    let comma = if text.is_empty() { "" } else { ", " };
    let millis = took.as_secs_f64() * 1e3;
    let written = match desc {
        Some(desc) => write!(text, "{comma}{name};dur={millis:.3};desc=\"{desc}\""),
        None => write!(text, "{comma}{name};dur={millis:.3}"),
    };
    debug_assert!(written.is_ok(), "writing to a string does not fail");
}

#[cfg(test)]
mod test {
    use pool_api::{Stage, Start};

    use super::*;

    #[test]
    fn stages_come_in_order_with_their_times() {
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
