//! The identity of a data directory, which its ledger has as well.
//!
//! ```text
//! identity.json   a random id, and the number of starts
//! ```

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

const FILE: &str = "identity.json";

/// The identity of a data directory at one start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// A random id.
    pub(crate) id: String,
    /// The number of starts.
    pub(crate) generation: u64,
}

/// A data directory.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    identity: Identity,
}

impl DataDir {
    /// Reads the identity of a directory. A directory without one gets a new id and has had no start.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let identity = match fs::read(path.join(FILE)) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Identity {
                id: Uuid::new_v4().to_string(),
                generation: 0,
            },
            Err(error) => return Err(error),
        };
        Ok(Self {
            path: path.to_owned(),
            identity,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Writes the identity durably.
    pub(crate) fn save(&self, identity: &Identity) -> io::Result<()> {
        let directory = File::open(&self.path)?;
        let new = self.path.join("identity.json.new");
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&serde_json::to_vec(identity)?)?;
        file.sync_all()?;
        fs::rename(&new, self.path.join(FILE))?;
        directory.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_is_kept_and_damage_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path()).unwrap();
        assert_eq!(first.identity().generation, 0);
        let next = Identity {
            generation: 1,
            ..first.identity().clone()
        };
        first.save(&next).unwrap();
        assert_eq!(DataDir::open(dir.path()).unwrap().identity(), &next);
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(DataDir::open(dir.path()).is_err());
    }
}
