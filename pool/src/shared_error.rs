//! An error for several callers.

use std::{error::Error, fmt, sync::Arc};

use pool_api::Cause;

/// An error that each of several callers gets.
#[derive(Debug, Clone)]
pub(crate) struct SharedError(Arc<dyn Error + Send + Sync>);

impl SharedError {
    pub(crate) fn new(error: impl Error + Send + Sync + 'static) -> Self {
        Self(Arc::new(error))
    }

    /// Returns one caller's copy.
    pub(crate) fn cause(&self) -> Cause {
        Box::new(self.clone())
    }
}

impl fmt::Display for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for SharedError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}
