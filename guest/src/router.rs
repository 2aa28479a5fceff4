//! Routes each HTTP request to its handler, after checking that the caller may use it.

use error_chain::chain;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use tracing::warn;

use crate::{
    access, cors, files,
    hooks::{self, HookPoint},
    init_request,
    response::{self, HttpResponse},
    services,
    state::AgentState,
};

/// The remote end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// The host, which may call host-only routes.
    Host,
    /// A program in the guest, or a client whose bytes the host relays.
    Other,
}

/// A route for the host alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HostRoute {
    Init,
    Freeze,
    Unfreeze,
    Warm,
}

/// Paths of the host routes, without the leading slash. Each is one of [`guest_api::envd::HOST_ONLY_PATHS`], which the
/// gateway never forwards.
const HOST_ROUTES: [(&str, HostRoute); 4] = [
    ("init", HostRoute::Init),
    ("freeze", HostRoute::Freeze),
    ("unfreeze", HostRoute::Unfreeze),
    ("warm", HostRoute::Warm),
];

impl HostRoute {
    fn from_path(path: &str) -> Option<Self> {
        let name = path.strip_prefix('/')?;
        let route = HOST_ROUTES.iter().find(|(known, _)| *known == name);
        route.map(|(_, route)| *route)
    }
}

/// Handles one request, including CORS.
pub(crate) async fn handle(
    state: &AgentState,
    peer: Peer,
    request: Request<Incoming>,
) -> HttpResponse {
    if let Some(preflight) = cors::preflight(&request) {
        return preflight;
    }
    let cross_origin = cors::is_cross_origin(&request);
    let mut response = route(state, peer, request).await;
    if cross_origin {
        cors::allow(response.headers_mut());
    }
    response
}

async fn route(state: &AgentState, peer: Peer, request: Request<Incoming>) -> HttpResponse {
    let path = request.uri().path();
    if let Some(route) = HostRoute::from_path(path) {
        return host_only(state, peer, route, request).await;
    }
    match (request.method(), path) {
        (&Method::GET | &Method::HEAD, "/health") => return response::no_content(),
        (&Method::GET, "/metrics") if peer == Peer::Host => return metrics(state),
        (&Method::GET | &Method::HEAD, "/files") => return files::download(state, &request),
        (&Method::POST, "/files") => return files::upload(state, request).await,
        _ => {}
    }
    let allowed = access::check_token(&state.guest_config().token, request.headers());
    if let Err(denied) = allowed {
        return response::error(StatusCode::UNAUTHORIZED, &denied.to_string());
    }
    match (request.method(), path) {
        (&Method::POST, "/files/compose") => files::compose(state, request).await,
        (&Method::GET, "/envs") => response::json(StatusCode::OK, &state.guest_config().env),
        (&Method::GET, "/metrics") => metrics(state),
        (&Method::POST, _) if path.starts_with(services::process::PATH_PREFIX) => {
            services::process::handle(state, request).await
        }
        (&Method::POST, _) if path.starts_with(services::filesystem::PATH_PREFIX) => {
            services::filesystem::handle(state, request).await
        }
        (_, "/health" | "/files" | "/files/compose" | "/envs" | "/metrics") => {
            response::error(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")
        }
        _ => response::error(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

async fn host_only(
    state: &AgentState,
    peer: Peer,
    route: HostRoute,
    request: Request<Incoming>,
) -> HttpResponse {
    let path = request.uri().path();
    if peer != Peer::Host {
        let text = format!("{path} is reserved for the host");
        return response::error(StatusCode::FORBIDDEN, &text);
    }
    if request.method() != Method::POST {
        return response::error(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
    }
    let result = match route {
        HostRoute::Init => return init_request::handle(state, request).await,
        HostRoute::Freeze => state.disk().freeze(),
        HostRoute::Unfreeze => state.disk().thaw(),
        HostRoute::Warm => {
            hooks::run(state, HookPoint::BeforeSnapshot).await;
            Ok(())
        }
    };
    match result {
        Ok(()) => response::no_content(),
        Err(error) => {
            let error = chain(&error).to_string();
            warn!(error, path, "failed to handle host request");
            response::error(StatusCode::INTERNAL_SERVER_ERROR, &error)
        }
    }
}

fn metrics(state: &AgentState) -> HttpResponse {
    match state.usage().sample(state.unix_seconds()) {
        Ok(metrics) => response::json(StatusCode::OK, &metrics),
        Err(error) => response::error(
            StatusCode::INTERNAL_SERVER_ERROR,
            &chain(&error).to_string(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use guest_api::envd::HOST_ONLY_PATHS;

    use super::*;

    #[test]
    fn every_host_route_is_a_host_only_path() {
        for (name, route) in HOST_ROUTES {
            assert!(HOST_ONLY_PATHS.contains(&name), "{name}");
            assert_eq!(HostRoute::from_path(&format!("/{name}")), Some(route));
        }
        for other in ["init", "/init/", "/health", "/", ""] {
            assert_eq!(HostRoute::from_path(other), None, "{other:?}");
        }
    }
}
