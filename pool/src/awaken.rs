//! The first words to a guest: what it is now.

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

/// Between two attempts to reach an agent that is not there yet.
const RETRY: Duration = Duration::from_millis(20);
/// The longest one question whether an agent is healthy may take, and the times between two.
const ATTEMPT: Duration = Duration::from_secs(30);
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(1);
const ENTROPY: usize = 64;

/// A guest that was not told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AwakenError {
    #[error("reach the guest agent")]
    Dial(#[source] DialError),
    #[error("tell the guest agent what it is")]
    Agent(#[source] AgentError),
    #[error("the guest agent did not answer within {0:?}")]
    Late(Duration),
    #[error("say what the guest is")]
    Invalid(#[source] InvalidInit),
    #[error("say what time it is")]
    Time(#[source] time::error::Format),
}

/// What a guest becomes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum As<'a> {
    /// Somebody else than it was.
    Fork(&'a SandboxSpec, Epoch),
    /// Itself, later.
    Restore(&'a SandboxSpec, Epoch),
    /// Itself, on a kernel that knows nothing yet.
    Boot(&'a SandboxSpec, Epoch),
}

/// Tells a guest what it is now, and returns when it has taken effect.
pub(crate) async fn awaken(
    machine: &dyn Machine,
    as_what: As<'_>,
    deadline: Duration,
) -> Result<(), AwakenError> {
    let request = request(as_what)?;
    let told = async {
        if let As::Boot(..) = as_what {
            healthy(machine).await?;
        }
        let stream = loop {
            match machine.dial(HOST_VSOCK_PORT).await {
                Ok(stream) => break stream,
                Err(error) if machine.exit().borrow().is_some() => {
                    return Err(AwakenError::Dial(error));
                }
                Err(_) => sleep(RETRY).await,
            }
        };
        client::init(stream, &request)
            .await
            .map_err(AwakenError::Agent)
    };
    timeout(deadline, told)
        .await
        .map_err(|_| AwakenError::Late(deadline))?
}

/// Returns when the agent of a guest that boots says that it is healthy. It is asked ever less often: each question
/// costs the guest time.
pub(crate) async fn healthy(machine: &dyn Machine) -> Result<(), AwakenError> {
    let mut backoff = FIRST_BACKOFF;
    loop {
        match machine.dial(HOST_VSOCK_PORT).await {
            Ok(stream) => {
                if let Ok(Ok(())) = timeout(ATTEMPT, client::health(stream)).await {
                    return Ok(());
                }
            }
            Err(error) if machine.exit().borrow().is_some() => {
                return Err(AwakenError::Dial(error));
            }
            Err(_) => {}
        }
        sleep(backoff).await;
        backoff = (backoff * 2).min(MAX_BACKOFF);
    }
}

fn request(as_what: As<'_>) -> Result<InitRequest, AwakenError> {
    let (As::Fork(spec, epoch) | As::Restore(spec, epoch) | As::Boot(spec, epoch)) = as_what;
    let mut rng = rand::rng();
    let mut entropy = vec![0; ENTROPY];
    rng.fill(entropy.as_mut_slice());
    let now = OffsetDateTime::from(SystemTime::now())
        .format(&Rfc3339)
        .map_err(AwakenError::Time)?;
    // An empty token lets everybody in; a fork must not go on with its origin's.
    let token = spec
        .access_token
        .as_ref()
        .map_or("", |token| token.expose());
    let mut request = InitRequest {
        timestamp: Some(now),
        entropy: Some(Entropy::new(entropy).map_err(AwakenError::Invalid)?),
        access_token: Some(Token::new(token)),
        lifecycle_id: Some(epoch.to_string()),
        ..InitRequest::default()
    };
    if let As::Fork(spec, _) | As::Boot(spec, _) = as_what {
        let id = spec.id.as_str();
        request.env_vars = Some(spec.env.clone());
        request.hostname = Some(Hostname::try_from(id.to_owned()).map_err(AwakenError::Invalid)?);
        request.sandbox_id = Some(id.to_owned());
        request.template_id = Some(spec.template.as_str().to_owned());
    }
    if let As::Fork(..) = as_what {
        // One that boots has it on its disk.
        request.machine_id = Some(MachineId::from(rng.random::<[u8; 16]>()));
    }
    Ok(request)
}
