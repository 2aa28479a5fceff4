//! The API key: given, or made once and kept.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::{Context, Result, bail};
use pool_api::Secret;
use rand::RngCore;

/// Where a key comes from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It was given.
    Given,
    /// It was found in the data directory.
    Kept,
    /// It was made now.
    Made,
}

/// The key to ask callers for.
pub(crate) fn obtain(given: Option<&str>, data_dir: &Path) -> Result<(Secret, Origin)> {
    if let Some(given) = given {
        if given.is_empty() {
            bail!("the API key must not be empty");
        }
        return Ok((Secret::new(given), Origin::Given));
    }
    let path = data_dir.join("api-key");
    match fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => Ok((Secret::new(text.trim()), Origin::Kept)),
        Ok(_) => bail!(
            "{} is empty: remove it to have a new API key made",
            path.display()
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = make();
            keep(&path, &key)
                .with_context(|| format!("write the API key to {}", path.display()))?;
            Ok((key, Origin::Made))
        }
        Err(error) => {
            Err(error).with_context(|| format!("read the API key from {}", path.display()))
        }
    }
}

/// `e2b_` and 40 hexadecimal digits, which is what clients accept.
fn make() -> Secret {
    let mut bytes = [0; 20];
    rand::rng().fill_bytes(&mut bytes);
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Secret::new(format!("e2b_{digits}"))
}

/// Written aside and renamed, so that a crash leaves a whole key or none.
fn keep(path: &Path, key: &Secret) -> io::Result<()> {
    let aside = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&aside)?;
    file.write_all(key.expose().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&aside, path)
}

#[cfg(test)]
mod test {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept_from_others() {
        let dir = tempfile::tempdir().unwrap();
        let (made, origin) = obtain(None, dir.path()).unwrap();
        assert_eq!(origin, Origin::Made);
        let digits = made.expose().strip_prefix("e2b_").unwrap();
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
        assert_eq!(obtain(None, dir.path()).unwrap(), (made, Origin::Kept));
        assert_eq!(
            obtain(Some("x"), dir.path()).unwrap(),
            (Secret::new("x"), Origin::Given)
        );
        assert!(obtain(Some(""), dir.path()).is_err());
    }
}
