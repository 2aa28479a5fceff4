//! What the edge counts, for Prometheus.
//!
//! Labels are few and fixed: no name of a sandbox is ever one.

mod make;
mod scrape;

use std::{sync::Arc, time::Duration};

use pool_api::{SandboxInfo, SandboxState, WakeReport};
use prometheus::{
    Encoder, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

use self::make::Make;
use crate::timing::Timing;

pub(crate) use self::scrape::serve;

/// Everything that is counted.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    in_flight: IntGaugeVec,
    refused: IntCounterVec,
    wakes: IntCounterVec,
    wake_stages: HistogramVec,
    stages: HistogramVec,
    body_bytes: IntCounterVec,
    connections: IntGaugeVec,
    accepted: IntCounterVec,
    turned_away: IntCounter,
    /// Clients of HTTP/2 that were sent away for resetting too much.
    sent_away: IntCounter,
    sandboxes: IntGaugeVec,
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Api,
    Sandbox,
    /// It never came to that.
    None,
}

/// Why a request was refused by the edge itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    BadHost,
    HeadTooLong,
    NotFound,
    Forbidden,
    Reserved,
    Transitioning,
    TooMany,
    NoRoom,
    WakeFailed,
    WakeTimedOut,
    PortClosed,
    Disconnected,
    Unavailable,
    Internal,
}

/// Which way a body passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    In,
    Out,
}

/// A thing that is there for as long as this is.
#[derive(Debug)]
pub(crate) struct Presence(IntGauge);

/// One request, counted when it ends.
#[derive(Debug)]
pub(crate) struct Tally {
    metrics: Arc<Metrics>,
    class: Class,
    present: Option<Presence>,
    status: Option<u16>,
}

// === impl Metrics ===

impl Metrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let make = Make(&registry);
        Ok(Self {
            requests: make.counters(
                "catnap_requests_total",
                "Requests that ended, by what they were for and the class of their status.",
                &["target", "status"],
            )?,
            in_flight: make.gauges(
                "catnap_requests_in_flight",
                "Requests under way, by what they are for.",
                "target",
            )?,
            refused: make.counters(
                "catnap_requests_refused_total",
                "Requests the gateway answered itself, by reason.",
                &["reason"],
            )?,
            wakes: make.counters(
                "catnap_wakes_total",
                "Wakes that requests waited for, by how the machine came about.",
                &["start"],
            )?,
            wake_stages: make.times(
                "catnap_wake_stage_seconds",
                "Time of each stage of a wake that requests waited for; 'all' is their sum.",
            )?,
            stages: make.times(
                "catnap_request_stage_seconds",
                "Time of each stage of a request to a sandbox, until it was answered.",
            )?,
            body_bytes: make.counters(
                "catnap_body_bytes_total",
                "Bytes of bodies carried, from clients (in) and to them (out).",
                &["target", "direction"],
            )?,
            connections: make.gauges("catnap_connections", "Open connections.", "transport")?,
            accepted: make.counters(
                "catnap_connections_total",
                "Connections of clients that were taken.",
                &["transport"],
            )?,
            turned_away: make.counter(
                "catnap_connections_refused_total",
                "Connections that were closed at once because there were too many.",
            )?,
            sent_away: make.counter(
                "catnap_connections_abusive_total",
                "HTTP/2 connections that were ended because of what their clients did.",
            )?,
            sandboxes: make.gauges("catnap_sandboxes", "Sandboxes here, by state.", "state")?,
            registry,
        })
    }

    /// A request, to be counted when it ends.
    pub(crate) fn tally(self: &Arc<Self>) -> Tally {
        Tally {
            metrics: self.clone(),
            class: Class::None,
            present: None,
            status: None,
        }
    }

    /// A connection, counted and present until it ends.
    pub(crate) fn connection(&self, secured: bool) -> Presence {
        let transport = if secured { "tls" } else { "plain" };
        self.accepted.with_label_values(&[transport]).inc();
        Presence::of(self.connections.with_label_values(&[transport]))
    }

    pub(crate) fn turned_away(&self) {
        self.turned_away.inc();
    }

    pub(crate) fn sent_away(&self) {
        self.sent_away.inc();
    }

    pub(crate) fn refused(&self, reason: Reason) {
        self.refused.with_label_values(&[reason.name()]).inc();
    }

    /// A request is about to be answered by a sandbox.
    pub(crate) fn reached(&self, timing: &Timing) {
        for (stage, took) in [
            ("route", timing.route),
            ("admit", timing.admit),
            ("dial", timing.dial),
        ] {
            observe(&self.stages, stage, took);
        }
    }

    /// A request waited for a wake, and is the first to say so.
    pub(crate) fn woken(&self, wake: &WakeReport) {
        self.wakes.with_label_values(&[wake.start.name()]).inc();
        let mut all = Duration::ZERO;
        for (stage, took) in &wake.stages {
            observe(&self.wake_stages, stage.name(), *took);
            all += *took;
        }
        observe(&self.wake_stages, "all", all);
    }

    /// The text Prometheus reads.
    fn render(&self, sandboxes: &[SandboxInfo]) -> Result<Vec<u8>, prometheus::Error> {
        let mut counts = [
            ("starting", 0),
            ("running", 0),
            ("pausing", 0),
            ("paused", 0),
            ("stopping", 0),
        ];
        for info in sandboxes {
            let name = match info.state {
                SandboxState::Starting => "starting",
                SandboxState::Running => "running",
                SandboxState::Pausing => "pausing",
                SandboxState::Paused => "paused",
                SandboxState::Stopping | SandboxState::Stopped(_) => "stopping",
            };
            for (state, count) in &mut counts {
                if *state == name {
                    *count += 1;
                }
            }
        }
        for (state, count) in counts {
            self.sandboxes.with_label_values(&[state]).set(count);
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

fn observe(times: &HistogramVec, stage: &str, took: Duration) {
    times
        .with_label_values(&[stage])
        .observe(took.as_secs_f64());
}

// === impl Presence ===

impl Presence {
    fn of(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.dec();
    }
}

// === impl Tally ===

impl Tally {
    /// It is known what the request is for.
    pub(crate) fn aim(&mut self, class: Class) {
        self.class = class;
        let gauge = self.metrics.in_flight.with_label_values(&[class.name()]);
        self.present = Some(Presence::of(gauge));
    }

    /// Bytes of a body passed.
    pub(crate) fn carried(&self, way: Way, bytes: usize) {
        let way = match way {
            Way::In => "in",
            Way::Out => "out",
        };
        self.metrics
            .body_bytes
            .with_label_values(&[self.class.name(), way])
            .inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// It was answered with this status, if it was.
    pub(crate) fn answered(&mut self, status: Option<u16>) {
        self.status = status;
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let status = match self.status {
            Some(100..200) => "1xx",
            Some(200..300) => "2xx",
            Some(300..400) => "3xx",
            Some(400..500) => "4xx",
            Some(500..600) => "5xx",
            _ => "none",
        };
        self.metrics
            .requests
            .with_label_values(&[self.class.name(), status])
            .inc();
    }
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Sandbox => "sandbox",
            Self::None => "none",
        }
    }
}

impl Reason {
    fn name(self) -> &'static str {
        match self {
            Self::BadHost => "bad_host",
            Self::HeadTooLong => "head_too_long",
            Self::NotFound => "not_found",
            Self::Forbidden => "forbidden",
            Self::Reserved => "reserved",
            Self::Transitioning => "transitioning",
            Self::TooMany => "too_many",
            Self::NoRoom => "no_room",
            Self::WakeFailed => "wake_failed",
            Self::WakeTimedOut => "wake_timed_out",
            Self::PortClosed => "port_closed",
            Self::Disconnected => "disconnected",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }
}
