//! The host's first call to a guest after a boot, fork or restore: clock, entropy and identity.

use std::time::{Duration, SystemTime};

use guest_api::{
    AgentError, Entropy, HOST_VSOCK_PORT, Hostname, InitRequest, InvalidInit, MachineId, Token,
    client,
};
use pool_api::{Epoch, SandboxSpec};
use rand::Rng;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::{sleep, timeout};
use vmm_api::{DialError, Machine};

/// The time between two attempts to connect to the agent.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// The timeout of one health check.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(30);
/// The bounds of the time between two health checks.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(1);
const ENTROPY_LEN: usize = 64;

/// Failure of [`init_guest`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum GuestInitError {
    #[error("failed to connect to the guest agent")]
    Dial(#[source] DialError),
    #[error("the guest agent failed to apply its identity")]
    Agent(#[source] AgentError),
    #[error("the guest agent did not respond within {0:?}")]
    Timeout(Duration),
    #[error("failed to build the init request")]
    Invalid(#[source] InvalidInit),
    #[error("failed to format the time")]
    Time(#[source] time::error::Format),
}

/// The identity that a guest takes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Identity {
    /// A new one.
    Fork,
    /// Its own, in memory already.
    Restore,
    /// Its own, after a boot from its disk.
    Boot,
}

/// Sets the clock, entropy and identity of a guest, and returns when they are in effect.
pub(crate) async fn init_guest(
    machine: &dyn Machine,
    identity: Identity,
    spec: &SandboxSpec,
    epoch: Epoch,
    deadline: Duration,
) -> Result<(), GuestInitError> {
    let request = request(identity, spec, epoch)?;
    let init = async {
        if let Identity::Boot = identity {
            wait_until_healthy(machine).await?;
        }
        let stream = loop {
            match machine.dial(HOST_VSOCK_PORT).await {
                Ok(stream) => break stream,
                Err(error) if machine.exit().borrow().is_some() => {
                    return Err(GuestInitError::Dial(error));
                }
                Err(_) => sleep(RETRY_INTERVAL).await,
            }
        };
        client::init(stream, &request)
            .await
            .map_err(GuestInitError::Agent)
    };
    timeout(deadline, init)
        .await
        .map_err(|_| GuestInitError::Timeout(deadline))?
}

/// Returns when the agent of a booting guest is healthy. Checks back off, because each one costs the guest time.
pub(crate) async fn wait_until_healthy(machine: &dyn Machine) -> Result<(), GuestInitError> {
    let mut backoff = FIRST_BACKOFF;
    loop {
        match machine.dial(HOST_VSOCK_PORT).await {
            Ok(stream) => {
                if let Ok(Ok(())) = timeout(HEALTH_TIMEOUT, client::health(stream)).await {
                    return Ok(());
                }
            }
            Err(error) if machine.exit().borrow().is_some() => {
                return Err(GuestInitError::Dial(error));
            }
            Err(_) => {}
        }
        sleep(backoff).await;
        backoff = (backoff * 2).min(MAX_BACKOFF);
    }
}

fn request(
    identity: Identity,
    spec: &SandboxSpec,
    epoch: Epoch,
) -> Result<InitRequest, GuestInitError> {
    let mut rng = rand::rng();
    let mut entropy = vec![0; ENTROPY_LEN];
    rng.fill(entropy.as_mut_slice());
    let now = OffsetDateTime::from(SystemTime::now())
        .format(&Rfc3339)
        .map_err(GuestInitError::Time)?;
    // An empty token disables authentication: a fork must not keep its origin's token.
    let token = spec
        .access_token
        .as_ref()
        .map_or("", |token| token.expose());
    let mut request = InitRequest {
        timestamp: Some(now),
        entropy: Some(Entropy::new(entropy).map_err(GuestInitError::Invalid)?),
        access_token: Some(Token::new(token)),
        lifecycle_id: Some(epoch.to_string()),
        ..InitRequest::default()
    };
    if let Identity::Fork | Identity::Boot = identity {
        let id = spec.id.as_str();
        request.env_vars = Some(spec.env.clone());
        request.hostname =
            Some(Hostname::try_from(id.to_owned()).map_err(GuestInitError::Invalid)?);
        request.sandbox_id = Some(id.to_owned());
        request.template_id = Some(spec.template.as_str().to_owned());
    }
    if let Identity::Fork = identity {
        // A guest that boots has its machine id on its disk.
        request.machine_id = Some(MachineId::from(rng.random::<[u8; 16]>()));
    }
    Ok(request)
}
