//! Converts file errors into errors for callers.

use std::{fmt, io, path::Path};

use error_chain::chain;

use crate::rpc::{Code, RpcError};

/// An operation on a file, as error messages name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileOperation {
    Stat,
    MakeDir,
    Move,
    List,
    Remove,
    Watch,
}

/// Returns whether the file does not exist.
pub(crate) fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Converts an error of `operation` on `path` into one for the caller.
pub(crate) fn file_error(operation: FileOperation, path: &Path, error: &io::Error) -> RpcError {
    use io::ErrorKind as Kind;
    let shown = path.display();
    let code = match error.kind() {
        Kind::NotFound => return not_found(path),
        Kind::NotADirectory if operation == FileOperation::Stat => return not_found(path),
        Kind::StorageFull | Kind::QuotaExceeded => {
            return RpcError::new(Code::ResourceExhausted, "not enough disk space available");
        }
        Kind::NotADirectory
        | Kind::IsADirectory
        | Kind::AlreadyExists
        | Kind::DirectoryNotEmpty
        | Kind::InvalidInput
        | Kind::InvalidFilename => Code::InvalidArgument,
        Kind::CrossesDevices | Kind::ReadOnlyFilesystem | Kind::ResourceBusy => {
            Code::FailedPrecondition
        }
        Kind::PermissionDenied => Code::PermissionDenied,
        _ => {
            let text = format!("{operation} {shown}: {}", chain(error));
            return RpcError::new(Code::Internal, text);
        }
    };
    RpcError::new(code, format!("{operation} {shown}: {error}"))
}

fn not_found(path: &Path) -> RpcError {
    let text = format!("file or directory not found: {}", path.display());
    RpcError::new(Code::NotFound, text)
}

impl fmt::Display for FileOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stat => "stat",
            Self::MakeDir => "make directory",
            Self::Move => "move",
            Self::List => "list",
            Self::Remove => "remove",
            Self::Watch => "watch",
        })
    }
}
