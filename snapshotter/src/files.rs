//! Opening and syncing files of the store.

use std::{fs::File, io, path::Path};

use crate::OpenError;

/// Opens a file of exactly this length.
pub(crate) fn open_sized(path: &Path, len: u64) -> Result<File, OpenError> {
    let io = |source| OpenError::Io {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(io)?;
    if file.metadata().map_err(io)?.len() != len {
        return Err(OpenError::Damaged {
            path: path.to_owned(),
            what: "cut short or too long",
        });
    }
    Ok(file)
}

/// Makes changes of a directory's entries durable.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
