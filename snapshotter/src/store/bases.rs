//! Base images: the raw images below the layers of disks.
//!
//! An image is copied into the store and named by its digest, so a change of the file that it came from does not reach the
//! sandboxes on it.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read},
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::Store;
use crate::{
    BaseImage, Digest, OpenError,
    files::{open_sized, sync_dir},
};

/// Bytes read at once. A chunk of zeroes is a hole in the copy.
const CHUNK: usize = 64 << 10;

impl Store {
    /// Copies an image into the store, unless the store has it. With `expected`, an image of another digest is an error.
    /// Blocks.
    pub fn import_base(
        &self,
        path: &Path,
        expected: Option<Digest>,
    ) -> Result<BaseImage, OpenError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        if let Some(digest) = expected {
            match fs::metadata(self.base_path(&digest)) {
                Ok(metadata) => return Ok(BaseImage::stored(metadata.len(), digest)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io(&self.base_path(&digest))(error)),
            }
        }
        let source = File::open(path).map_err(io(path))?;
        let staging = self.staging_dir();
        let copy = tempfile::NamedTempFile::new_in(&staging).map_err(io(&staging))?;
        let (len, digest) = copy_and_digest(&source, copy.as_file()).map_err(io(path))?;
        if expected.is_some_and(|expected| expected != digest) {
            return Err(OpenError::Damaged {
                path: path.to_owned(),
                what: "wrong digest",
            });
        }
        let target = self.base_path(&digest);
        let file = copy.as_file();
        file.set_permissions(Permissions::from_mode(0o400))
            .and_then(|()| file.sync_all())
            .map_err(io(&target))?;
        copy.persist(&target)
            .map_err(|error| io(&target)(error.error))?;
        sync_dir(&self.bases_dir()).map_err(io(&target))?;
        Ok(BaseImage::stored(len, digest))
    }

    /// Opens an image of the store, whose digest is checked once a process. An image that an older version of Catnap
    /// named by path is imported first.
    pub fn open_base(&self, base: &BaseImage) -> Result<File, OpenError> {
        if let Some(path) = &base.path {
            self.import_base(path, Some(base.digest))?;
        }
        let path = self.base_path(&base.digest);
        let file = open_sized(&path, base.len)?;
        self.verified
            .check(base.digest, &file, || {
                let reader = File::open(&path)?;
                Ok::<_, io::Error>(Digest::of_reader(reader)? == base.digest)
            })
            .map_err(|source| OpenError::Io {
                path: path.clone(),
                source,
            })?
            .then_some(file)
            .ok_or(OpenError::Damaged {
                path,
                what: "wrong digest",
            })
    }

    fn base_path(&self, digest: &Digest) -> PathBuf {
        self.bases_dir().join(digest.to_string())
    }
}

/// Copies a file, without its zeroes, and returns its length and digest.
fn copy_and_digest(mut from: &File, to: &File) -> io::Result<(u64, Digest)> {
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; CHUNK];
    let mut len = 0;
    loop {
        let read = from.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        let bytes = &chunk[..read];
        hasher.update(bytes);
        if bytes.iter().any(|byte| *byte != 0) {
            to.write_all_at(bytes, len)?;
        }
        len += read as u64;
    }
    to.set_len(len)?;
    Ok((len, hasher.into()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn import_copies_the_image_and_keeps_its_holes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let path = dir.path().join("image");
        let source = File::create_new(&path).unwrap();
        source.set_len(8 << 20).unwrap();
        source.write_all_at(b"data", 5 << 20).unwrap();
        let base = store.import_base(&path, None).unwrap();
        assert_eq!((base.len, &base.path), (8 << 20, &None));
        source.write_all_at(b"else", 5 << 20).unwrap();
        let stored = store.open_base(&base).unwrap();
        let mut bytes = [0; 4];
        stored.read_exact_at(&mut bytes, 5 << 20).unwrap();
        assert_eq!(&bytes, b"data");
        assert!(stored.metadata().unwrap().blocks() * 512 < 1 << 20);
    }

    #[test]
    fn altered_base_image_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let path = dir.path().join("image");
        fs::write(&path, "data").unwrap();
        let base = store.import_base(&path, None).unwrap();
        fs::write(&path, "else").unwrap();
        let wrong = store.import_base(&path, Some(Digest::of(b"other")));
        assert!(matches!(wrong, Err(OpenError::Damaged { .. })), "{wrong:?}");
        let stored = store.base_path(&base.digest);
        fs::set_permissions(&stored, Permissions::from_mode(0o600)).unwrap();
        fs::write(&stored, "atad").unwrap();
        let opened = Store::open(dir.path()).unwrap().open_base(&base);
        assert!(
            matches!(opened, Err(OpenError::Damaged { .. })),
            "{opened:?}"
        );
    }
}
