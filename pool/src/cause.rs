//! One failure, told to many.

use std::{error::Error, fmt, sync::Arc};

use pool_api::Cause;

/// An error that can be handed to every caller that waited.
#[derive(Debug, Clone)]
pub(crate) struct Shared(Arc<dyn Error + Send + Sync>);

impl Shared {
    pub(crate) fn new(error: impl Error + Send + Sync + 'static) -> Self {
        Self(Arc::new(error))
    }

    /// As the boundary wants it.
    pub(crate) fn cause(&self) -> Cause {
        Box::new(self.clone())
    }

    /// The error and what caused it, in one line.
    pub(crate) fn chain(&self) -> String {
        chain(&*self.0)
    }
}

/// An error and what caused it, in one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Shared {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}
