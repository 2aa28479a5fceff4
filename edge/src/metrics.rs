//! Prometheus metrics.
//!
//! Labels are few and fixed; no label holds the id of a sandbox.

mod labels;
mod registration;
pub(crate) mod wakes;

use std::{sync::Arc, time::Duration};

use pool_api::{SandboxInfo, SandboxState, WakeReport};
use prometheus::{
    Encoder, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

use self::registration::MetricFactory;
use crate::{panics::PanicCounter, timing::Timing};

pub(crate) use self::labels::{Direction, RefusalReason, TargetLabel, Transport};

/// All metrics of the gateway.
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
    connections_refused: IntCounter,
    goaways: IntCounter,
    sandboxes: IntGaugeVec,
}

/// Increments a gauge until it is dropped.
#[derive(Debug)]
pub(crate) struct GaugeGuard(IntGauge);

/// Counts one request when it is dropped.
#[derive(Debug)]
pub(crate) struct RequestGuard {
    metrics: Arc<Metrics>,
    target: TargetLabel,
    in_flight: Option<GaugeGuard>,
    status: Option<u16>,
}

// === impl Metrics ===

impl Metrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let factory = MetricFactory(&registry);
        Ok(Self {
            requests: factory.counters(
                "catnap_requests_total",
                "Completed requests, by destination and class of status code.",
                &["target", "status"],
            )?,
            in_flight: factory.gauges(
                "catnap_requests_in_flight",
                "Requests in flight, by destination.",
                "target",
            )?,
            refused: factory.counters(
                "catnap_requests_refused_total",
                "Requests that the gateway answered itself, by reason.",
                &["reason"],
            )?,
            wakes: factory.counters(
                "catnap_wakes_total",
                "Wakes of paused sandboxes, by requests and by the API, by start of the machine.",
                &["start"],
            )?,
            wake_stages: factory.durations(
                "catnap_wake_stage_seconds",
                "Duration of each stage of a wake; 'all' is their sum.",
            )?,
            stages: factory.durations(
                "catnap_request_stage_seconds",
                "Duration of each stage of a request to a sandbox until its response starts.",
            )?,
            body_bytes: factory.counters(
                "catnap_body_bytes_total",
                "Body bytes forwarded from clients (in) and to clients (out).",
                &["target", "direction"],
            )?,
            connections: factory.gauges(
                "catnap_connections",
                "Open client connections.",
                "transport",
            )?,
            accepted: factory.counters(
                "catnap_connections_total",
                "Accepted client connections.",
                &["transport"],
            )?,
            connections_refused: factory.counter(
                "catnap_connections_refused_total",
                "Client connections closed at once because of the connection limit.",
            )?,
            goaways: factory.counter(
                "catnap_connections_abusive_total",
                "HTTP/2 connections ended for excessive resets or malformed requests.",
            )?,
            sandboxes: factory.gauges("catnap_sandboxes", "Sandboxes, by state.", "state")?,
            registry,
        })
    }

    /// Reports the panics of this process as well.
    pub(crate) fn add_panics(&self, panics: &PanicCounter) -> Result<(), prometheus::Error> {
        self.registry.register(Box::new(panics.metric().clone()))
    }

    /// Starts to count a request.
    pub(crate) fn request(self: &Arc<Self>) -> RequestGuard {
        RequestGuard {
            metrics: self.clone(),
            target: TargetLabel::None,
            in_flight: None,
            status: None,
        }
    }

    /// Counts a connection, which is open until the guard is dropped.
    pub(crate) fn connection(&self, transport: Transport) -> GaugeGuard {
        let transport = transport.name();
        self.accepted.with_label_values(&[transport]).inc();
        GaugeGuard::new(self.connections.with_label_values(&[transport]))
    }

    pub(crate) fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    pub(crate) fn goaway_sent(&self) {
        self.goaways.inc();
    }

    pub(crate) fn request_refused(&self, reason: RefusalReason) {
        self.refused.with_label_values(&[reason.name()]).inc();
    }

    /// Observes the stages of a request whose response starts.
    pub(crate) fn observe_stages(&self, timing: &Timing) {
        for (stage, duration) in [
            ("route", timing.route),
            ("admit", timing.admit),
            ("dial", timing.dial),
        ] {
            observe(&self.stages, stage, duration);
        }
    }

    /// Observes the stages of a wake, then counts it.
    fn wake(&self, report: &WakeReport) {
        let mut all = Duration::ZERO;
        for (stage, duration) in &report.stages {
            observe(&self.wake_stages, stage.name(), *duration);
            all += *duration;
        }
        observe(&self.wake_stages, "all", all);
        self.wakes.with_label_values(&[report.start.name()]).inc();
    }

    /// Renders the metrics in the text format of Prometheus.
    pub(crate) fn render(&self, sandboxes: &[SandboxInfo]) -> Result<Vec<u8>, prometheus::Error> {
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

fn observe(durations: &HistogramVec, stage: &str, duration: Duration) {
    durations
        .with_label_values(&[stage])
        .observe(duration.as_secs_f64());
}

// === impl GaugeGuard ===

impl GaugeGuard {
    fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

// === impl RequestGuard ===

impl RequestGuard {
    /// Sets the destination of the request.
    pub(crate) fn set_target(&mut self, target: TargetLabel) {
        self.target = target;
        let gauge = self.metrics.in_flight.with_label_values(&[target.name()]);
        self.in_flight = Some(GaugeGuard::new(gauge));
    }

    /// Counts bytes of a body.
    pub(crate) fn body_bytes(&self, direction: Direction, bytes: usize) {
        self.metrics
            .body_bytes
            .with_label_values(&[self.target.name(), direction.name()])
            .inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// Sets the status code of the response; `None` if there was none.
    pub(crate) fn set_status(&mut self, status: Option<u16>) {
        self.status = status;
    }
}

impl Drop for RequestGuard {
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
            .with_label_values(&[self.target.name(), status])
            .inc();
    }
}
