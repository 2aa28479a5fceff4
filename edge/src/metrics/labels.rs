//! Label values of the metrics.

/// The label `target`: the destination of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TargetLabel {
    Api,
    Sandbox,
    /// The destination was not resolved, or the request was rejected.
    None,
}

/// The label `reason` of a request that the gateway answered itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusalReason {
    BadHost,
    HeadTooLong,
    NotFound,
    Forbidden,
    Reserved,
    TooMany,
    NoRoom,
    WakeFailed,
    WakeTimedOut,
    PortClosed,
    Disconnected,
    Unavailable,
    Overloaded,
    Unauthorized,
    /// The gateway answers a health check.
    Health,
    Internal,
}

/// The label `direction` of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    In,
    Out,
}

/// The label `transport` of a client connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Plain,
    Tls,
}

impl TargetLabel {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Sandbox => "sandbox",
            Self::None => "none",
        }
    }
}

impl Direction {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

impl Transport {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Tls => "tls",
        }
    }
}

impl RefusalReason {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::BadHost => "bad_host",
            Self::HeadTooLong => "head_too_long",
            Self::NotFound => "not_found",
            Self::Forbidden => "forbidden",
            Self::Reserved => "reserved",
            Self::TooMany => "too_many",
            Self::NoRoom => "no_room",
            Self::WakeFailed => "wake_failed",
            Self::WakeTimedOut => "wake_timed_out",
            Self::PortClosed => "port_closed",
            Self::Disconnected => "disconnected",
            Self::Unavailable => "unavailable",
            Self::Overloaded => "overloaded",
            Self::Unauthorized => "unauthorized",
            Self::Health => "health",
            Self::Internal => "internal",
        }
    }
}
