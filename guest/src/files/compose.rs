//! `POST /files/compose`: files put together into one.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::task::spawn_blocking;

use super::{
    Failure, Target, bad,
    store::{self, Written},
};
use crate::{
    agent::Agent,
    metadata::Notes,
    place,
    respond::{self, Answer},
    user::User,
};

#[derive(Debug, Deserialize)]
struct Order {
    source_paths: Vec<String>,
    destination: String,
    #[serde(default)]
    username: Option<String>,
}

/// Answers `POST /files/compose`.
pub(crate) async fn compose(agent: &Agent, request: Request<Incoming>) -> Answer {
    match put_together(agent, request).await {
        Ok(written) => respond::json(StatusCode::OK, &written),
        Err(failure) => failure.into(),
    }
}

async fn put_together(agent: &Agent, request: Request<Incoming>) -> Result<Written, Failure> {
    let body = respond::collect(request.into_body())
        .await
        .map_err(|error| bad(respond::chain(&error)))?;
    let order: Order = serde_json::from_slice(&body)
        .map_err(|error| bad(format!("error decoding request: {error}")))?;
    let target = Target::of(agent, order.username.as_deref().unwrap_or_default())?;
    let destination = target.resolve(&order.destination)?;
    let sources = order
        .source_paths
        .iter()
        .map(|path| target.resolve(path))
        .collect::<Result<Vec<_>, _>>()?;
    if sources.is_empty() {
        return Err(bad("source_paths is empty".to_owned()));
    }
    for source in &sources {
        check(source)?;
    }
    if fs::metadata(&destination).is_ok_and(|found| !found.is_file()) {
        return Err(bad(format!(
            "path '{}' is not a regular file",
            destination.display()
        )));
    }
    agent.disk().writable().await;
    let written = Written::new(&destination, Notes::new());
    let user = target.user;
    // It may be long, and others must not wait for it.
    spawn_blocking(move || build(&sources, &destination, &user))
        .await
        .unwrap_or_else(|error| {
            Err(Failure(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("error composing files: {error}"),
            ))
        })?;
    Ok(written)
}

fn check(source: &Path) -> Result<(), Failure> {
    let shown = source.display();
    match fs::metadata(source) {
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => Err(bad(format!("path '{shown}' is not a regular file"))),
        Err(_) => Err(Failure(
            StatusCode::NOT_FOUND,
            format!("path '{shown}' does not exist"),
        )),
    }
}

/// Puts the sources together beside the destination, so that it is whole or as before, and then removes them.
fn build(sources: &[PathBuf], destination: &Path, user: &User) -> Result<(), Failure> {
    let failed = |error: io::Error| store::failure(destination, &error);
    place::make_parents(destination, user)
        .map_err(|error| store::failure(&error.path, &error.source))?;
    let mut name = std::ffi::OsString::from(".compose-");
    name.push(destination.file_name().unwrap_or_default());
    let beside = destination.with_file_name(name);
    let made = fill(sources, &beside, user).and_then(|()| fs::rename(&beside, destination));
    if let Err(error) = made {
        // What went wrong is told; what it left is only in the way.
        let _removed = fs::remove_file(&beside);
        return Err(failed(error));
    }
    for source in sources.iter().filter(|source| *source != destination) {
        match fs::remove_file(source) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(store::failure(source, &error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn fill(sources: &[PathBuf], path: &Path, user: &User) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o666)
        .open(path)?;
    place::give(&file, user)?;
    for source in sources {
        io::copy(&mut File::open(source)?, &mut file)?;
    }
    Ok(())
}
