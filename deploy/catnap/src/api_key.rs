//! The API key: given by the caller, or generated once and stored in the data directory.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::{Context, Result, bail};
use pool_api::Secret;
use rand::RngCore;

/// Source of an API key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum KeyOrigin {
    /// An argument or the environment.
    Given,
    /// The data directory.
    Stored,
    /// This call, which generated it.
    Generated,
}

/// Returns the given key, else the stored one, else generates one and stores it.
pub(crate) fn load_or_create(given: Option<&str>, data_dir: &Path) -> Result<(Secret, KeyOrigin)> {
    if let Some(given) = given {
        if given.is_empty() {
            bail!("the API key must not be empty");
        }
        return Ok((Secret::new(given), KeyOrigin::Given));
    }
    let path = data_dir.join("api-key");
    match fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => Ok((Secret::new(text.trim()), KeyOrigin::Stored)),
        Ok(_) => bail!(
            "the API key file {} is empty; delete it to generate a new key",
            path.display()
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = generate();
            write_atomic(&path, &key)
                .with_context(|| format!("failed to write the API key to {}", path.display()))?;
            Ok((key, KeyOrigin::Generated))
        }
        Err(error) => Err(error)
            .with_context(|| format!("failed to read the API key from {}", path.display())),
    }
}

/// Generates `e2b_` and 40 hexadecimal digits, the form that E2B's clients accept.
fn generate() -> Secret {
    let mut bytes = [0; 20];
    rand::rng().fill_bytes(&mut bytes);
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Secret::new(format!("e2b_{digits}"))
}

/// Writes to a temporary file and renames it, so that a crash leaves a complete key or none.
fn write_atomic(path: &Path, key: &Secret) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(key.expose().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn generated_key_is_stored_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let (generated, origin) = load_or_create(None, dir.path()).unwrap();
        assert_eq!(origin, KeyOrigin::Generated);
        let digits = generated.expose().strip_prefix("e2b_").unwrap();
        assert!(
            digits.len() == 40
                && digits
                    .bytes()
                    .all(|c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase())
        );
        let mode = fs::metadata(dir.path().join("api-key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let loaded = load_or_create(None, dir.path()).unwrap();
        assert_eq!(loaded, (generated, KeyOrigin::Stored));
    }

    #[test]
    fn given_key_takes_precedence_and_is_not_empty() {
        let dir = tempfile::tempdir().unwrap();
        load_or_create(None, dir.path()).unwrap();
        let given = load_or_create(Some("x"), dir.path()).unwrap();
        assert_eq!(given, (Secret::new("x"), KeyOrigin::Given));
        assert!(load_or_create(Some(""), dir.path()).is_err());
    }
}
