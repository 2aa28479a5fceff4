//! JSON bodies of requests and responses about sandboxes.

mod create;
mod request;
mod response;

pub(super) use self::{
    create::{ApiVersion, CreateBody},
    request::{
        ConnectBody, ForkBody, PauseBody, RefreshBody, ResumeBody, RollbackBody, SnapshotBody,
        TimeoutBody, UnlimitedTimeout, lifetime, remaining_lifetime, scope,
    },
    response::{ListedSandbox, SandboxDetail, SandboxResponse},
};
