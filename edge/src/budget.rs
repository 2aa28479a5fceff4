//! The budget of requests in flight: of all clients, of each client address, and of the API.
//!
//! A request takes its share before anything is dialed or woken, and holds it until its response is written. The total
//! follows from the descriptors of the process, so that the host keeps some for its own files.

use std::{net::IpAddr, sync::Arc};

use pingora::{protocols::l4::socket::SocketAddr, proxy::Session};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    config::Limits,
    limiter::{ConcurrencyLimiter, LimitReached, Slot},
};

/// The budget of an edge.
#[derive(Debug)]
pub(crate) struct RequestBudget {
    all: Arc<Semaphore>,
    api: Arc<Semaphore>,
    by_address: ConcurrencyLimiter<IpAddr>,
    wakes_by_address: ConcurrencyLimiter<IpAddr>,
}

/// The share of one request.
#[derive(Debug)]
#[must_use = "dropping the share frees it"]
pub(crate) struct RequestShare {
    address: Option<IpAddr>,
    _all: OwnedSemaphorePermit,
    _address: Option<Slot<IpAddr>>,
}

/// The share of a request to the API.
#[derive(Debug)]
#[must_use = "dropping the share frees it"]
pub(crate) struct ApiShare {
    _permit: OwnedSemaphorePermit,
}

/// A request beyond the budget.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OverBudget {
    /// The gateway has as many requests in flight as it may.
    #[error("the gateway has reached its limit of requests")]
    All,
    /// The API has as many requests in flight as it may.
    #[error("the API has reached its limit of requests")]
    Api,
    /// The client address has as many requests or wakes in flight as it may.
    #[error("client {0}")]
    Address(#[from] LimitReached<IpAddr>),
}

impl RequestBudget {
    pub(crate) fn new(limits: &Limits) -> Self {
        let semaphore =
            |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        Self {
            all: semaphore(limits.requests),
            api: semaphore(limits.api_requests),
            by_address: ConcurrencyLimiter::new(limits.requests_per_address),
            wakes_by_address: ConcurrencyLimiter::new(limits.wakes_per_address),
        }
    }

    /// Takes the share of a request.
    pub(crate) fn take(&self, session: &Session) -> Result<RequestShare, OverBudget> {
        let all = self.all.clone().try_acquire_owned();
        let all = all.map_err(|_| OverBudget::All)?;
        let address = session.client_addr().and_then(ip);
        let slot = match &address {
            Some(address) => Some(self.by_address.acquire(address)?),
            None => None,
        };
        Ok(RequestShare {
            address,
            _all: all,
            _address: slot,
        })
    }

    /// Takes the share of a request to the API.
    pub(crate) fn take_api(&self) -> Result<ApiShare, OverBudget> {
        let permit = self.api.clone().try_acquire_owned();
        let permit = permit.map_err(|_| OverBudget::Api)?;
        Ok(ApiShare { _permit: permit })
    }

    /// Counts a wait for a wake towards the client's address.
    pub(crate) fn take_wake(
        &self,
        share: &RequestShare,
    ) -> Result<Option<Slot<IpAddr>>, OverBudget> {
        let address = share.address.as_ref();
        let slot = address.map(|address| self.wakes_by_address.acquire(address));
        Ok(slot.transpose()?)
    }
}

fn ip(address: &SocketAddr) -> Option<IpAddr> {
    address.as_inet().map(|address| address.ip())
}
